#!/usr/bin/env bash
# Launch GRPO on all GPUs of this machine, or on its CPU.   scripts/launch.sh <default recipe> [--key value ...]
# Recipe, model and data are checked first, in one process: a mistake is one line and exit status 2.
set -euo pipefail
here=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
recipe=$1
shift
python=python3
[ -x "$here/.venv/bin/python" ] && python=$here/.venv/bin/python
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}

given=false
for flag in "$@"; do
    case $flag in
        --config | --config=*) given=true ;;
        -h | --help) exec "$python" -m stonk_trainer.grpo --help ;;
    esac
done
$given || set -- --config "$recipe" "$@"

gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ' || true)
if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then  # set and empty, or -1: none
    gpus=$(tr ',' '\n' <<<"${CUDA_VISIBLE_DEVICES}" | grep -c '^[0-9A-Z]' || true)
fi
processes=$((gpus > 1 ? gpus : 1))
if [ "$gpus" -gt 1 ]; then
    devices=(--multi_gpu)
elif [ "$gpus" = 1 ]; then
    devices=()
else
    devices=(--cpu)
fi

"$python" -m stonk_trainer.grpo "$@" --dry_run
threads=$("$python" -c "import os; print(max(1, os.cpu_count() // $processes))")
exec "$python" -m accelerate.commands.launch --quiet --num_cpu_threads_per_process "$threads" \
    --num_machines 1 --num_processes "$processes" --mixed_precision no --dynamo_backend no "${devices[@]}" -m stonk_trainer.grpo "$@"
