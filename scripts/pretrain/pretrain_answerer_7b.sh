#!/usr/bin/env bash
# Trains a 7B answerer. Ours, not published: the published agent answers with the base model. Extra arguments win.
exec bash "$(dirname "$0")/../recipe.sh" pretrain_answerer_7b \
    --role answerer \
    --model_name_or_path model_zoo/Qwen2-VL-7B-Instruct \
    --datasets nextqa,star,rextime_crop,qa_ego4d_crop \
    --learning_rate 2e-5 --num_train_epochs 1 --fp16 True "$@"
