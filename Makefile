# Everything a developer or CI runs. Python 3.11+ with venv, and make, are enough: each target sets up what it needs.

PYTHON ?= python3
ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PIP_NO_INPUT := 1
export PYTHONUTF8 := 1
# Tests start hundreds of processes, each of which would compile all of the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test quick given lint bench docs lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo ## Play 90 days of a grocer and show what Storekeep does (ARGS="--days 14")
	@$(VENV)/bin/storekeep demo $(ARGS)

test: $(VENV)/.installed-dev ## Run every test, with coverage (ARGS="-k ledger")
	@$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered $(ARGS)

quick: $(VENV)/.installed-dev ## Run unit and property tests that need no database, with few examples, in under a minute
	@HYPOTHESIS_PROFILE=quick $(RUN) -m pytest -n 2 --dist loadfile -x -q -m "not slow and not database" tests/unit tests/properties $(ARGS)

given: $(VENV)/.installed-dev ## Run the tests that use a database on a given, older PostgreSQL, where one is installed
	@$(RUN) tools/given.py

lint: $(VENV)/.installed-dev ## Check format, style, types, layers, duplication, tree and docs
	@$(RUN) tools/lint.py $(ARGS)

bench: $(VENV)/.installed-dev ## Measure, and compare with what one would use instead (ARGS="--quick")
	@$(RUN) benchmarks/record.py spine $(ARGS)
	@$(RUN) benchmarks/record.py decisions $(ARGS)
	@$(RUN) benchmarks/record.py ingest $(ARGS)
	@$(RUN) benchmarks/record.py features $(ARGS)

docs: $(VENV)/.installed-dev ## Build the documentation into docs/_build/html, warnings as errors
	@$(RUN) -m sphinx -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

lock: $(VENV)/.installed-dev ## Remake the lock files in requirements/ from pyproject.toml
	@$(RUN) tools/lock.py $(ARGS)

clean: ## Remove the virtual environment, caches and build output (never .storekeep)
	rm -rf $(VENV) $(VENV)-feast build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache htmlcov
	rm -f .coverage .coverage.*
	find src tests tools docs -name __pycache__ -type d -prune -exec rm -rf {} +

# A virtual environment is made once; a lock file or pyproject.toml that is newer than the stamp installs again.
$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "storekeep: there is no '$(PYTHON)'. Install Python 3.11 or later; on Debian and Ubuntu: apt-get install python3 python3-venv" >&2; exit 3; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "storekeep: needs Python 3.11 or later, but '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Install one and say which: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 3; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "storekeep: '$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 3; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-%: requirements/%.lock pyproject.toml | $(VENV)/.made
	@if [ $* = demo ] && [ $(VENV)/.installed-dev -nt $< ] && [ $(VENV)/.installed-dev -nt pyproject.toml ]; then touch $@; exit 0; fi; \
	echo "storekeep: installing $$(grep -c '^[a-z]' $<) packages into $(VENV) (once; a minute or so)" >&2; \
	$(RUN) -m pip install -qq --no-deps --only-binary :all: --require-hashes -r $< \
	  && $(RUN) -m pip install --quiet --no-deps --no-build-isolation --no-index -e . \
	  || { echo "storekeep: installation failed; the lines above say why. It needs a Python package index that pip can reach; then run the same command again" >&2; exit 3; }
	@touch $@
