# Two commands on a fresh machine: `make run` and `make test`. Given: Linux, Python 3.11 or later, Java 17, Maven.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
LOCK := infra/stack/requirements.lock
PYTEST_ARGS ?=

.PHONY: help run demo up down test check bench stack lock tools

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

run: stack  ## install, start everything, send real DICOM through every door, and go on serving until Ctrl-C
	@exec $(BIN)/sijil up --then demo

demo: stack  ## the same without staying: exit status 0 only if every number adds up
	@if $(BIN)/sijil status >/dev/null 2>&1; then exec $(BIN)/sijil demo; fi; \
	$(BIN)/sijil up --detach || exit 1; \
	$(BIN)/sijil demo; status=$$?; $(BIN)/sijil down; exit $$status

up: stack  ## start in the background
	@$(BIN)/sijil up --detach && $(BIN)/sijil status

down: .venv/installed  ## end what `up` started; data stays in .sijil
	@$(BIN)/sijil down

# Two lanes side by side, since each waits for something half of its time: what the servers do; and what is killed and
# started again (with the unit tests beside it, which need no server), then the doors alone. The second is told at the end.
KILLS := tests/crash tests/stack/test_verify_log.py
LANE = $(BIN)/pytest -p no:cacheprovider
WITHOUT = $(LANE) -m "not connected"
test: tools  ## check, and the whole test suite on the real stack
	@( make --no-print-directory check; checked=$$?; \
	$(WITHOUT) tests/unit $(PYTEST_ARGS) >.unit.log 2>&1 & unit=$$!; \
	$(LANE) -m connected $(KILLS) $(PYTEST_ARGS); crash=$$?; \
	$(WITHOUT) --ignore=tests/unit $(PYTEST_ARGS); doors=$$?; \
	wait $$unit; unit=$$?; cat .unit.log; rm -f .unit.log; \
	exit $$((checked | crash | unit | doors)) ) >.second-lane.log 2>&1 & second=$$!; \
	$(LANE) -m connected --ignore=tests/unit $(KILLS:%=--ignore=%) $(PYTEST_ARGS); first=$$?; \
	wait $$second; second=$$?; cat .second-lane.log; rm -f .second-lane.log; exit $$((first | second))

check: stack  ## lint, formatting, types, who imports whom, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m infra.generate --check

bench: stack tools  ## figures of ingest, queries and projections, as a table and as JSON
	$(BIN)/python -m tests.bench

stack: .venv/installed  ## install what the local stack needs: Python packages, the servers' jars, the viewer
	@$(BIN)/python -m infra.stack.install

# pip brings uv, uv the packages of the lock with their checksums, compiled once for all the processes that import them,
# and the project in place. A second call does nothing.
.venv/installed: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 (this is $$($(PYTHON) -V))"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
		{ echo "no virtual environment could be made: install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r $(LOCK)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

lock: .venv/installed  ## pin today's versions of the dependencies anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra demo --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet --upgrade -o $(LOCK)

# For the tests alone: two independent DICOM toolkits, a browser, node for a parser of AsyncAPI and an OpenID
# provider that are not ours, and jars.
tools: stack
	@missing=""; test -x /usr/bin/storescu || missing="dcmtk"; \
	test -x /usr/bin/dciodvfy || missing="$$missing dicom3tools"; \
	test -x /usr/bin/chromium || missing="$$missing chromium"; \
	command -v npm >/dev/null || missing="$$missing nodejs npm"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "missing for some tests: apt-get install $$missing"; exit 0; fi; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null
	@$(BIN)/python -m tests.jars
