#!/usr/bin/env bash
# Evaluates a grounder on QVHighlights: predicts val and test, writes both submission files, and the official
# metrics of val.
#
#   bash scripts/evaluation/eval_qvhighlights.sh MODEL [OUT] [ARGUMENTS...]
#
# OUT defaults to MODEL's own outputs_qvhighlights/, of a hub id to outputs_qvhighlights/ORG_NAME; arguments, which
# begin with a dash, go to videomind.agent.infer. SPLITS="valid" skips test, DATA_ROOT names another data root.
set -euo pipefail
if (($# < 1)) || [[ $1 == -* ]]; then
    echo "Usage: bash $0 MODEL [OUT] [ARGUMENTS...]" >&2
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
model=$1
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
for split in ${SPLITS:-valid test}; do
    bash "$here/infer.sh" --dataset qvhighlights --split "$split" --data_root "$data_root" \
        --model_gnd_path "$model" --pred_path "$out/$split" "$@"
    official=()
    [[ $split == valid ]] && official=(--qvhighlights_anno "$data_root/qvhighlights/highlight_val_release.jsonl")
    "${PYTHON:-python}" -m videomind.eval.evaluate "$out/$split" ${official[@]+"${official[@]}"}
done
