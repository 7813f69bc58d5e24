#!/usr/bin/env bash
# Makes training data for a verifier: runs a trained grounder over a training split and writes its candidates.
#
#   bash scripts/data/make_verifying.sh GROUNDER DATASET OUT.json [ARGUMENTS...]
#
# OUT for a registered name is data/verifying/verifying_{qvhighlights,didemo,tacos}_{2b,7b}.json; any other file can
# be given to --datasets as it is. Arguments go to videomind.agent.infer; SPLIT (default train) and DATA_ROOT
# name another split and data root. A rerun continues.
set -euo pipefail
unset CDPATH # it would change what cd goes to and says
if (($# < 3)); then
    echo "Usage: bash $0 GROUNDER DATASET OUT.json [ARGUMENTS...]" >&2
    exit 2
fi
grounder=$1 dataset=$2 out=$3
shift 3
case $out in -*) out=./$out ;; esac # no option
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
bash "$here/../evaluation/infer.sh" --dataset "$dataset" --split "${SPLIT:-train}" --data_root "${DATA_ROOT:-data}" \
    --model_gnd_path "$grounder" --pred_path "${out%.json}_predictions" "$@"
[[ ${NODE_RANK:-0} == 0 ]] || exit 0 # of several nodes the first one writes
exec "${PYTHON:-python}" -m videomind.dataset.commands make-verifying "${out%.json}_predictions/output.jsonl" "$out"
