#!/usr/bin/env bash
# Starts a training on all visible devices of one node or many; every training script ends here.
#
#   bash scripts/launch.sh TRAIN_ARGUMENTS...
#
# Environment (all optional):
#   CUDA_VISIBLE_DEVICES, ASCEND_RT_VISIBLE_DEVICES   which devices; all of them otherwise
#   NPROC_PER_NODE    processes per node (default: one per visible device, 1 on a CPU)
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT       several nodes (default: this one alone)
#   GLOBAL_BATCH      samples per optimizer step over all devices (default 32)
#   BATCH_PER_DEVICE  samples per forward pass (default 1)
#   MODULE            what trains (default videomind.train.train)
#   DEEPSPEED         zero2 (default on Linux), zero2_offload, zero3, zero3_offload, a JSON file, or none
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=scripts/devices.sh
source scripts/devices.sh
nnodes=${NNODES:-1}
global_batch=${GLOBAL_BATCH:-32}
batch=${BATCH_PER_DEVICE:-1}
per_step=$((nnodes * NPROC_PER_NODE * batch))
if ((global_batch % per_step)); then
    echo "A global batch of $global_batch (GLOBAL_BATCH) cannot be shared by $nnodes node(s)" \
        "x $NPROC_PER_NODE process(es) x $batch sample(s) (BATCH_PER_DEVICE): $per_step must divide it." >&2
    exit 2
fi

arguments=(
    --per_device_train_batch_size "$batch"
    --gradient_accumulation_steps $((global_batch / per_step))
)
# DeepSpeed spares the memory of accelerators that only Linux has, and requirements.txt holds it only there.
case $(uname -s) in
Linux) deepspeed=${DEEPSPEED:-zero2} ;;
*) deepspeed=${DEEPSPEED:-none} ;;
esac
if [[ $deepspeed != none ]]; then
    [[ -f $deepspeed ]] || deepspeed=scripts/deepspeed/$deepspeed.json
    if [[ ! -f $deepspeed ]]; then
        echo "No DeepSpeed configuration $deepspeed (DEEPSPEED). Allowed: none, a file, or one of" \
            "$(basename -s .json scripts/deepspeed/*.json | paste -s -d ' ' -)." >&2
        exit 2
    fi
    if [[ $DEEPSPEED_INSTALLED == no ]]; then
        echo "DeepSpeed is not installed here. pip install -e '.[deepspeed]' adds it (on Linux);" \
            "DEEPSPEED=none trains without." >&2
        exit 2
    fi
    if [[ $DEVICE_KIND == cpu ]] && ! command -v c++ >/dev/null && ! command -v g++ >/dev/null; then
        echo "DeepSpeed needs a C++ compiler on a CPU, and there is none (Debian, Ubuntu: apt-get install g++);" \
            "DEEPSPEED=none trains without." >&2
        exit 2
    fi
    arguments+=(--deepspeed "$deepspeed")
fi
[[ $DEVICE_KIND == cpu ]] && export DS_ACCELERATOR=cpu

exec "$PYTHON" -m videomind.launch \
    --nnodes "$nnodes" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$NPROC_PER_NODE" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${MASTER_PORT:-29500}" \
    -m videomind.processes "${MODULE:-videomind.train.train}" "${arguments[@]}" "$@"
