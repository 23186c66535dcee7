# `make demo` and `make test` need nothing but Python 3.11+ and a C++ compiler (for llama.cpp).
# On Linux, PyPI's torch brings several GB of CUDA; the CPU build is enough for everything here:
#   make demo PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Baselines and interoperability checks that need transformers below 4.58, in a separate environment.
# EDGE_BASELINES_PYTHON names the Python of an existing one.
BASELINES_VENV ?= .venv-baselines
BASELINES := $(if $(EDGE_BASELINES_PYTHON),,baselines)
BASELINES_PYTHON := $(or $(EDGE_BASELINES_PYTHON),$(abspath $(BASELINES_VENV)/bin/python))
# LangChain and Haystack for the adapters in examples/, with edge's runtime and without torch.
# EDGE_ADAPTERS_PYTHON names the Python of an existing environment.
ADAPTERS_VENV ?= .venv-adapters
ADAPTERS := $(if $(EDGE_ADAPTERS_PYTHON),,adapters)
ADAPTERS_PYTHON := $(or $(EDGE_ADAPTERS_PYTHON),$(abspath $(ADAPTERS_VENV)/bin/python))
export PIP_DISABLE_PIP_VERSION_CHECK = 1
ifdef PIP_EXTRA_INDEX_URL
export PIP_EXTRA_INDEX_URL
endif

.PHONY: demo install test test-slow test-hostile test-gpu test-arm64 interop baselines adapters \
  bench-engines bench-batch bench-serve \
  bench-compile bench-quantization \
  lint typed types docs format help-docs package clean

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt 'setuptools>=77' wheel
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# The whole path on a small model: data, training, four formats, parity, benchmark.
demo: install
	$(BIN)/edge quickstart --output edge-demo --force

# Load-test `edge serve` with ARTIFACT=folder: ten minutes on an idle machine.
bench-serve: install
	$(BIN)/python -m edge.bench.serving.load_test $(ARTIFACT)

# Two processes at a time, then alone the tests that a busy machine would disturb.
WORKERS ?= 2

test: install
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && export EDGE_TESTS_FOLDER=$$folder && \
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  -m "not slow and not alone" && \
	$(BIN)/python -m pytest -q -m "not slow and alone"

# Endurance: dozens of killed trainings, a Ray cluster, emulated CPUs, the baselines' environment.
test-slow: install
	$(BIN)/python -m pytest -q -m slow

# Thousands of mutated artifacts and model folders for each format: two hours. Those that load are
# loaded under valgrind, too, where it is installed. Table and failures are
# in build/hostile. EDGE_HOSTILE_CASES repeats single cases by their names, EDGE_HOSTILE_COUNT=2000
# tries so many for each format.
test-hostile: install
	$(BIN)/python -m pytest -q -m slow tests/hostile

# Checks and figures of training on a CUDA GPU, in GPU_JSON: 6 minutes. GPU_PYTHON has torch and
# transformers for CUDA; edge need not be installed there.
GPU_PYTHON ?= $(PYTHON)
GPU_JSON ?= runs/gpu.json
GPU_DATA ?= ../shared/data/disfl_qa
GPU_MODEL ?= ../shared/models/disfl-tiny
GPU_TOKENIZER ?= ../shared/t5-tokenizer

test-gpu:
	$(GPU_PYTHON) tests/gpu/gpu_suite.py --json $(GPU_JSON) \
	  $(if $(wildcard $(GPU_DATA)),--data $(GPU_DATA)) \
	  $(if $(wildcard $(GPU_MODEL)),--model $(GPU_MODEL)) \
	  $(if $(wildcard $(GPU_TOKENIZER)),--tokenizer $(GPU_TOKENIZER))

# Answers on emulated Arm64 processors against this machine's. Linux x86-64 with Debian's apt; QEMU,
# a Python and the wheels are downloaded once, to EDGE_ARM64_CACHE (~/.cache/edge/arm64).
test-arm64: install
	$(BIN)/python -m pytest -q -rPs -m slow tests/arm64

# Load exports with Optimum, in the baselines' environment, and with transformers.js in Node.js.
# Run the adapters of examples/ with LangChain and Haystack.
interop: install $(BASELINES) $(ADAPTERS)
	EDGE_BASELINES_PYTHON=$(BASELINES_PYTHON) $(BIN)/python -m pytest -q tests/interop
	EDGE_ADAPTERS_PYTHON=$(ADAPTERS_PYTHON) $(BIN)/python -m pytest -q tests/test_examples.py -k adapters

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

# mypy and mkdocstrings resolve the mapped namespace package only from a regular install. build/lib
# would keep files that were moved since.
typed: install
	rm -rf build/typed build/lib
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/typed .

types: typed
	MYPYPATH=build/typed $(BIN)/mypy -p edge.runtime -p edge.train -p edge.export -p edge.bench -p edge.cli

