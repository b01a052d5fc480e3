# What people, the hooks and CI call. `make install` builds .venv; the others build it first where it is missing.

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
ARGS ?=
BENCHES ?= startup

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint fmt bench docs

help:
	@echo "make install   the environment in $(VENV); downloads packages, once   (PYTHON=python3.12 chooses the Python of a new one)"
	@echo "make demo      train, evaluate and classify with what is built in; offline once $(VENV) is there"
	@echo "make test      the test suite; offline once $(VENV) is there   (ARGS='-k labels' reaches pytest)"
	@echo "make lint      ruff and mypy, nothing is changed"
	@echo "make fmt       ruff's fixes and format"
	@echo "make bench     what BENCHES names of bench/                    (BENCHES='startup memory')"
	@echo "make docs      the site, in English and Chinese, into site/; a warning is an error"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 10) <= v < (3, 14) else "fenlei needs Python 3.10 to 3.13, $(PYTHON) is %d.%d: make install PYTHON=python3.12" % v[:2])'
	@$(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV): two to five minutes, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --constraint $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/fenlei demo $(ARGS)
	@echo "The commands above are found after: source $(BIN)/activate"

test: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	@for name in $(BENCHES); do echo "== bench.$$name"; HF_HUB_OFFLINE=1 $(BIN)/python -m bench.$$name $(ARGS) || exit 1; done

docs: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --constraint $(CONSTRAINTS) --editable '.[dev,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)
