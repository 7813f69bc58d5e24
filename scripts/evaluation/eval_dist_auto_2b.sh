#!/usr/bin/env bash
# The 2B agent on a benchmark, one process with the model spread over all devices:
#   bash scripts/evaluation/eval_dist_auto_2b.sh DATASET [SPLIT] [ARGUMENTS...]
NPROC_PER_NODE=1 exec bash "$(dirname "$0")/eval_auto.sh" 2b "$@" --device all
