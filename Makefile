# `make demo` and `make test` need nothing but Python 3.11+ and a C++ compiler (for llama.cpp).
# On Linux, PyPI's torch brings several GB of CUDA; the CPU build is enough for everything here:
#   make demo PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
export PIP_DISABLE_PIP_VERSION_CHECK = 1
ifdef PIP_EXTRA_INDEX_URL
export PIP_EXTRA_INDEX_URL
endif

.PHONY: demo install test test-fast interop peers lint types format help-docs clean

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt 'setuptools>=77' wheel
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# The whole path on a small model: data, training, four formats, parity, benchmark.
demo: install
	$(BIN)/edge quickstart --output edge-demo --force

test: install
	$(BIN)/python -m pytest -q

test-fast: install
	$(BIN)/python -m pytest -q -m 'not slow'

# Other programs load our exports: Optimum in an environment of its own, transformers.js in Node.js.
# EDGE_PEERS_PYTHON names the Python of another environment with Optimum.
interop: install $(if $(EDGE_PEERS_PYTHON),,peers)
	EDGE_PEERS_PYTHON=$(or $(EDGE_PEERS_PYTHON),$(CURDIR)/$(PEERS)/bin/python) \
		$(BIN)/python -m pytest -q tests/interop

# Optimum needs transformers below 4.58, which this project's own environment must not have.
peers: $(PEERS)/.installed

$(PEERS)/.installed: setup.cfg
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet '.[optimum]'
	touch $@

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
	rm -rf $(VENV) $(PEERS) build *.egg-info edge-demo
