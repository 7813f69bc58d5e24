# shellcheck shell=bash
# shellcheck disable=SC2154 # whoever sources this sets work
# Sourced by both quickstarts from the repository's root: messages with their time, the environment, the devices.
# Needs: work, the folder that everything goes to. Sets: DEVICE_* (see videomind.device), NPROC_PER_NODE,
# MASTER_PORT; defines say and share_batch.
start=$SECONDS
say() { printf '\n[%4d s] %s\n' $((SECONDS - start)) "$*"; }

say "Environment"
# shellcheck source=scripts/env.sh
source scripts/env.sh
mkdir -p "$work"
DEVICE_FACTS=$("$PYTHON" -m videomind.device)
export DEVICE_FACTS # whoever starts from here need not look again
eval "$DEVICE_FACTS"
export NPROC_PER_NODE=$((DEVICE_COUNT > 0 ? DEVICE_COUNT : 2))
export MASTER_PORT=${MASTER_PORT:-$((20000 + $$ % 20000))}
if [[ $DEVICE_KIND == cpu ]]; then
    export DS_ACCELERATOR=cpu OMP_NUM_THREADS=1
fi

share_batch() { # SAMPLES: of a step, over all processes; a few more where they do not divide it
    export BATCH_PER_DEVICE=$((($1 + NPROC_PER_NODE - 1) / NPROC_PER_NODE))
    export GLOBAL_BATCH=$((NPROC_PER_NODE * BATCH_PER_DEVICE))
}
