# Everything runs in .venv, which `make install` fills; the other targets call it.
PYTHON ?= python3
BIN := .venv/bin

# Files side by side, a file's tests one after another in one process: its runs are trained once.
PYTEST := -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
TEST := $(BIN)/python $(PYTEST)

# The lowest versions that pyproject.toml allows, in an environment of their own: uv reads them there.
LOWEST := .venv-lowest

.PHONY: install quickstart test test-fast test-lowest lint types docs docs-check clean

install: .venv/.installed

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "latentseg needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

quickstart: install
	$(BIN)/latentseg quickstart

test: install
	$(TEST)

test-fast: install
	$(TEST) -m "not slow"

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python $(PYTEST)

$(LOWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[dev]'
	@touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# The site, in build/docs: broken links and all other warnings are errors.
docs: install
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees docs build/docs

# Every command of the pages that can be run with tiny data, in a folder of its own: minutes.
docs-check: install
	$(BIN)/python docs/_ext/blocks.py

clean:
	rm -rf .venv $(LOWEST) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
