#!/usr/bin/env bash
# Runs inference on all visible devices, one process each; the same as `videomind launch infer`.
#
#   bash scripts/evaluation/infer.sh ARGUMENTS...      of videomind infer
#
# NPROC_PER_NODE, NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT say where, as in training. A rerun continues where
# the last one ended.
set -euo pipefail
unset CDPATH # it would change what cd goes to and says
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m videomind.cli launch infer "$@"
