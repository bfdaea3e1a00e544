# The verbs, the same here and in CI. A fresh machine needs Python 3.10+, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup fix check test demo matrix clean
.DEFAULT_GOAL := help

help:
	@echo "make setup | fix | check | test | demo | matrix | clean"

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --editable . --group dev
	touch $@

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY)
	$(BIN)/python -m pytest

demo: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" tools/demo

matrix: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" tools/matrix

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache dist
