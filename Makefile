# Everything one does here, by one word each. `make` alone says what there is.
#
#   PYTHON=python3.12      which Python makes the environment; else the first of python3, 3.13, 3.12, 3.11 that fits
#   VENV=.venv             where the environment lies
#   ARGS="--port 7861"     further words for `keepmap serve` (make run) or for pytest (make test)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?=
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install run test lint types format docs check browser clean

help:  ## Say what there is.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | awk -F'|' '{ printf "make %-9s %s\n", $$1, $$2 }'

install: $(VENV)/.installed  ## Make the environment and install Keepmap into it.

run: $(VENV)/.installed  ## Install if needed, and open the dashboard.
	@$(BIN)/keepmap serve $(ARGS)

# Tests need no network; these keep libraries from even trying.
test: export HF_HUB_OFFLINE = 1
test: export GRADIO_ANALYTICS_ENABLED = False
test: $(VENV)/.installed-dev browser  ## Install what tests need, and run all of them.
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-dev  ## Say where the code departs from its style.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev  ## Check the types.
	@$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Put the code into its format, and mend what can be mended.
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

docs: $(VENV)/.installed-dev  ## Write the generated passages of the README anew.
	@$(BIN)/python -m dashboard.docs --write

check: lint types test  ## All that the CI asks for.

clean:  ## Remove the environment and caches; stored runs stay.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info

# One recipe finds a Python in range that really runs (a shim may exist and fail) and can make environments.
$(BIN)/python:
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$python" --version)"; \
	    exec "$$python" -m venv "$(VENV)"; \
	  fi; \
	done; \
	echo "No fitting Python: Keepmap runs on Python 3.11, 3.12 or 3.13 with its venv module (3.14 has a standard-library" >&2; \
	echo "package named 'compression', which ours would shadow). Tried: $(or $(PYTHON),python3 python3.13 python3.12 python3.11)." >&2; \
	echo "Install one (on Debian: apt-get install python3 python3-venv), or name it: make install PYTHON=/path/to/python3.13" >&2; \
	exit 1

# torch first and by its own range: no other package's requirement can then choose a build of several gigabytes.
$(VENV)/.torch: pyproject.toml | $(BIN)/python
	@requirement="$$($(BIN)/python -c 'import tomllib; print(*(r for r in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if r.startswith("torch>")))')"; \
	echo "Installing $$requirement and the rest; the first time takes a few minutes and about 2 GB"; \
	$(PIP) install --quiet "$$requirement"
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	@$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.torch pyproject.toml
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $(VENV)/.installed $@

# Browser tests drive Debian's Chromium. Where it is missing and cannot be installed they are skipped, and say so.
browser: export CHROMIUM ?=
browser:
	@if command -v $$CHROMIUM chromium chromium-browser google-chrome >/dev/null; then exit 0; fi; \
	become=""; \
	if [ "$$(id -u)" != 0 ]; then become="sudo -n"; fi; \
	if command -v apt-get >/dev/null && { [ -z "$$become" ] || $$become true 2>/dev/null; }; then \
	  echo "Installing Chromium for the browser tests"; \
	  { $$become apt-get update --quiet=2 && $$become env DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends chromium; } >/dev/null \
	    || echo "Chromium could not be installed: the browser tests will be skipped." >&2; \
	else \
	  echo "No Chromium here, and no right to install it: the browser tests will be skipped. Install your system's Chromium, or set CHROMIUM to its path, to run them." >&2; \
	fi
