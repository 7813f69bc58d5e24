#!/usr/bin/env bash
# Evaluates a grounder on QVHighlights: predicts val and test, writes both submission files, and the official
# metrics of val.
#
#   bash scripts/evaluation/eval_qvhighlights.sh MODEL [OUT] [ARGUMENTS...]
#
# OUT defaults to MODEL's own outputs_qvhighlights/, of a hub id to outputs_qvhighlights/ORG_NAME; arguments, which
# begin with a dash, go to videomind.agent.infer. SPLITS="valid" skips test, DATA_ROOT names another data root.
set -euo pipefail
unset CDPATH # it would change what cd goes to and says
if (($# < 1)) || [[ $1 == -* ]]; then
    echo "Usage: bash $0 MODEL [OUT] [ARGUMENTS...]" >&2
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
model=$1
case $model in \~/*) model=$HOME/${model#??} ;; esac # as a shell leaves it in quotes
shift
if (($# > 0)) && [[ $1 != -* ]]; then
    out=$1
    shift
elif [[ -d $model ]]; then
    out=$model/outputs_qvhighlights
else # a folder called ORG/NAME would hide the model on the hub
    out=outputs_qvhighlights/$(tr / _ <<<"$model")
fi
data_root=${DATA_ROOT:-data}
status=0
for split in ${SPLITS:-valid test}; do
    code=0
    bash "$here/infer.sh" --dataset qvhighlights --split "$split" --data_root "$data_root" \
        --model_gnd_path "$model" --pred_path "$out/$split" "$@" || code=$?
    ((code == 0 || code == 3)) || exit "$code" # 3: complete, but more than --max_bad_share of the samples failed
    ((code == 0)) || status=$code
    [[ ${NODE_RANK:-0} == 0 ]] || continue # of several nodes the first one scores
    metrics=(--max_bad_share 1)
    [[ $split == valid ]] && metrics+=(--qvhighlights_anno "$data_root/qvhighlights/highlight_val_release.jsonl")
    "${PYTHON:-python}" -m videomind.eval.evaluate "$out/$split" "${metrics[@]}"
done
exit "$status"
