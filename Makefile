# `make demo` and `make test` do everything on a fresh machine with Python >= 3.11 and make.
#
# PyTorch: the public wheels on PyPI are CUDA builds of several GB. On a machine without an NVIDIA GPU (no
# nvidia-smi) this file asks pip first what it would install; if CUDA packages are among it, PyTorch's own index
# of CPU wheels is used instead. Point TORCH_CPU_INDEX at a mirror of that index if you have one.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/installed
DEV_INSTALLED := $(VENV)/dev-installed
INTEROP_INSTALLED := $(VENV)/interop-installed
PACKAGE_INSTALLED := $(VENV)/package-installed
DOCS_INSTALLED := $(VENV)/docs-installed

.PHONY: demo test slow interop browser package docs lint clean

demo: $(INSTALLED)
	$(BIN)/lungcast demo $(OUT) --force

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

interop: $(INTEROP_INSTALLED)
	$(BIN)/python -m pytest -m interop

browser: $(INSTALLED)
	$(BIN)/python -m pytest -m browser

package: $(PACKAGE_INSTALLED)
	$(BIN)/python -m pytest -m package

docs: $(DOCS_INSTALLED)
	LUNGCAST_SITE=site $(BIN)/python -m pytest -m docs

lint: $(DEV_INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(OUT) .numba_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lungcast needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@if ! command -v nvidia-smi >/dev/null 2>&1 && \
	    $(PIP) install --quiet --dry-run --report - -c constraints.txt torch 2>/dev/null | grep -q '"name": "nvidia'; then \
	    echo "no NVIDIA GPU: PyTorch's CPU wheels from $(TORCH_CPU_INDEX)"; \
	    $(PIP) install --quiet -c constraints.txt --index-url $(TORCH_CPU_INDEX) torch; \
	fi
	$(PIP) install --quiet -c constraints.txt -e '.[test]'
	touch $@

$(DEV_INSTALLED): $(INSTALLED)
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(INTEROP_INSTALLED): $(INSTALLED)
	$(PIP) install --quiet -c constraints.txt -e '.[test-interop]'
	touch $@

$(PACKAGE_INSTALLED): $(INSTALLED)
	$(PIP) install --quiet -c constraints.txt -e '.[test-package]'
	touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(PIP) install --quiet -c constraints.txt -e '.[test,docs]'
	touch $@
