#!/usr/bin/env bash
# Trains the 2B grounder. Extra arguments win: bash scripts/pretrain/pretrain_grounder_2b.sh --learning_rate 5e-5
exec bash "$(dirname "$0")/../recipe.sh" pretrain_grounder_2b \
    --role grounder \
    --model_name_or_path model_zoo/Qwen2-VL-2B-Instruct \
    --datasets qvhighlights,didemo,tacos,queryd,cosmo_cap,internvid_vtime,hirest_grounding,hirest_step \
    --learning_rate 1e-4 --num_train_epochs 1 --fp16 True "$@"
