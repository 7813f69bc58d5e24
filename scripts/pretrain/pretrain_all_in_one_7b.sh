#!/usr/bin/env bash
# Trains one 7B adapter that plays planner, grounder and verifier. Ours, not published. Extra arguments win.
exec bash "$(dirname "$0")/../launch.sh" --config pretrain_all_in_one --size 7b "$@"
