# make demo · make test · make test-slow · make test-kernels · make check · make docs · make bench
# Each target sets up what it needs (.venv, .venv-kernels); nothing else has to be typed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints/py311.txt
INSTALL := $(BIN)/python -m pip install --quiet -c $(CONSTRAINTS)
DEMO_DIR ?= demo

# CuPy and NVRTC compile the CUDA kernels, without a GPU too. They stay out of VENV
# (docs/decisions/0003), and so this environment holds what its tests import alone.
KERNELS := .venv-kernels
KERNELS_INSTALL := $(KERNELS)/bin/python -m pip install --quiet -c $(CONSTRAINTS)

.PHONY: help demo test test-slow test-kernels check docs bench clean

help:
	@sed -n '1,2p' Makefile

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

# One stamp a dependency group; a changed pyproject.toml or constraint installs anew.
$(VENV)/.base: $(VENV)/.python pyproject.toml $(CONSTRAINTS)
	$(INSTALL) -e .
	@touch $@

$(VENV)/.%: $(VENV)/.base
	$(INSTALL) --group $*
	@touch $@

demo: $(VENV)/.base
	$(BIN)/neuromm demo $(DEMO_DIR)

# Two workers fill two cores: second threads of libraries would only wait for each other.
test test-slow: export OMP_NUM_THREADS := 1

test: $(VENV)/.base $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m "not slow"

# The packaging test builds with hatchling, of the group check.
test-slow: $(VENV)/.base $(VENV)/.test $(VENV)/.check
	$(BIN)/python -m pytest -n 2 -m slow --timeout 900

$(KERNELS)/.ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(KERNELS)
	$(KERNELS)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(KERNELS_INSTALL) cupy-cuda13x nvidia-cuda-nvrtc numpy scipy array-api-compat
	$(KERNELS_INSTALL) pytest pytest-timeout
	$(KERNELS_INSTALL) --no-deps -e .
	@touch $@

test-kernels: $(KERNELS)/.ready
	$(KERNELS)/bin/python -m pytest tests/kernels/test_cuda_compile.py tests/gpu

check: $(VENV)/.base $(VENV)/.test $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/codespell neuromm pipelines tests docs examples README.md

docs: $(VENV)/.base $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/.base $(VENV)/.test
	@for script in bench/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) $(KERNELS) build dist docs/_build docs/gallery docs/generated
