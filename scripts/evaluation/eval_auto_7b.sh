#!/usr/bin/env bash
# The 7B agent on a benchmark, one process per device: bash scripts/evaluation/eval_auto_7b.sh DATASET [SPLIT]
exec bash "$(dirname "$0")/eval_auto.sh" 7b "$@"
