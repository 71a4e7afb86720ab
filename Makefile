# make demo    a tour on a real Next.js app: start, list, an answer, logs, stop
# make test    everything the tests need, then lint, types and tests
# make test-kinds  every kind but Next.js and Expo for real: installs the tools, writes docs/kinds.md
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
.PHONY: help demo test test-kinds lint types bench python examples node-apps

BIN := .venv/bin
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
NODE := $(shell command -v npm >/dev/null 2>&1 && node -e 'process.exit(+(process.versions.node.split(".")[0] < 20))' 2>/dev/null && echo yes)
APPS := examples/web examples/mobile tests/fixtures/next15
KINDS := tests/fixtures/kinds
KIND_PACKAGES := $(patsubst %/package-lock.json,%/node_modules/.installed,$(wildcard $(KINDS)/*/package-lock.json))

# A virtual environment names its own folder; one that was moved or half made is none.
$(foreach venv,. $(KINDS),$(if $(filter-out $(CURDIR),$(shell cat $(venv)/.venv/.installed 2>/dev/null)),$(shell rm -f $(venv)/.venv/.installed)))

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
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m 'not stress and not kinds'
	@$(BIN)/pytest -m stress || [ $$? -eq 5 ]

# A tool that cannot be installed here keeps none of the others from being tried: the table says so.
test-kinds: python
	@for one in $(KINDS)/.venv/.installed $(if $(NODE),$(KIND_PACKAGES)); do $(MAKE) $$one || true; done
	@DEVSUP_KINDS_TABLE=1 $(BIN)/pytest -p no:randomly -m kinds

$(KINDS)/.venv/.installed: $(KINDS)/requirements.txt $(wildcard $(KINDS)/*/requirements.txt)
	@scripts/step "Making $(KINDS)/.venv" $$(scripts/python) -m venv --clear $(KINDS)/.venv
	@scripts/step "Installing the Python servers" $(KINDS)/.venv/bin/pip install -r $(KINDS)/requirements.txt
	@echo '$(CURDIR)' > $@

bench: python
	@$(BIN)/python -m benchmarks
