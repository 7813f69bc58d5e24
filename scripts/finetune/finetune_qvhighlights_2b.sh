#!/usr/bin/env bash
# Fine-tunes the 2B grounder on QVHighlights. Extra arguments win.
exec bash "$(dirname "$0")/../recipe.sh" finetune_grounder_qvhighlights_2b \
    --role grounder \
    --model_name_or_path model_zoo/VideoMind-2B \
    --datasets qvhighlights \
    --learning_rate 1e-4 --num_train_epochs 5 --fp16 True "$@"
