# shellcheck shell=bash
# shellcheck disable=SC2154 # whoever sources this sets work, data, warm, run and budget
# Sourced by scripts/quickstart.sh after the grounder: the other roles, and the chain with and without each of them.
# Uses its variables (work, data, warm, run, budget) and functions (say, train).

say "Candidates of the grounder on its training videos -> $work/verifying.json"
if [[ ! -s $work/verifying.json ]]; then
    DATA_ROOT=$data bash scripts/data/make_verifying.sh "$run" charades_sta "$work/verifying.json" \
        --max_new_tokens 16 "${budget[@]}"
fi
train verifier "${QUICKSTART_VERIFIER_STEPS:-200}" --datasets "$work/verifying.json"

say "How questions are to be answered -> $work/planning.jsonl"
"$PYTHON" -m videomind.dataset.commands make-planning nextqa charades_sta:0.5 --data_root "$data" \
    --out "$work/planning.jsonl"
train planner "${QUICKSTART_PLANNER_STEPS:-120}" --datasets "$work/planning.jsonl"

agent=$work/agent
[[ -d $agent ]] || "$PYTHON" -m videomind.cli combine "$agent" "grounder=$run" "verifier=$work/verifier" \
    "planner=$work/planner"

answer() { # NAME ARGUMENTS...: answers the test questions into $work/chain_NAME
    local out=$work/chain_$1
    say "Questions, $1"
    if [[ -f $out/output.jsonl ]]; then
        echo "Done already: $out"
        return
    fi
    shift
    bash scripts/evaluation/infer.sh --dataset nextgqa --split test --data_root "$data" --base_model_path "$warm" \
        --pred_path "$out" --max_new_tokens 80 "${budget[@]}" "$@"
}
answer whole_video
answer grounder --model_gnd_path "$agent"
answer verifier --model_gnd_path "$agent" --model_ver_path "$agent"
answer planner --model_gnd_path "$agent" --model_ver_path "$agent" --model_pla_path "$agent" --auto_planning

say "Questions about held-out videos"
"$PYTHON" -m videomind.eval.compare --questions --out "$work/answers.json" \
    "whole video=$work/chain_whole_video" "grounder=$work/chain_grounder" \
    "+ verifier=$work/chain_verifier" "+ planner=$work/chain_planner"
video=$(find "$data/nextqa/videos" -name '*.mp4' | sort | tail -n 1)
cat <<TEXT

TC: what the floor is like during an event. DO: whether something is seen at all, which needs no moment; so the
planner answers it at once. Acc@GQA counts a right answer only with a moment (IoP >= 0.5).
Agent: $agent      Figures: $work/answers.json
Ask it about a video,
  $PYTHON -m videomind.eval.infer --model_gnd_path $agent --pred_path $work/try_agent ${budget[*]} \\
      --video $video --question "what is the floor while the red ball spins?" \\
      --options white black orange pink brown
TEXT
