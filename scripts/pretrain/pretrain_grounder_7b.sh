#!/usr/bin/env bash
# Trains the 7B grounder. Extra arguments win: bash scripts/pretrain/pretrain_grounder_7b.sh --learning_rate 5e-5
exec bash "$(dirname "$0")/../launch.sh" --config pretrain_grounder --size 7b "$@"
