# shellcheck shell=bash
# Sourced by launch.sh and evaluation/infer.sh from the repository's root: what runs are to use of this machine.
#
# Sets: PYTHON, what videomind.device prints, NPROC_PER_NODE, OMP_NUM_THREADS, PYTHONPATH.
PYTHON=${PYTHON:-python}
facts=${DEVICE_FACTS:-$("$PYTHON" -m videomind.device)} # a script that starts several runs looks once
eval "$facts"
NPROC_PER_NODE=${NPROC_PER_NODE:-$((DEVICE_COUNT > 0 ? DEVICE_COUNT : 1))}
threads=$((CPU_CORES / NPROC_PER_NODE)) # a process's; more of them only wait for each other
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
