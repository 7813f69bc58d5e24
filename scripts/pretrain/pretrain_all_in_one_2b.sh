#!/usr/bin/env bash
# Trains one 2B adapter that plays planner, grounder and verifier. Ours, not published. Extra arguments win.
exec bash "$(dirname "$0")/../launch.sh" --config pretrain_all_in_one --size 2b "$@"
