#!/usr/bin/env bash
# What all published recipes share; the scripts in pretrain/ and finetune/ add role, data and rates.
#
#   bash scripts/recipe.sh NAME ARGUMENTS...     NAME is the folder below work_dirs/
#
# Arguments given later win, so everything here can be overridden on the command line.
set -euo pipefail
name=$1
shift
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" \
    --output_dir "work_dirs/$name" \
    --lora_type qkvo --lora_r 64 --lora_alpha 64 --lora_dropout 0.1 \
    --min_video_len 5 --max_video_len 500 --max_num_words 200 \
    --lr_scheduler_type cosine --warmup_steps 0.03 --weight_decay 0 \
    --gradient_checkpointing True --dataloader_num_workers 4 \
    --save_steps 500 --save_total_limit 1 --logging_steps 1 --report_to tensorboard \
    "$@"
