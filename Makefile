# make demo   the packaged model, then everything the library does on 5,000 digits, in 5 minutes; ends with runs/demo/report.html
# make test   linters, types, layers, tests
# make dist   wheel and sdist in dist/, checked for the package index
# make test-gpu   everything once on a CUDA GPU, in half a minute
#
# An environment is made in .venv the first time; in an active one that one is used. VENV=... and PYTHON=... choose others.
PYTHON ?= python3
VENV ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin
OUT ?= runs/demo
# Processes that run tests; each takes about 1 GB.
WORKERS ?= 2

.PHONY: help demo test test-gpu lint dist docs clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(VENV)/.mage-demo
	$(BIN)/mage demo --out $(OUT)

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-gpu: $(VENV)/.mage-all
	MAGE_TEST_GPU=1 $(BIN)/python -m pytest tests/gpu

lint: $(VENV)/.mage-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict mage
	$(BIN)/lint-imports

dist: $(VENV)/.mage-dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

docs: $(VENV)/.mage-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find mage tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One stamp per extra, so that nothing is installed twice; a changed pyproject.toml installs again.
$(VENV)/.mage-%: pyproject.toml | $(BIN)/python
	@echo "installing mage with PyTorch and the packages of .[$*] into $(VENV): some minutes the first time"
	$(BIN)/python -m pip install --quiet --progress-bar on -e ".[$*]"
	@touch $@
