# Two commands matter: `make demo` and `make test`. Both make .venv by themselves. GNU Make 3.81 suffices.

# The newest Python that is really there (a shim may stand for a version that is not) and can make a venv.
PYTHON := $(shell for v in 3.14 3.13 3.12 3.11; do \
  if python$$v -c 'import ensurepip, sys, venv' >/dev/null 2>&1; then echo python$$v; exit; fi; done; \
  if python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
  then echo python3; fi)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.PHONY: help demo test test-long lint format bench wheel clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: .venv/demo.stamp ## move a shop from sessions to tokens and back, in front of you
	@$(BIN)/crossfade demo

test: .venv/test.stamp ## run the tests and report coverage (minutes)
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -m "not long"
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

test-long: .venv/test.stamp ## run the long campaigns too
	@$(BIN)/python -m pytest -m long

lint: .venv/lint.stamp ## check style, types and the layers of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: .venv/lint.stamp ## write the code in the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: .venv/test.stamp ## measure against the bare application, in one run
	@$(BIN)/python tests/benchmarks/bench.py

wheel: .venv/lint.stamp ## build the wheel into dist/
	@$(BIN)/python -m build --wheel --outdir dist .

clean: ## remove what the other commands made
	rm -rf .venv dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Crossfade needs Python 3.11 or newer with venv: install python3 (on Debian also python3-venv)"; exit 1; }
	@echo "making .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv

.venv/demo.stamp: .venv/bin/python pyproject.toml
	@echo "installing what the demo needs"
	@$(PIP) --editable '.[cli]'
	@touch $@

.venv/test.stamp: .venv/bin/python pyproject.toml
	@echo "installing what the tests need"
	@$(PIP) --editable '.[test]'
	@touch $@ .venv/demo.stamp

.venv/lint.stamp: .venv/bin/python pyproject.toml
	@echo "installing what the checks need"
	@$(PIP) --editable '.[lint]'
	@touch $@ .venv/test.stamp .venv/demo.stamp
