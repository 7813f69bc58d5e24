#!/usr/bin/env bash
# Trains Video-ChatGPT's projector on VideoInstruct-100K, as documented. Extra arguments win.
MODULE=videomind.video_chatgpt.train exec bash "$(dirname "$0")/../launch.sh" --config train_video_chatgpt "$@"
