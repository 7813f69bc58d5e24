#!/usr/bin/env bash
# The main job on an embedded default: renders videos with known moments and questions, makes a tiny model, trains
# grounder, verifier and planner with the same code and scripts as a real run, and evaluates the chain of them.
#
#   bash scripts/quickstart.sh [--fresh] [--grounder-only]
#   bash scripts/quickstart.sh video_chatgpt [--fresh]      the other model family, see scripts/quickstart/
#
#   --fresh           starts over; otherwise finished steps are skipped
#   --grounder-only   the short run: the grounder before and after its training
#
# Needs Python 3.11 to 3.13 and git; uses a GPU or NPU if there is one. Everything goes to work_dirs/quickstart,
# that of the short run to work_dirs/quickstart_grounder (QUICKSTART_DIR overrides it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
usage="Usage: bash scripts/quickstart.sh [video_chatgpt] [--fresh] [--grounder-only]"
if [[ ${1:-} == video_chatgpt ]]; then
    shift
    exec bash scripts/quickstart/video_chatgpt.sh "$@"
fi
fresh='' whole=yes
for argument in "$@"; do
    case $argument in
    --fresh) fresh=yes ;;
    --grounder-only) whole='' ;;
    *)
        echo "Unknown argument $argument. $usage" >&2
        exit 2
        ;;
    esac
done
name=quickstart
[[ $whole ]] || name+=_grounder
work=${QUICKSTART_DIR:-work_dirs/$name}
[[ $fresh ]] && rm -rf "$work"

# shellcheck source=scripts/quickstart/prelude.sh
source scripts/quickstart/prelude.sh

# Sizes for this model on two CPU cores. Everything else is what the scripts in scripts/ do for a real run.
data=$work/data base=$work/base warm=$work/base_warm run=$work/grounder
budget=(--min_tokens_per_frame 4 --max_tokens_per_frame 6)
training=(
    --model_name_or_path "$warm" --data_root "$data"
    --lora_r 32 --lora_alpha 32 --lora_dropout 0
    --learning_rate 2e-3 --head_lr 1e-3 --warmup_steps 0.05 --loss_sal_weight 1
    --gradient_checkpointing False --dataloader_num_workers 0
    --save_steps 50 --logging_steps 10 "${budget[@]}"
)
grounding=(--role grounder --datasets "charades_sta,qvhighlights")
steps=${QUICKSTART_STEPS:-260}

share_batch 8
export DEEPSPEED=zero2
if [[ $DEVICE_KIND == cpu ]]; then
    if [[ $DEEPSPEED_INSTALLED == no ]]; then
        echo "No DeepSpeed here: training with plain DDP instead."
        DEEPSPEED=none
    elif ! command -v c++ >/dev/null && ! command -v g++ >/dev/null; then
        echo "No C++ compiler here, which DeepSpeed needs on a CPU: training with plain DDP instead."
        DEEPSPEED=none
    elif [[ ! -f $run/finished ]]; then
        # DeepSpeed compiles its CPU communication once; let it do so while the videos are rendered.
        "$PYTHON" -c "from deepspeed.comm.torch import build_shm_op; build_shm_op()" >"$work/compile.log" 2>&1 &
        compiling=$!
    fi
fi

say "Rendering videos with known moments -> $data"
questions=()
[[ $whole ]] && questions=(--num_question_train 80 --num_question_test 20)
"$PYTHON" -m videomind.synthetic data "$data" --num_train 200 --num_valid 40 --num_test 40 \
    ${questions[@]+"${questions[@]}"}

say "Tiny Qwen2-VL with random weights -> $base"
"$PYTHON" -m videomind.synthetic base "$base"

say "Warming the tiny base up -> $warm"
cat <<'TEXT'
A real run starts from a pretrained Qwen2-VL. The tiny one knows nothing, so all its parameters first learn
to see colours and read queries (and to answer questions, for the chain), with the language loss alone, on the
training videos and phrasings. Test videos, phrasings and answers never enter.
TEXT
"$PYTHON" -m videomind.synthetic warmup "$base" "$data" "$warm"

evaluate() { # MODEL OUT: both data sets, videos and phrasings that training never saw
    if [[ -f $2/done ]]; then
        echo "Done already: $2"
        return
    fi
    mkdir -p "$2"
    local common=(--data_root "$data" --max_new_tokens 16 "${budget[@]}")
    bash scripts/evaluation/infer.sh --dataset charades_sta --model_gnd_path "$1" \
        --pred_path "$2/charades_sta" "${common[@]}"
    PYTHON=$PYTHON SPLITS=valid DATA_ROOT=$data bash scripts/evaluation/eval_qvhighlights.sh "$1" \
        "$2/qvhighlights" "${common[@]}" >"$2/qvhighlights_official.txt"
    touch "$2/done"
}

say "Before: the same model untrained"
if [[ ! -f $work/untrained/finished ]]; then
    bash scripts/recipe.sh quickstart "${training[@]}" "${grounding[@]}" --output_dir "$work/untrained" \
        --num_train_epochs 0 >"$work/untrained.log" 2>&1 || { tail -n 20 "$work/untrained.log" >&2; exit 1; }
fi
evaluate "$work/untrained" "$work/before"

train() { # ROLE STEPS ARGUMENTS...: into $work/ROLE
    local role=$1 steps=$2 out=$work/$1
    shift 2
    say "Training the $role -> $out (log: $out/train.log)"
    if [[ $(cat "$out/finished" 2>/dev/null) == "$steps" ]]; then
        echo "Done already: all $steps steps"
        return
    fi
    [[ -n ${compiling:-} ]] && wait "$compiling" && compiling=''
    rm -rf "$work"/chain_* "$work/agent" # what an earlier one found
    [[ $role == grounder ]] && rm -rf "$work/after" "$work"/verifying*
    bash scripts/recipe.sh quickstart "${training[@]}" --role "$role" "$@" --output_dir "$out" --max_steps "$steps"
}

train grounder "$steps" "${grounding[@]}"

say "After"
evaluate "$run" "$work/after"

say "Results on held-out videos and phrasings"
"$PYTHON" -m videomind.eval.compare "untrained=$work/before" "trained=$work/after" --out "$work/results.json"
"$PYTHON" -m videomind.eval.picture "$work/picture.png" "untrained=$work/before" "trained=$work/after"
video=$(find "$data/charades_sta" -name '*.mp4' | sort | tail -n 1)
cat <<TEXT

Picture: $work/picture.png      Figures: $work/results.json
Checkpoint: $run      Curves: tensorboard --logdir $run/tensorboard
QVHighlights' official metrics: $work/after/qvhighlights/valid/metrics.log

Next: ask the model about a video,
  $PYTHON -m videomind.eval.infer --model_gnd_path $run --pred_path $work/try ${budget[*]} \\
      --video $video --query "a red ball"
then read docs/TRAIN.md to train on real data.
TEXT
if [[ $whole ]]; then
    # shellcheck source=scripts/quickstart/chain.sh
    source scripts/quickstart/chain.sh
fi
say "Done"
