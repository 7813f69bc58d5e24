#!/usr/bin/env bash
# Trains a 7B answerer. Ours, not published: the published agent answers with the base model. Extra arguments win.
exec bash "$(dirname "$0")/../launch.sh" --config pretrain_answerer --size 7b "$@"
