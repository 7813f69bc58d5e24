#!/usr/bin/env bash
# Trains the 7B verifier on candidates of a 7B grounder (scripts/data/make_verifying.sh). Extra arguments win.
exec bash "$(dirname "$0")/../recipe.sh" pretrain_verifier_7b \
    --role verifier \
    --model_name_or_path model_zoo/Qwen2-VL-7B-Instruct \
    --datasets qvhighlights_verify_7b,didemo_verify_7b,tacos_verify_7b \
    --learning_rate 5e-5 --num_train_epochs 1 --fp16 True "$@"
