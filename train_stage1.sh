#!/usr/bin/env bash
# Stage I: GRPO on balanced data.   ./train_stage1.sh [--key value ...]      example: ./train_stage1.sh --lr 2e-5
# Recipe: recipes/stocks/stage1.yaml, or the one given with --config. All GPUs of the machine are used.
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/launch.sh" stocks/stage1 "$@"
