#!/usr/bin/env bash
# Trains the 7B verifier on candidates of a 7B grounder (scripts/data/make_verifying.sh). Extra arguments win.
exec bash "$(dirname "$0")/../launch.sh" --config pretrain_verifier --size 7b "$@"
