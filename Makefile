# Given: Linux, Python 3.11+, Java 17, Maven. Everything else is installed from this file and lies in .venv and .sijil.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := infra/stack/requirements.lock

.PHONY: help install run demo up down check test bench lock

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

install: $(VENV)/installed ## the Python environment, from the lock

$(VENV)/installed: pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Sijil needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'uv>=0.5,<1'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement $(LOCK)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

run: install ## install, start everything, do the main job on real DICOM, go on serving until Ctrl-C
	$(BIN)/sijil up --then demo

demo: install ## the same without staying: exit status 0 only if every number adds up
	$(BIN)/sijil up --detach
	status=0; $(BIN)/sijil demo || status=$$?; $(BIN)/sijil down; exit $$status

up: install ## start everything in the background
	$(BIN)/sijil up --detach

down: install ## end what `make up` started; data stays
	$(BIN)/sijil down

check: install ## lint, types, who imports whom, generated files; seconds, no servers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m infra.generate --check

# DCMTK is the independent DICOM client of the tests; they call it by absolute path.
/usr/bin/storescu:
	@test "$$(id -u)" = 0 || { echo "the tests need DCMTK: apt-get install dcmtk"; exit 1; }
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends dcmtk >/dev/null

test: install check /usr/bin/storescu ## install, check and test everything on the real stack
	$(BIN)/pytest -q

bench: install /usr/bin/storescu ## figures of this machine: a table, and JSON in bench-results/
	$(BIN)/python -m tests.bench

lock: install ## resolve the ranges of pyproject.toml anew
	$(BIN)/uv pip compile --quiet --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	    --extra dev --extra demo pyproject.toml --output-file $(LOCK)
