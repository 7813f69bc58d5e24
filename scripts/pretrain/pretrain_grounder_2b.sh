#!/usr/bin/env bash
# Trains the 2B grounder. Extra arguments win: bash scripts/pretrain/pretrain_grounder_2b.sh --learning_rate 5e-5
exec bash "$(dirname "$0")/../launch.sh" --config pretrain_grounder --size 2b "$@"
