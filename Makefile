# make demo    a tour on a real Next.js app: start, list, an answer, logs, stop
# make test    everything the tests need, then lint, types and tests
# make lint    ruff and mypy only
# make bench   what devsup costs, as ratios
#
# Each sets up what it needs. What is installed is noted inside the installed folder itself, as the last step, so
# an interrupted or deleted installation is made again and a finished one costs nothing.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory
.PHONY: help demo test lint types bench python examples node-apps

BIN := .venv/bin
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
NODE := $(shell command -v npm >/dev/null 2>&1 && node -e 'process.exit(+(process.versions.node.split(".")[0] < 20))' 2>/dev/null && echo yes)
APPS := examples/web examples/mobile tests/fixtures/next15

# A virtual environment names its own folder; one that was moved or half made is none.
ifneq ($(shell cat .venv/.installed 2>/dev/null),$(CURDIR))
$(shell rm -f .venv/.installed)
endif

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

python: .venv/.installed

.venv/.installed: pyproject.toml
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  python=$$(scripts/python) && rm -rf .venv && \
	  scripts/step "Making .venv with $$python" "$$python" -m venv .venv; }
	@scripts/step "Installing devsup and its tools into .venv" $(BIN)/python -m pip install -e '.[dev]'
	@echo '$(CURDIR)' > $@

ifeq ($(NODE),yes)
examples: examples/web/node_modules/.installed
node-apps: $(APPS:%=%/node_modules/.installed)
else
examples node-apps:
	@echo 'Node.js 20 or newer with npm was not found: the demo uses a small server, tests that need Node are skipped.'
endif

%/node_modules/.installed: %/package-lock.json %/package.json
	@cd $* && exec $(CURDIR)/scripts/step "Installing the packages of $*" npm ci --no-audit --no-fund
	@touch $@

demo: python examples
	@$(BIN)/python -m devsup.demo examples/web

lint: python
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .

types: python
	@$(BIN)/mypy

# Tests of many processes at once come last and alone: beside others they would measure those.
test: lint types node-apps
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m 'not stress'
	@$(BIN)/pytest -m stress || [ $$? -eq 5 ]

bench: python
	@$(BIN)/python -m benchmarks