# The docs site, in build/site. README.md is its first page; the API page is made from docstrings.
docs: typed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# docs/commands.md is the output of `--help`; a test compares them.
help-docs: install
	$(BIN)/python -m edge.cli.help_docs > docs/commands.md.new
	mv docs/commands.md.new docs/commands.md

# The sdist, and the wheel built from it, in dist/. A small environment: torch is not needed.
PACKAGE_VENV := build/package
DATA_FILES := bench/report/page.html bench/report/schema.json runtime/serve/playground.html \
  train/presets/cpu.yaml runtime/py.typed

# EDGE_REPOSITORY_URL, such as https://github.com/OWNER/NAME, makes the links of the description
# absolute and adds the project's URLs.
package:
	$(PYTHON) -m venv $(PACKAGE_VENV)
	$(PACKAGE_VENV)/bin/pip install --quiet -c constraints.txt build
	rm -rf dist
	$(PACKAGE_VENV)/bin/python -m build
	$(PYTHON) -m zipfile -l dist/*.whl > build/package/files.txt
	for file in $(DATA_FILES); do \
	  grep -q "^edge/$$file " build/package/files.txt || { echo "the wheel lacks $$file"; exit 1; }; \
	done
	$(PACKAGE_VENV)/bin/pip install --quiet -c constraints.txt twine
	$(PACKAGE_VENV)/bin/python -m twine check --strict dist/*

baselines: $(BASELINES_VENV)/.installed

$(BASELINES_VENV)/.installed: bench/engines/baselines/requirements.txt
	$(PYTHON) -m venv $(BASELINES_VENV)
	$(BASELINES_VENV)/bin/pip install --quiet -r bench/engines/baselines/requirements.txt
	touch $@

adapters: $(ADAPTERS_VENV)/.installed

$(ADAPTERS_VENV)/.installed: setup.cfg tests/adapters.txt
	$(PYTHON) -m venv $(ADAPTERS_VENV)
	$(ADAPTERS_VENV)/bin/pip install --quiet -r tests/adapters.txt -e '.[onnx]'
	touch $@

# The tables of docs/engines.md and the figure of README.md. Takes an hour on an idle machine.
SHAPES ?= flan-t5-small flan-t5-base
SPECULATION_MODEL ?= ../shared/models/disfl-tiny
SPECULATION_DATA ?= ../shared/data/disfl_qa/dev.jsonl

bench-engines: export EDGE_BASELINES_PYTHON := $(BASELINES_PYTHON)
bench-engines: install $(BASELINES)
	$(BIN)/edge bench-engines $(SHAPES) --quantize int8 --quantize int4 --baselines --scaling \
	  --json runs/engines.json || [ $$? -eq 3 ]
	$(BIN)/edge report runs/engines.json --plot docs/images/engines.svg
	test -d $(SPECULATION_MODEL) || { echo "no $(SPECULATION_MODEL): speculation skipped"; exit 0; }; \
	$(BIN)/edge export $(SPECULATION_MODEL) --format onnx --force --output build/speculation && \
	$(BIN)/edge bench-speculation build/speculation --data $(SPECULATION_DATA) --threads 2 \
	  --replay $(lastword $(SHAPES)) --json runs/speculation.json

# Answers per second of all engines in batches, and the time of a decoder step. Half an hour per shape
# on an idle machine.
BATCHES ?= 1,4,8,16,64

bench-batch: export EDGE_BASELINES_PYTHON := $(BASELINES_PYTHON)
bench-batch: install $(BASELINES)
	$(BIN)/edge bench-engines $(SHAPES) --format onnx \
	  --quantize int8 --quantize int4 --quantize int8_row --baselines --runs 30 \
	  --batch $(BATCHES) --json runs/batches.json || [ $$? -eq 3 ]

# Compare the search with measuring every combination, on an idle machine: the two winners side by
# side, then the seconds of both searches.
COMPILE_DATA ?= ../shared/data/disfl_qa
COMPILED := build/compiled

# Quantized artifacts of models with activation outliers, with and without conditioning. About an
# hour on two quiet cores; exits with 3 if a limit is missed.
bench-quantization: install
	$(BIN)/python -m edge.bench.quantization $(SPECULATION_MODEL) $(COMPILE_DATA) \
	  --json runs/quantization.json

bench-compile: install
	rm -rf $(COMPILED)
	$(BIN)/edge compile $(SPECULATION_MODEL) --data $(COMPILE_DATA) --output $(COMPILED)/searched
	$(BIN)/edge compile $(SPECULATION_MODEL) --data $(COMPILE_DATA) --output $(COMPILED)/exhaustive \
	  --exhaustive
	$(BIN)/edge bench $(COMPILED) --data $(COMPILE_DATA) --runs 1000
	grep -HE '"(cpu_)?seconds"' $(COMPILED)/*.report.json

clean:
	rm -rf $(VENV) $(BASELINES_VENV) build dist *.egg-info edge-demo
