#!/usr/bin/env bash
# Runs inference on all visible devices, one process each; the evaluation scripts end here.
#
#   bash scripts/evaluation/infer.sh ARGUMENTS...      of videomind.agent.infer
#
# NPROC_PER_NODE overrides the number of processes. A rerun continues where the last one ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PYTHON=${PYTHON:-python}
facts=${DEVICE_FACTS:-$("$PYTHON" -m videomind.device)} # a script that starts several runs looks once
eval "$facts"
nproc=${NPROC_PER_NODE:-$((DEVICE_COUNT > 0 ? DEVICE_COUNT : 1))}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(nproc) / nproc > 0 ? $(nproc) / nproc : 1))}

if ((nproc == 1)); then
    exec "$PYTHON" -m videomind.agent.infer "$@"
fi
exec "$PYTHON" -m videomind.runs.launch --nproc_per_node "$nproc" \
    --master_addr 127.0.0.1 --master_port "${MASTER_PORT:-29501}" \
    -m videomind.runs.processes videomind.agent.infer "$@"
