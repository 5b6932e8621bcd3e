# From a fresh clone: `make demo` runs the main job, `make test` checks everything.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: help setup demo test check bench clean clean-runs

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
DEMO ?= runs/demo-$(shell date -u +%Y%m%d-%H%M%S)

# The repository root on sys.path would shadow PyPI's `kernels` and `verifiers`.
export PYTHONSAFEPATH := 1
# The root is the package `rollmill`; mypy finds it by that name through a link.
export MYPYPATH := .build/types

help:
	@echo "make demo    set up, make tasks, roll out, train a little, report ($(DEMO))"
	@echo "make test    set up, then check and run every test"
	@echo "make check   ruff, mypy and the layer rule"
	@echo "make bench   run tests/benchmarks and write docs/benchmarks.md"
	@echo "make clean   remove .venv, caches and containers; keeps runs/ (make clean-runs)"

setup: .venv/.dev

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "rollmill needs Python 3.11 or later, $(PYTHON) is $$($(PYTHON) -V 2>&1); run: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' || { \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then apt-get install -y -q python3-venv; \
	  else echo "$(PYTHON) has no ensurepip; install it, on Debian: apt-get install python3-venv" >&2; exit 2; fi; }
	$(PYTHON) -m venv .venv

.venv/.run: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable .
	@touch $@

.venv/.dev: .venv/.run
	$(PIP) --editable '.[dev]'
	@mkdir -p .build/types && ln -sfn ../.. .build/types/rollmill
	@touch $@

# Packages whose test suites take seconds: a task runs its suite a dozen times before it is admitted.
DEMO_SOURCES := $(addprefix --source ,munch semver mpg midwest)

demo: .venv/.run
	$(BIN)/rollmill doctor --fix
	$(BIN)/rollmill generate --tasks coding,cowork $(DEMO_SOURCES) --n 4 --policy gold --policy bundled --out $(DEMO)
	$(BIN)/rollmill train sft $(DEMO) --steps 5 --out $(DEMO)/sft
	$(BIN)/rollmill report $(DEMO)
	@case $(DEMO) in runs/demo-*) [ -e runs/demo -a ! -L runs/demo ] || ln -sfn $(notdir $(DEMO)) runs/demo;; esac

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p rollmill
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_style.py

test: check
	$(BIN)/rollmill doctor --fix
	ROLLMILL_OWN_ENGINE=1 $(BIN)/python -m pytest

.venv/.bench: .venv/.dev
	$(PIP) --editable '.[dev,bench]'
	@touch $@

bench: .venv/.bench
	$(BIN)/rollmill doctor --fix
	$(BIN)/python tests/benchmarks

clean:
	@if [ -x $(BIN)/rollmill ]; then $(BIN)/rollmill clean; fi
	rm -rf .venv .build build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-runs:
	rm -rf runs
