#!/usr/bin/env bash
# Stage II: adapt a Stage I model to the natural distribution, with KL to that model.
#   ./train_stage2.sh <stage1_model> [--key value ...]      example: ./train_stage2.sh runs/stage1/best_model --kl_coef 0.03
# Recipe: recipes/stocks/stage2.yaml, or the one given with --config. All GPUs of the machine are used.
case "${1:-}" in
    -h | --help) model=() ;;
    "" | -*) echo "error: which Stage I model? usage: ./train_stage2.sh <stage1_model> [--key value ...]" >&2; exit 2 ;;
    *) model=(--stage1_model "$1"); shift ;;
esac
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/launch.sh" stocks/stage2 "${model[@]}" "$@"
