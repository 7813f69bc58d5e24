#!/usr/bin/env bash
# Trains the 7B planner. Extra arguments win.
exec bash "$(dirname "$0")/../recipe.sh" pretrain_planner_7b \
    --role planner \
    --model_name_or_path model_zoo/Qwen2-VL-7B-Instruct \
    --datasets mixed_planning \
    --learning_rate 2e-5 --num_train_epochs 1 --fp16 True "$@"
