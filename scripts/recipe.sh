#!/usr/bin/env bash
# Trains with what all published recipes share (recipes/common.yaml); NAME is the folder below work_dirs/.
#
#   bash scripts/recipe.sh NAME ARGUMENTS...
#
# Arguments given later win, so everything can be overridden on the command line.
set -euo pipefail
name=$1
shift
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" --config common --output_dir "work_dirs/$name" "$@"
