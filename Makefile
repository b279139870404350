# `make demo` and `make test` set up everything they need in .venv and are safe to repeat.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint bench serve long clean

demo: $(READY)
	$(BIN)/recvae demo

test: $(READY)
	$(BIN)/pytest -rs

long: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,spark,ray]'
	$(BIN)/python -m benchmarks.long_tests
	$(BIN)/python -m benchmarks.serving_faults

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/movielens.py ml-1m
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.evaluation

serve: $(READY)
	$(BIN)/recvae serve $(or $(MODEL),demo/model)

clean:
	rm -rf .venv demo build dist

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "recvae needs Python 3.11 or newer; name one with PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)
