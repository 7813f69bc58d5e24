#!/usr/bin/env bash
# Trains the 2B verifier on candidates of a 2B grounder (scripts/data/make_verifying.sh). Extra arguments win.
exec bash "$(dirname "$0")/../recipe.sh" pretrain_verifier_2b \
    --role verifier \
    --model_name_or_path model_zoo/Qwen2-VL-2B-Instruct \
    --datasets qvhighlights_verify_2b,didemo_verify_2b,tacos_verify_2b \
    --learning_rate 5e-5 --num_train_epochs 1 --fp16 True "$@"
