# make demo       a trained model, its forecast and its report in demo/, on any machine
# make test       lint, types and all tests but the longest, in an environment of their own
# make test-fast  the tests that take no more than seconds each
# make test-all   every test: all layouts, notebooks, batch systems, the documentation
# make docs       the documentation with the notebooks' pictures, in docs/_build/html; the first time it runs them all
# make docs-links whether the documentation's links into the network still lead somewhere
#
# PYTHON is the interpreter that makes the environment, VENV where it stands, OUT the folder of the demo, N the number of
# test processes:  make test PYTHON=python3.13 VENV=/tmp/aeris N=8

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo
N ?= 2

bin := $(VENV)/bin
# Most modules of these packages are never imported: each is compiled when it first is.
install := $(bin)/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt
packages := pyproject.toml constraints.txt
# Each test process computes on one thread; more would only take turns on the same cores.
pytest := OMP_NUM_THREADS=1 $(bin)/python -m pytest -n $(N) --dist loadgroup --no-loadscope-reorder
# The whole repository is the source: pages refer to tutorials and the change log by their paths.
sphinx := $(bin)/sphinx-build -W --keep-going -c docs .

.DEFAULT_GOAL := help
.PHONY: help demo lint test test-fast test-all docs docs-links

help:
	@sed -n 's/^# //p; /^$$/q' Makefile

$(bin)/python:
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install -qq --disable-pip-version-check --upgrade pip

$(VENV)/.views: $(packages) | $(bin)/python
	@echo "Installing aeris with its views into $(VENV); the first time this takes minutes"
	$(install) -e '.[views]'
	@touch $@

$(VENV)/.tests: $(packages) | $(bin)/python
	@echo "Installing aeris and what its tests need into $(VENV); the first time this takes minutes"
	$(install) -e '.[views,sources,extremes,test,docs]'
	@touch $@ $(VENV)/.views $(VENV)/.docs

$(VENV)/.docs: $(packages) | $(bin)/python
	@echo "Installing aeris and what its documentation needs into $(VENV); the first time this takes minutes"
	$(install) -e '.[views,sources,docs]'
	@touch $@ $(VENV)/.views

demo: $(VENV)/.views
	$(bin)/aeris demo --out $(OUT)

lint: $(VENV)/.tests
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

test: lint
	$(pytest) -m "not full"

test-fast: $(VENV)/.tests
	$(pytest) -m "not slow and not full"

test-all: lint
	$(pytest)

docs: $(VENV)/.docs
	$(sphinx) docs/_build/html

docs-links: $(VENV)/.docs
	$(sphinx) -b linkcheck -D nb_execution_mode=off docs/_build/links
