# shellcheck shell=bash
# What every phase does first; sourced by the scripts of this folder, not run.
# RUN holds all files of one chain: each phase reads what the one before wrote there.

cd "${SLURM_SUBMIT_DIR:-$PWD}" || exit
RUN="${RUN:-runs/r1}"
export PATH="${VENV:-.venv}/bin:$PATH"
mkdir -p "$RUN"
echo "$(date '+%F %T') ${SLURM_JOB_NAME:-phase} (job ${SLURM_JOB_ID:-none}) on ${SLURM_JOB_NUM_NODES:-1} node(s), RUN=$RUN"

# TERM (preemption, or the time limit: see --signal) makes the trainer save and stop; the job then goes back into the
# queue and its next run goes on from that checkpoint.
STOPPED="" LAUNCHED=""
stop() {
    trap '' TERM # once is enough; Slurm sends another when it takes the job back
    STOPPED=1
    if [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then
        scancel --signal=TERM "$SLURM_JOB_ID"
    else
        pkill -TERM -P "$LAUNCHED" || kill -TERM "$LAUNCHED" || true # the workers, or the one process there is
    fi
}

# launch MODULE ARGUMENTS...: PROCESSES workers on each node (default: the node's GPUs, or 1), by `accelerate launch` when
# they are more than one.
launch() {
    local nodes="${SLURM_JOB_NUM_NODES:-1}" processes="${PROCESSES:-}" first address=127.0.0.1 flags status=0
    if [ -z "$processes" ]; then
        processes="$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l)"
        [ "$processes" -gt 0 ] || processes=1
    fi
    if [ "$nodes" -gt 1 ]; then
        first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
        address="$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')"
    fi
    flags="--config_file ${ACCELERATE_CONFIG:-recipes/accelerate/ddp.yaml} --num_machines $nodes"
    flags="$flags --num_processes $((nodes * processes)) --main_process_ip $address"
    flags="$flags --main_process_port $((20000 + ${SLURM_JOB_ID:-0} % 10000)) ${ACCELERATE_FLAGS:-}"
    trap stop TERM
    if [ "$nodes" -gt 1 ]; then
        srun --nodes "$nodes" --ntasks "$nodes" --ntasks-per-node 1 --kill-on-bad-exit=1 bash -c \
            "exec accelerate launch $flags --machine_rank \"\$SLURM_PROCID\" -m \"\$@\"" launch "$@" &
    elif [ "$processes" -gt 1 ]; then
        # shellcheck disable=SC2086
        accelerate launch $flags -m "$@" &
    else
        python -m "$@" &
    fi
    LAUNCHED=$!
    wait "$LAUNCHED" || status=$?
    if [ -n "$STOPPED" ]; then
        wait "$LAUNCHED" || true # the signal ended the first wait
        echo "stopped by a signal: back into the queue"
        if scontrol requeue "$SLURM_JOB_ID"; then
            # Slurm ends this script: if it ended by itself, its status could become the job's.
            for _ in $(seq 120); do sleep 1 || true; done
        fi
    fi
    return "$status"
}

# optional KEY VALUE: `--KEY VALUE` when VALUE is not empty, in the array FLAGS.
FLAGS=()
optional() { [ -z "$2" ] || FLAGS+=("--$1" "$2"); }
