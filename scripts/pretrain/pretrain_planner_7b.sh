#!/usr/bin/env bash
# Trains the 7B planner. Extra arguments win.
exec bash "$(dirname "$0")/../launch.sh" --config pretrain_planner --size 7b "$@"
