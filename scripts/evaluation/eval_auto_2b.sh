#!/usr/bin/env bash
# The 2B agent on a benchmark, one process per device: bash scripts/evaluation/eval_auto_2b.sh DATASET [SPLIT]
exec bash "$(dirname "$0")/eval_auto.sh" 2b "$@"
