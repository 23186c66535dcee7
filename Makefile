# `make demo` and `make test` need nothing but Python 3.11+ and a C++ compiler (for llama.cpp).
# On Linux, PyPI's torch brings several GB of CUDA; the CPU build is enough for everything here:
#   make demo PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
ifdef PIP_EXTRA_INDEX_URL
export PIP_EXTRA_INDEX_URL
endif

.PHONY: bench-serve demo install test test-fast lint types format help-docs clean

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
	$(BIN)/python -m edge.bench.load $(ARTIFACT)

test: install
	$(BIN)/python -m pytest -q

test-fast: install
	$(BIN)/python -m pytest -q -m 'not slow'

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

# docs/commands.md is what `--help` prints; a test keeps the two alike.
help-docs: install
	$(BIN)/python -m edge.cli.help_docs > docs/commands.md.new
	mv docs/commands.md.new docs/commands.md

clean:
	rm -rf $(VENV) build *.egg-info edge-demo
