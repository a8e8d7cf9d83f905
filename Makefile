# Everything from nothing: `make demo` and `make test` need Python >= 3.11 and no more.
PYTHON ?= python3
BIN := .venv/bin
# Tests to run, all by default, and the processes that share them: make test TESTS=tests/cli JOBS=4
TESTS ?=
JOBS ?= 2

.PHONY: demo test test-lowest test-newest test-versions lint clean

demo: .venv/installed
	$(BIN)/gpt1 demo

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses $(JOBS) $(TESTS)

# torch is the tested one everywhere: of the lowest, 2.6.0, and of the newest not every machine can install a build.
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

# With the lowest versions that pyproject.toml allows.
test-lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest --numprocesses $(JOBS) $(TESTS)

# With the newest that it allows, whatever they are today.
test-newest: .venv-newest/installed
	.venv-newest/bin/python -m pytest --numprocesses $(JOBS) $(TESTS)

# Folders saved with one version of transformers, loaded with another.
test-versions: .venv/installed .venv-lowest/installed
	GPT1_OTHER_PYTHON=.venv-lowest/bin/python $(BIN)/python -m pytest -m slow tests/test_remote_code_versions.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/installed: pyproject.toml constraints.txt
	$(call new_venv,.venv,--constraint constraints.txt)

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	$(call new_venv,.venv-lowest,--constraint constraints-lowest.txt torch==$(TORCH))

.venv-newest/installed: pyproject.toml
	$(call new_venv,.venv-newest,--upgrade torch==$(TORCH))

# $(1): folder, $(2): what pip is told beside the package
define new_venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gpt1_hf needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
$(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install --quiet $(2) --editable ".[test]"
touch $@
endef

clean:
	rm -rf .venv .venv-lowest .venv-newest runs dist
