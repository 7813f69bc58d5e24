#!/usr/bin/env bash
# Trains one 2B adapter that plays planner, grounder and verifier. Ours, not published. Extra arguments win.
exec bash "$(dirname "$0")/../recipe.sh" pretrain_all_in_one_2b \
    --role all_in_one \
    --model_name_or_path model_zoo/Qwen2-VL-2B-Instruct \
    --datasets qvhighlights,didemo,tacos,queryd,cosmo_cap,internvid_vtime,hirest_grounding,hirest_step,qvhighlights_verify_2b,didemo_verify_2b,tacos_verify_2b,mixed_planning \
    --learning_rate 1e-4 --num_train_epochs 1 --fp16 True "$@"
