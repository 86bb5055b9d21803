# Every target sets up .venv by itself; PYTHON is the interpreter it is made from (3.11 or newer).
PYTHON ?= python3
JOBS ?= 3

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)

# The first search of a reader: about six minutes on two cores. Run again, it goes on.
DEMO_STUDY := demo
DEMO := $(BIN)/peftsearch search demo --model demo:minilm --task demo:tweets \
	--study $(DEMO_STUDY) --workers 2 --minutes 6

.PHONY: help .venv demo test families check lint format types clean

help:
	@echo 'make demo     search for six minutes on a real model, print the frontier'
	@echo 'make test     the whole test suite'
	@echo 'make families run the matrix of methods and families, write docs/families.md'
	@echo 'make check    lint, format, types and import directions'
	@echo 'make format   rewrite the sources as check wants them'
	@echo 'make clean    remove .venv and everything that was built'

.venv: $(STAMP)

# torch first and by itself: pip then takes the build that this machine offers (a CPU wheel where
# one is configured), and the second line leaves it alone.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(TORCH)
	$(BIN)/pip install -c constraints.txt -e '.[dev,demo]'
	touch $@

demo: $(STAMP)
	$(DEMO) $(if $(wildcard studies/$(DEMO_STUDY)/study.json),--resume)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist worksteal

families: $(STAMP)
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m support.families_page

check: lint types
	$(BIN)/lint-imports

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(STAMP)
	$(BIN)/mypy --strict peftsearch

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .grimp_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
