#!/usr/bin/env bash
# Video-ChatGPT on an embedded default; the same as bash scripts/quickstart.sh video_chatgpt [--fresh]
exec bash "$(dirname "$0")/../quickstart.sh" video_chatgpt "$@"
