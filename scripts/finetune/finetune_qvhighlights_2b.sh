#!/usr/bin/env bash
# Fine-tunes the 2B grounder on QVHighlights. Extra arguments win.
exec bash "$(dirname "$0")/../launch.sh" --config finetune_grounder_qvhighlights --size 2b "$@"
