# One entry for everything. Each target sets itself up in $(VENV); repeated calls are instant.
#
#   make demo         train, search and plot on digits; writes the pictures
#   make test         all fast tests, on up to four cores   (TEST_FLAGS="-m slow", TEST_FLAGS="-n 0")
#   make test-matrix  the same on each Python that is here, and on the lower bounds
#   make lint         ruff: rules and format
#   make bench        every script in benchmarks/; a second call goes on where one was killed
#   make papers       the papers' experiments at a small budget; goes on likewise
#   make docs         the site, in docs/_build/html

PYTHON ?= $(shell python3.11 -c "print('python3.11')" 2>/dev/null || echo python3)
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
TEST_FLAGS ?=
TEST_WORKERS ?= -n auto --maxprocesses 4 --dist worksteal
DEMO_FLAGS ?=
BENCH_FLAGS ?=
PAPERS_FLAGS ?=

MATRIX = $(addprefix test-python-,3.11 3.12 3.13)

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --no-input --disable-pip-version-check --quiet -c $(CONSTRAINTS)

# No windows: pictures go to files.
export MPLBACKEND ?= Agg

.PHONY: demo test test-matrix test-lowest $(MATRIX) lint bench papers docs clean
.DELETE_ON_ERROR:
# Stamps that only pattern rules name must not be removed as intermediate files. (`.SECONDARY:`
# alone would also skip whatever is no file, such as a Python of the matrix.)
.PRECIOUS: $(VENV)/.installed-%

demo: $(VENV)/.installed-test
	$(BIN)/python examples/plot_tradeoff.py $(DEMO_FLAGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(TEST_WORKERS) $(TEST_FLAGS)

# One environment each, at $(VENV)-3.12 and so on: several gigabytes, most of them torch's.
test-matrix: $(MATRIX) test-lowest

$(MATRIX): test-python-%:
	@python=$(call interpreter,$*); \
	if [ -z "$$python" ]; then echo "No Python $* is here: left out."; exit; fi; \
	echo "Python $*"; $(MAKE) test PYTHON="$$python" VENV="$(VENV)-$*"

test-lowest: output/lowest.txt
	@echo "The lower bounds of pyproject.toml"
	$(MAKE) test VENV="$(VENV)-lowest" CONSTRAINTS=output/lowest.txt

output/lowest.txt: pyproject.toml tests/_lower_bounds.py
	@mkdir -p output
	$(PYTHON) tests/_lower_bounds.py > $@

# The path of a Python: the command, or what a version manager has where that is switched off.
interpreter = $$(for version in "$$PYENV_VERSION" "$$(pyenv latest $(1) 2>/dev/null)"; do \
	PYENV_VERSION="$$version" python$(1) -c "import sys; print(sys.executable)" 2>/dev/null && break; \
	done)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.installed-test $(VENV)/.installed-bench $(VENV)/.installed-peers
	$(BIN)/python benchmarks/_run.py $(BENCH_FLAGS)

# Flags for all of them: PAPERS_FLAGS="--full --n-jobs 8".
papers: $(VENV)/.installed-test
	for script in benchmarks/papers/[!_]*.py; do \
	$(BIN)/python $$script --n-jobs 2 $(PAPERS_FLAGS) || exit 1; \
	done

# adv-lib asks for visdom and torchvision, which the attacks that we measure do without, and visdom's
# source does not build with a current setuptools.
$(VENV)/.installed-peers: $(CONSTRAINTS) $(VENV)/.installed-bench
	$(PIP) --no-deps adv-lib
	@touch $@

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) $(VENV)-* docs/_build docs/auto_examples docs/generated

# bin/pip is the last thing that venv writes, so a broken attempt is made again.
$(BIN)/pip:
	$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.installed-torch: $(CONSTRAINTS) | $(BIN)/pip
	@echo "Installing torch into $(VENV); this takes a while the first time."
	$(PIP) torch
	@touch $@

$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS) $(VENV)/.installed-torch
	@echo "Installing skrobust[$*] into $(VENV)."
	$(PIP) -e ".[$*]"
	@touch $@
