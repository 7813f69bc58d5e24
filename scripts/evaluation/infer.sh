#!/usr/bin/env bash
# Runs inference on all visible devices, one process each; the evaluation scripts end here.
#
#   bash scripts/evaluation/infer.sh ARGUMENTS...      of videomind.eval.infer
#
# NPROC_PER_NODE overrides the number of processes. A rerun continues where the last one ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# shellcheck source=scripts/devices.sh
source scripts/devices.sh

if ((NPROC_PER_NODE == 1)); then
    exec "$PYTHON" -m videomind.eval.infer "$@"
fi
exec "$PYTHON" -m videomind.launch --nproc_per_node "$NPROC_PER_NODE" \
    --master_addr 127.0.0.1 --master_port "${MASTER_PORT:-29501}" \
    -m videomind.processes videomind.eval.infer "$@"
