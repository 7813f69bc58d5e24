#!/usr/bin/env bash
# Trains Video-ChatGPT's projector on VideoInstruct-100K, as documented. Extra arguments win.
export MODULE=videomind.video_chatgpt.train DEEPSPEED=${DEEPSPEED:-none}
export GLOBAL_BATCH=${GLOBAL_BATCH:-32} BATCH_PER_DEVICE=${BATCH_PER_DEVICE:-8} MASTER_PORT=${MASTER_PORT:-29001}
exec bash "$(dirname "$0")/../launch.sh" \
    --model_name_or_path model_zoo/llava-v1.5-7b --version v1 \
    --data_path data/video_chatgpt/video_chatgpt_training.json \
    --video_folder data/video_chatgpt/clip_features \
    --tune_mm_mlp_adapter True --mm_use_vid_start_end --bf16 True \
    --output_dir work_dirs/train_video_chatgpt_7b --num_train_epochs 3 \
    --save_strategy steps --save_steps 3000 --save_total_limit 3 \
    --learning_rate 2e-5 --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine \
    --logging_steps 100 --tf32 True --model_max_length 2048 --gradient_checkpointing True \
    --lazy_preprocess True --dataloader_num_workers 4 --report_to tensorboard "$@"
