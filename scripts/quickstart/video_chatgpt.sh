#!/usr/bin/env bash
# Video-ChatGPT on an embedded default: renders videos, makes a tiny CLIP and a tiny Llama, computes features, trains
# with the same code and scripts as a real run, and answers questions about held-out videos before and after.
#
#   bash scripts/quickstart.sh video_chatgpt [--fresh]      --fresh starts over; otherwise finished steps are skipped
#
# Everything goes to work_dirs/quickstart_video_chatgpt (QUICKSTART_DIR overrides it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=${QUICKSTART_DIR:-work_dirs/quickstart_video_chatgpt}
case ${1:-} in
--fresh) rm -rf "$work" ;;
"") ;;
*)
    echo "Unknown argument $1. Usage: bash scripts/quickstart.sh video_chatgpt [--fresh]" >&2
    exit 2
    ;;
esac

# shellcheck source=scripts/quickstart/prelude.sh
source scripts/quickstart/prelude.sh

data=$work/data/video_chatgpt clip=$work/base/clip llama=$work/base/llama run=$work/video_chatgpt
steps=${QUICKSTART_STEPS:-125}
share_batch 32
# Sizes for this model on two CPU cores; everything else is the recipe's.
training=(
    --model_name_or_path "$llama" --data_path "$work/training.json" --video_folder "$work/features"
    --tune_mm_mlp_adapter False --learning_rate 3e-3
    --bf16 False --tf32 False --gradient_checkpointing False --dataloader_num_workers 0
    --save_steps 50 --save_total_limit 1 --logging_steps 10
)

say "Rendering videos with questions and answers -> $data"
"$PYTHON" -m videomind.synthetic instructions "$work/data" --num_train 200 --num_test 60

say "Tiny CLIP and tiny Llama with random weights -> $work/base"
[[ -d $work/base ]] || "$PYTHON" -m videomind.synthetic chat_base "$work/base"

say "Features of the training videos -> $work/features"
if [[ -f $work/features_done ]]; then
    echo "Done already"
else
    "$PYTHON" scripts/save_spatio_temporal_clip_features.py --video_dir_path "$data/videos" \
        --clip_feat_path "$work/features" --vision_tower "$clip"
    touch "$work/features_done"
fi

say "Instructions as conversations -> $work/training.json"
"$PYTHON" scripts/convert_instruction_json_to_training_format.py --input_json_file "$data/instructions.json" \
    --output_json_file "$work/training.json" --clip_feature_path "$work/features"

ask=("$PYTHON" -m videomind.video_chatgpt.infer --vision_tower "$clip" --conv-mode vicuna_v1_1 --temperature 0)
answer() { # MODEL OUT: questions about held-out videos in held-out words, and whether the answers are right
    local out=$2
    if [[ -f $out/judged.metrics.json ]]; then
        echo "Done already: $out"
        return
    fi
    "${ask[@]}" --model-name "$1" --video_dir "$data/test_videos" --max_new_tokens 16 --batch_size 20 \
        --gt_file_question "$data/test_q.json" --gt_file_answers "$data/test_a.json" \
        --output_dir "$out" --output_name answers
    "$PYTHON" -m videomind.video_chatgpt.judge.judge --criterion zero_shot_qa --judge exact --pred_path "$out/answers.json" \
        --output_dir "$out/replies" --output_json "$out/judged.json" >"$out/judged.txt"
}

say "Before: the same model untrained"
if [[ ! -f $work/untrained/finished ]]; then
    bash scripts/pretrain/train_video_chatgpt_7b.sh "${training[@]}" --output_dir "$work/untrained" \
        --num_train_epochs 0 >"$work/untrained.log" 2>&1 || { tail -n 20 "$work/untrained.log" >&2; exit 1; }
fi
answer "$work/untrained" "$work/before"

say "Training -> $run (log: $run/train.log)"
cat <<'TEXT'
A real run starts from LLaVA and trains the projector alone (--tune_mm_mlp_adapter True). The tiny Llama knows
nothing, so here all parameters train. Videos and phrasings of the test never enter.
TEXT
if [[ $(cat "$run/finished" 2>/dev/null) == "$steps" ]]; then
    echo "Done already: all $steps steps"
else
    rm -rf "$work/after" # what an earlier one answered
    bash scripts/pretrain/train_video_chatgpt_7b.sh "${training[@]}" --output_dir "$run" --max_steps "$steps"
fi

say "After"
answer "$run" "$work/after"

say "Results on held-out videos and phrasings (the same words as the true answer, or wrong)"
"$PYTHON" -m videomind.eval.compare --judged "untrained=$work/before/judged.metrics.json" \
    "trained=$work/after/judged.metrics.json" --out "$work/results.json"
video=$(find "$data/test_videos" -name '*.mp4' | sort | tail -n 1)
cat <<TEXT

Half of the questions are about the colour of a thing (one of 6), half about the floor (one of 5); who guesses is
right in 18 of 100.
Figures: $work/results.json      Answers: $work/after/answers.json
Checkpoint: $run      Curves: tensorboard --logdir $run/tensorboard

Next: ask the model about a video,
  ${ask[*]} \\
      --model-name $run --video_path $video --question "What colour is the object?"
then read docs/TRAIN.md to train on VideoInstruct-100K.
TEXT
say "Done"
