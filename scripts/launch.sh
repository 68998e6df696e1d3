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

"$python" -m stonk_trainer.grpo "$@" --dry_run
if [ "$processes" = 1 ]; then  # its exit status is ours: 143 after SIGTERM, with a checkpoint to go on from
    exec "$python" -m stonk_trainer.grpo "$@"
fi
threads=$("$python" -c "import os; print(max(1, os.cpu_count() // $processes))")
exec "$python" -m accelerate.commands.launch --config_file "$here/recipes/accelerate/ddp.yaml" --quiet \
    --num_processes "$processes" --num_cpu_threads_per_process "$threads" -m stonk_trainer.grpo "$@"
