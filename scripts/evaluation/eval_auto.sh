#!/usr/bin/env bash
# Runs the agent on a benchmark and prints its metrics; eval_auto_2b.sh, eval_auto_7b.sh and eval_dist_auto_*.sh end
# here.
#
#   bash scripts/evaluation/eval_auto.sh SIZE DATASET [SPLIT] [ARGUMENTS...]
#
# SPLIT defaults to the one that the data set is evaluated on; arguments go to videomind.agent.infer. Environment:
#   MODEL      folder or hub id of the agent (default model_zoo/VideoMind-SIZE, else yeliudev/VideoMind-SIZE)
#   ROLES      which of its roles run (default "gnd ver", as published; with --auto_planning or --auto_rephrasing
#              "gnd ver pla")
#   OUT        folder of the outputs (default outputs_SIZE/DATASET_SPLIT)
#   DATA_ROOT  folder of all data sets (default data)
set -euo pipefail
unset CDPATH # it would change what cd goes to and says
if (($# < 2)); then
    echo "Usage: bash $0 SIZE DATASET [SPLIT] [ARGUMENTS...]" >&2
    exit 2
fi
size=$1 dataset=$2
shift 2
split=()
if (($# > 0)) && [[ $1 != --* ]]; then
    split=(--split "$1")
    shift
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
published=VideoMind-$(tr '[:lower:]' '[:upper:]' <<<"$size")
model=${MODEL:-model_zoo/$published}
[[ -n ${MODEL:-} || -d $model ]] || model=yeliudev/$published
name=$(basename "${dataset%.*}")
out=${OUT:-outputs_$size/${name}_${split[1]:-default}}
case $out in -*) out=./$out ;; esac # no option
paths=(--pred_path "$out")
roles="gnd ver"
case " $* " in *" --auto_planning "* | *" --auto_rephrasing "*) roles="gnd ver pla" ;; esac
for role in ${ROLES:-$roles}; do
    paths+=("--model_${role}_path" "$model")
done
status=0
bash "$here/infer.sh" --dataset "$dataset" ${split[@]+"${split[@]}"} --data_root "${DATA_ROOT:-data}" \
    "${paths[@]}" "$@" || status=$?
((status == 0 || status == 3)) || exit "$status" # 3: complete, but more than --max_bad_share of the samples failed
[[ ${NODE_RANK:-0} == 0 ]] || exit "$status" # of several nodes the first one scores
metrics=(--max_bad_share 1)
[[ -n ${CONF_THR:-} ]] && metrics+=(--conf_thr "$CONF_THR")
"${PYTHON:-python}" -m videomind.eval.evaluate "$out" "${metrics[@]}"
exit "$status"
