# Everything from nothing: `make demo` and `make test` need Python >= 3.11 and no more.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-lowest lint clean

demo: .venv/installed
	$(BIN)/gpt1 demo

test: .venv/installed
	$(BIN)/python -m pytest

# With the lowest versions that pyproject.toml allows. Of torch it is the tested one, as older ones are not to be had
# everywhere; 2.6.0 is the lowest: make test-lowest LOWEST_TORCH=2.6.0
LOWEST_TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

test-lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gpt1_hf needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --constraint constraints-lowest.txt \
		torch==$(LOWEST_TORCH) --editable ".[test]"
	touch $@

clean:
	rm -rf .venv .venv-lowest runs dist
