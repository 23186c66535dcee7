# `make demo` and `make test` need nothing but Python 3.11+ and a C++ compiler (for llama.cpp).
# On Linux, PyPI's torch brings several GB of CUDA; the CPU build is enough for everything here:
#   make demo PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Programs that we compare with, or that load our exports, and that need transformers below 4.58.
# EDGE_BASELINES_PYTHON names the Python of another environment that has them.
BASELINES_VENV ?= .venv-baselines
BASELINES := $(if $(EDGE_BASELINES_PYTHON),,baselines)
BASELINES_PYTHON := $(or $(EDGE_BASELINES_PYTHON),$(abspath $(BASELINES_VENV)/bin/python))
export PIP_DISABLE_PIP_VERSION_CHECK = 1
ifdef PIP_EXTRA_INDEX_URL
export PIP_EXTRA_INDEX_URL
endif

.PHONY: demo install test test-slow interop baselines bench-engines bench-serve lint types format \
  help-docs bench-compile clean

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt 'setuptools>=77' wheel
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# The whole path on a small model: data, training, four formats, parity, benchmark.
demo: install
	$(BIN)/edge quickstart --output edge-demo --force

# What `edge serve` bears; ARTIFACT=folder. Ten minutes on a quiet machine.
bench-serve: install
	$(BIN)/python -m edge.bench.serving.load_test $(ARTIFACT)

# Two processes at a time; then, alone, what a busy machine would disturb.
WORKERS ?= 2

test: install
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "not slow and not alone"
	$(BIN)/python -m pytest -q -m "not slow and alone"

# Endurance: dozens of killed trainings, a Ray cluster, emulated processors, the baselines' environment.
test-slow: install
	$(BIN)/python -m pytest -q -m slow

# Other programs load our exports: Optimum in an environment of its own, transformers.js in Node.js.
interop: install $(BASELINES)
	EDGE_BASELINES_PYTHON=$(BASELINES_PYTHON) $(BIN)/python -m pytest -q tests/interop

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy resolves the mapped namespace package only from a regular install.
types: install
	rm -rf build/typed
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/typed .
	MYPYPATH=build/typed $(BIN)/mypy -p edge.runtime -p edge.train -p edge.export -p edge.bench -p edge.cli

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# docs/commands.md is the output of `--help`; a test compares them.
help-docs: install
	$(BIN)/python -m edge.cli.help_docs > docs/commands.md.new
	mv docs/commands.md.new docs/commands.md

baselines: $(BASELINES_VENV)/.installed

$(BASELINES_VENV)/.installed: bench/engines/baselines/requirements.txt
	$(PYTHON) -m venv $(BASELINES_VENV)
	$(BASELINES_VENV)/bin/pip install --quiet -r bench/engines/baselines/requirements.txt
	touch $@

# docs/engines.md explains the tables. Takes long; nothing else should run.
SHAPES ?= flan-t5-small flan-t5-base
SPECULATION_MODEL ?= ../shared/models/disfl-tiny
SPECULATION_DATA ?= ../shared/data/disfl_qa/dev.jsonl

bench-engines: export EDGE_BASELINES_PYTHON := $(BASELINES_PYTHON)
bench-engines: install $(BASELINES)
	for shape in $(SHAPES); do \
	  $(BIN)/edge bench-engines $$shape --quantize int8 --quantize int4 --baselines --scaling \
	    --json runs/engines-$$shape.json || [ $$? -eq 3 ] || exit 1; \
	done
	test -d $(SPECULATION_MODEL) || { echo "no $(SPECULATION_MODEL): speculation left out"; exit 0; }; \
	$(BIN)/edge export $(SPECULATION_MODEL) --format onnx --force --output build/speculation && \
	$(BIN)/edge bench-speculation build/speculation --data $(SPECULATION_DATA) --threads 2 \
	  --replay $(lastword $(SHAPES)) --json runs/speculation.json

# Does the search find what trying everything finds, and in a quarter of the time? Nothing else
# should run. The last lines are the two artifacts side by side, and the two searches' seconds.
COMPILE_DATA ?= ../shared/data/disfl_qa
COMPILED := build/compiled

bench-compile: install
	rm -rf $(COMPILED)
	$(BIN)/edge compile $(SPECULATION_MODEL) --data $(COMPILE_DATA) --output $(COMPILED)/searched
	$(BIN)/edge compile $(SPECULATION_MODEL) --data $(COMPILE_DATA) --output $(COMPILED)/exhaustive \
	  --exhaustive
	$(BIN)/edge bench $(COMPILED) --data $(COMPILE_DATA) --runs 1000
	grep -HE '"(cpu_)?seconds"' $(COMPILED)/*.report.json

clean:
	rm -rf $(VENV) $(BASELINES_VENV) build *.egg-info edge-demo
