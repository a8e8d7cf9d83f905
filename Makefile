# `make demo` and `make test` set everything up; they need only Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
# TESTS: the tests to run, by default all; JOBS: the number of processes. Example: make test TESTS=tests/cli JOBS=4
TESTS ?=
JOBS ?= 2
# Tests that depend on the version of transformers: make test-lowest TESTS='$(VERSION_TESTS)'
VERSION_TESTS := \
	tests/checkpoints/test_lora.py \
	tests/data/test_batching.py \
	tests/test_caches_and_padding.py \
	tests/test_modeling_gpt1.py \
	tests/test_modeling_gpt1_cpu.py \
	tests/test_modeling_gpt1_heads.py \
	tests/test_modeling_gpt1_hooks.py \
	tests/test_modeling_gpt1_lstm.py \
	tests/test_peft_defaults.py \
	tests/test_pipelines.py \
	tests/test_remote_code.py \
	tests/test_shared_prefix.py \
	tests/test_tokenization_gpt1.py \
	tests/test_vllm_contract.py \
	tests/training/test_arguments_table.py \
	tests/training/test_finetune.py \
	tests/training/test_pretrain.py \
	tests/training/test_private_hooks.py \
	tests/training/test_smoothing.py \
	tests/training/test_trainer.py

.PHONY: demo primer primer-refresh test test-lowest test-newest test-versions lint clean

demo: .venv/installed
	$(BIN)/gpt1 demo

PRIMER := recipes/primer.ipynb
# Where `make primer` writes its page.
PAGE := runs/primer/primer.html
needs_nbconvert = test -x $(BIN)/jupyter-nbconvert || { echo "The primer needs: $(BIN)/python -m pip install -e '.[primer]'"; exit 1; }

# The page loads no scripts from elsewhere. The primer's formulas need none.
ALONE := --HTMLExporter.mathjax_url=data:, --HTMLExporter.require_js_url=data:,

# Open the primer in JupyterLab or, without it, run it and write it as a page.
primer: .venv/installed
	@$(needs_nbconvert)
	@if [ -x $(BIN)/jupyter-lab ]; then $(BIN)/jupyter-lab $(PRIMER); else \
		echo "Running $(PRIMER) takes some minutes. To open it instead: $(BIN)/python -m pip install jupyterlab"; \
		$(BIN)/jupyter-nbconvert --execute --to html $(ALONE) --output-dir $(dir $(PAGE)) $(PRIMER) && echo "Open $(PAGE)"; \
	fi

# Run the primer and store it with its new outputs, such as for a new gpt1-tiny. Without real data, as most readers do.
primer-refresh: .venv/installed
	@$(needs_nbconvert)
	GPT1_DATA_DIR= $(BIN)/jupyter-nbconvert --execute --ExecutePreprocessor.record_timing=False --to notebook --inplace $(PRIMER)
	$(BIN)/python -m pytest tests/test_primer.py

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses $(JOBS) $(TESTS)

# Every environment has the tested torch: not every machine can install the lowest version (2.6.0) or the newest.
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

# With the lowest versions that pyproject.toml allows.
test-lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest --numprocesses $(JOBS) $(TESTS)

# With the newest versions that pyproject.toml allows today.
test-newest: .venv-newest/installed
	.venv-newest/bin/python -m pytest --numprocesses $(JOBS) $(TESTS)

# Load folders with one version of transformers that another version saved.
test-versions: .venv/installed .venv-lowest/installed
	GPT1_OTHER_PYTHON=.venv-lowest/bin/python $(BIN)/python -m pytest -m slow tests/test_remote_code_versions.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(call new_venv,.venv,--constraint constraints.txt)

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	$(call new_venv,.venv-lowest,--constraint constraints-lowest.txt torch==$(TORCH))

.venv-newest/installed: pyproject.toml
	$(call new_venv,.venv-newest,--upgrade torch==$(TORCH))

# $(1): the environment's folder; $(2): further arguments of `pip install`
define new_venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gpt1_hf needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
$(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install --quiet $(2) --editable ".[test]"
touch $@
endef

clean:
	rm -rf .venv .venv-lowest .venv-newest runs dist
