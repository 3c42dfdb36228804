# Each target sets up .venv by itself, and only what it needs.

PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint bench lessons format clean

demo: .venv/installed  ## from raw text to generated text, in under three minutes
	.venv/bin/nanogpt demo

test: .venv/installed-test  ## the whole test suite, on every core
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto

lint: .venv/installed-dev  ## style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/installed-bench  ## speed beside public peers; writes docs/benchmarks.md
	.venv/bin/python benchmarks/tokenizer.py
	.venv/bin/python benchmarks/training.py
	.venv/bin/python benchmarks/generation.py

lessons: .venv/installed-learn  ## each lesson as .ipynb, for Jupyter and Colab, and as HTML, in build/lessons
	mkdir -p build/lessons
	for lesson in lessons/*.py; do \
	  name=build/lessons/$$(basename $$lesson .py); \
	  .venv/bin/marimo export ipynb $$lesson --force --output $$name.ipynb || exit 1; \
	  .venv/bin/marimo export html $$lesson --force --output $$name.html || exit 1; \
	done

format: .venv/installed-dev  ## put the code in its standard form
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:  ## remove the environment, not the runs
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e .
	touch $@

.venv/installed-%: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[$*]'
	touch $@
