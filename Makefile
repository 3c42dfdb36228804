# Each target sets up .venv by itself, and only what it needs.

PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Lessons run when they are exported, 3 to 50 seconds each, so they are exported again only when
# they or the package have changed. `make docs LESSONS= DEMO=` builds the site without them and
# without the demo's page, for which the demo is trained once.
LESSONS = $(patsubst lessons/%.py,%,$(wildcard lessons/*.py))
DEMO = build/explorer-demo.html
SOURCES = $(shell find src/nanogpt -name '*.py')

.DELETE_ON_ERROR:  # a lesson that failed is not kept as if it had been exported
.PRECIOUS: .venv/installed-%  # which make would otherwise remove as a step on the way
.PHONY: help demo test lint format bench lessons docs clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile | awk -F ': ' '{printf "make %-9s%s\n", $$1, $$2}'

demo: .venv/installed  ## from raw text to generated text, in under three minutes
	.venv/bin/nanogpt demo

test: .venv/installed-test  ## the whole test suite, on every core
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: .venv/installed-dev  ## style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/installed-dev  ## put the code in its standard form
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/installed-bench  ## speed beside public peers; writes docs/benchmarks.md
	.venv/bin/python benchmarks/tokenizer.py
	.venv/bin/python benchmarks/training.py
	.venv/bin/python benchmarks/loaded.py
	.venv/bin/python benchmarks/generation.py

lessons: $(LESSONS:%=build/lessons/%.ipynb) $(LESSONS:%=build/lessons/%.html)  ## each lesson as .ipynb, for Jupyter and Colab, and as HTML, in build/lessons

docs: .venv/installed-docs $(LESSONS:%=build/lessons/%.html) $(DEMO)  ## the documentation as a site with the executed lessons and the explorer, in build/site
	.venv/bin/mkdocs build --strict

clean:  ## remove the environment, not the runs
	rm -rf .venv

build/demo/checkpoints/latest: | .venv/installed-explorer
	.venv/bin/nanogpt demo --run build/demo

build/explorer-demo.html: build/demo/checkpoints/latest $(SOURCES) $(shell find src/nanogpt/explorer/web -type f)
	.venv/bin/nanogpt publish build/demo $@

build/lessons/%.html: lessons/%.py $(SOURCES) | .venv/installed-learn
	mkdir -p build/lessons
	.venv/bin/marimo export html $< --force --output $@

build/lessons/%.ipynb: lessons/%.py | .venv/installed-learn
	mkdir -p build/lessons
	.venv/bin/marimo export ipynb $< --force --output $@

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[explorer]'
	touch $@

.venv/installed-%: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[$*]'
	touch $@
