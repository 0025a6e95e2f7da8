# One entry for everything. Each target sets itself up in $(VENV); repeated calls are instant.
#
#   make demo     train, search and plot on digits; writes the pictures
#   make test     all fast tests       (TEST_FLAGS="-n 2 --dist loadfile", TEST_FLAGS="-m slow")
#   make lint     ruff: rules and format
#   make bench    every script in benchmarks/
#   make docs     the site, in docs/_build/html

PYTHON ?= $(shell python3.11 -c "print('python3.11')" 2>/dev/null || echo python3)
VENV ?= .venv
TEST_FLAGS ?=
DEMO_FLAGS ?=

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --no-input --disable-pip-version-check --quiet -c constraints.txt

# No windows: pictures go to files.
export MPLBACKEND ?= Agg

.PHONY: demo test lint bench docs clean
.DELETE_ON_ERROR:
# Stamps that only pattern rules name must not be removed as intermediate files.
.SECONDARY:

demo: $(VENV)/.installed-test
	$(BIN)/python examples/plot_tradeoff.py $(DEMO_FLAGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(TEST_FLAGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.installed-test $(VENV)/.installed-bench
	@set -e; for script in benchmarks/[!_]*.py; do \
		echo "== $$script"; $(BIN)/python "$$script"; \
	done

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build docs/auto_examples docs/generated

# bin/pip is the last thing that venv writes, so a broken attempt is made again.
$(BIN)/pip:
	$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.installed-torch: constraints.txt | $(BIN)/pip
	@echo "Installing torch into $(VENV); this takes a while the first time."
	$(PIP) torch
	@touch $@

$(VENV)/.installed-%: pyproject.toml constraints.txt $(VENV)/.installed-torch
	@echo "Installing skrobust[$*] into $(VENV)."
	$(PIP) -e ".[$*]"
	@touch $@
