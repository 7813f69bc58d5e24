#!/usr/bin/env bash
# Starts a training on all visible devices of one node or many; the same as `videomind launch train`, whose help
# lists the environment variables that say where and how (NPROC_PER_NODE, NNODES, GLOBAL_BATCH, DEEPSPEED, ...).
#
#   bash scripts/launch.sh TRAIN_ARGUMENTS...
#
# MODULE=videomind.video_chatgpt.train trains Video-ChatGPT instead.
set -euo pipefail
unset CDPATH # it would change what cd goes to and says
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
case ${MODULE:-videomind.train.train} in
*chatgpt*) command=train-chat ;;
*) command=train ;;
esac
exec "${PYTHON:-python}" -m videomind.cli launch "$command" "$@"
