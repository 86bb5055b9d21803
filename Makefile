# Every target sets up .venv by itself; PYTHON is the interpreter it is made from (3.11 or newer).
PYTHON ?= python3
JOBS ?= 3

# Tests start hundreds of processes: without compiled modules on the disk each compiles the package.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)

# The first search of a reader: about six minutes on two cores. Run it again to continue.
DEMO_STUDY := demo
DEMO := $(BIN)/peftsearch search demo --model demo:minilm --task demo:tweets \
	--study $(DEMO_STUDY) --workers 2 --minutes 6 --landmarks all

# What may differ from processor to processor: which kernels PyTorch, MKL and oneDNN take, and among
# how many threads a sum is divided. Each is a processor on which numbers must come out right, too.
OLD := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41
AVX2 := ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2 ONEDNN_MAX_CPU_ISA=AVX2
MKL := MKL_CBWR=COMPATIBLE
THREADS := PEFTSEARCH_TEST_THREADS=2 OMP_WAIT_POLICY=passive
# Oracles (the same computed in two ways) and determinism (the same twice, bit for bit).
NUMERICAL := tests/design tests/test_docs_extending.py \
	$(wildcard tests/backbone/oracles/test_oracles*.py) tests/backbone/test_channels_without_a_norm.py \
	tests/backbone/attach/test_attach.py $(addprefix tests/backbone/sharing/test_,slices.py together.py) \
	$(addprefix tests/training/,test_checkpoint.py cohort/test_cohort.py test_loop.py) \
	tests/training/test_seq2seq_oracle.py \
	tests/export/test_export.py tests/export/test_native_files.py

# Where tests write: in memory if there is room. They flush thousands of small files to the disk.
SCRATCH := $(or $(TMPDIR),$(shell grep -qs '^[^ ]* /dev/shm .*noexec' /proc/mounts || \
	df -Pk /dev/shm 2> /dev/null | awk '$$6 == "/dev/shm" && $$4 > 4e6 {print $$6}'))
PYTEST := $(if $(SCRATCH),TMPDIR=$(SCRATCH)) OMP_NUM_THREADS=1 $(BIN)/pytest

.PHONY: help .venv demo quick test processors families check lint imports format types clean

help:
	@echo 'make demo     search for six minutes on a real model, print the frontier'
	@echo 'make quick    lint, import directions and the fast tests, in less than a minute: after every edit'
	@echo 'make check    lint, format, types and import directions'
	@echo 'make test     the whole test suite'
	@echo 'make processors  oracles and determinism again, on other processors emulated'
	@echo 'make families run the matrix of methods and families, write docs/families.md'
	@echo 'make format   rewrite the sources as check wants them'
	@echo 'make clean    remove .venv and everything that was built'

.venv: $(STAMP)

# torch first and by itself: pip then takes the build that this machine offers (a CPU wheel where
# one is configured), and the second line leaves it alone.
$(STAMP): pyproject.toml constraints.txt peftsearch/version.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(TORCH)
	$(BIN)/pip install -c constraints.txt -e '.[dev,demo]'
	touch $@

demo: $(STAMP)
	$(DEMO) $(if $(wildcard studies/$(DEMO_STUDY)/study.json),--resume)

quick: lint imports
	$(PYTEST) -q -n 2 --dist loadfile --quick --durations 5

test: $(STAMP)
	$(PYTEST) -n $(JOBS) --dist worksteal --durations 30

processors: $(STAMP)
	for processor in '$(OLD)' '$(AVX2)' '$(MKL)' '$(THREADS)'; do \
		echo "$$processor"; \
		env $$processor $(PYTEST) -q -n $(JOBS) --dist worksteal $(NUMERICAL) || exit 1; \
	done

families: $(STAMP)
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m support.families_page

check: lint imports types

imports: $(STAMP)
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
