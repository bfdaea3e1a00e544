# The verbs, the same here and in CI. A fresh machine needs Python 3.10+, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup fix check test demo matrix bench faults soak clean
.DEFAULT_GOAL := help

help:
	@echo "make setup | fix | check | test | demo | matrix | bench | faults | soak | clean"

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv
	@# Compiled as pip does it: where PYTHONDONTWRITEBYTECODE is set, each process of the tests would compile MLflow again.
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --compile-bytecode --editable ".[emulator]" --group dev
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
	tools/system-packages
	tools/with-docker $(BIN)/python -m pytest -n auto --dist loadfile

demo: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" tools/demo

matrix: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" tools/matrix

bench: $(READY)
	$(BIN)/python -m tests.benchmarks $(ARGS)

faults: $(READY)
	MLFLOW_AZURE_FAULT_SEED=all tools/with-docker $(BIN)/python -m pytest -n auto --dist loadfile tests/faults

soak: $(READY)
	MLFLOW_AZURE_SOAK=1000 $(BIN)/python -m pytest tests/faults/test_load.py::test_soak --timeout=3600 --capture=no

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache dist
