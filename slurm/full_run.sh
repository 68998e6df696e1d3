#!/bin/bash
# Submit all phases as a chain; each starts when the one before has succeeded, and is cancelled when it has failed.
#   RUN=runs/r1 slurm/full_run.sh --partition gpu --gpus-per-node 1      flags go to every sbatch
#   slurm/full_run.sh --dry-run                                          print the chain, submit nothing
#   SFT_RECIPE=dolci_mid DOLCI_STOP=800000 slurm/full_run.sh             settings of the phases: see the top of each
set -euo pipefail
cd "$(dirname "$0")/.."

DRY_RUN=
FLAGS=()
for flag in "$@"; do
    case "$flag" in
        --dry-run) DRY_RUN=1 ;;
        -h | --help) sed -n '2,5s/^# \?//p' "$0"; exit 0 ;;
        *) FLAGS+=("$flag") ;;
    esac
done
[ -n "$DRY_RUN" ] || command -v sbatch >/dev/null || { echo "error: sbatch not found: run this on a Slurm login node" >&2; exit 2; }

export RUN="${RUN:-runs/r1}"
before=
for phase in sft grpo rs_generate rs_sft eval; do
    command=(sbatch --parsable --export=ALL)
    [ -z "$before" ] || command+=("--dependency=afterok:$before" --kill-on-invalid-dep=yes)
    command+=("${FLAGS[@]}" "slurm/$phase.sbatch")
    if [ -n "$DRY_RUN" ]; then
        echo "${command[*]}"
        before="<job of $phase>"
    else
        before="$("${command[@]}")"
        before="${before%%;*}"
        echo "$phase: job $before"
    fi
done
