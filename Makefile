# `make demo` and `make test` set up everything they need in .venv and are safe to repeat.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# A file's tests share what it starts; in the order of names, since files with few tests, which else come last, are long.
BESIDE := --numprocesses 2 --dist loadfile --no-loadscope-reorder

INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test gate lint docs pictures bench bench-gpu serve long clean

demo: $(READY)
	$(BIN)/recvae demo

test: $(READY)
	$(BIN)/pytest -rs $(BESIDE)

gate: $(READY)
	$(BIN)/pytest -rs $(BESIDE) --unexpected-skips-fail --cov --cov-report=term

long: $(READY)
	$(INSTALL) --editable '.[all,spark,ray]' --group dev
	$(BIN)/python -m benchmarks.long_tests
	$(BIN)/python -m benchmarks.serving_faults

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs build/docs
	@echo "the pages are in build/docs/index.html"

pictures: $(READY)
	$(BIN)/python docs/make_pictures.py

bench-gpu: $(READY)
	$(BIN)/python -m benchmarks.gpu

bench: $(READY)
	$(BIN)/python -m benchmarks.quality ml-1m
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.evaluation

serve: $(READY)
	$(BIN)/recvae serve $(or $(MODEL),demo/model)

clean:
	rm -rf .venv demo build dist

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "recvae needs Python 3.11 or newer; name one with PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(INSTALL) --upgrade pip # dependency groups need pip 25.1
	$(INSTALL) --editable '.[all]' --group dev
	@touch $(READY)
