# shellcheck shell=bash
# What every phase does first; sourced by the scripts of this folder, not run.
# RUN holds all files of one chain: each phase reads what the one before wrote there.

cd "${SLURM_SUBMIT_DIR:-$PWD}" || exit
RUN="${RUN:-runs/r1}"
export PATH="${VENV:-.venv}/bin:$PATH"
mkdir -p "$RUN"
echo "$(date '+%F %T') ${SLURM_JOB_NAME:-phase} (job ${SLURM_JOB_ID:-none}) on ${SLURM_JOB_NUM_NODES:-1} node(s), RUN=$RUN"

# launch MODULE ARGUMENTS...: one `accelerate launch` per node; PROCESSES workers each (default: the node's GPUs, or 1).
launch() {
    local nodes="${SLURM_JOB_NUM_NODES:-1}" processes="${PROCESSES:-}" first address=127.0.0.1 flags
    if [ -z "$processes" ]; then
        processes="$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l)"
        [ "$processes" -gt 0 ] || processes=1
    fi
    if [ "$nodes" -gt 1 ]; then
        first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
        address="$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')"
    fi
    flags="--num_machines $nodes --num_processes $((nodes * processes)) --mixed_precision no --dynamo_backend no"
    flags="$flags --main_process_ip $address --main_process_port $((20000 + ${SLURM_JOB_ID:-0} % 10000))"
    [ $((nodes * processes)) -eq 1 ] || flags="$flags --multi_gpu" # also the way to several processes without a GPU
    flags="$flags ${ACCELERATE_FLAGS:-}"
    if [ "$nodes" -gt 1 ]; then
        srun --nodes "$nodes" --ntasks "$nodes" --ntasks-per-node 1 --kill-on-bad-exit=1 bash -c \
            "exec accelerate launch $flags --machine_rank \"\$SLURM_PROCID\" -m \"\$@\"" launch "$@"
    else
        # shellcheck disable=SC2086
        accelerate launch $flags -m "$@"
    fi
}

# optional KEY VALUE: `--KEY VALUE` when VALUE is not empty, in the array FLAGS.
FLAGS=()
optional() { [ -z "$2" ] || FLAGS+=("--$1" "$2"); }
