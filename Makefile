PYTHON ?= python3
BIN := .venv/bin
# Beside whose results ours are tested; their own requirements would bring another torch.
PEERS := clip-benchmark==1.6.2 compel==2.5.1
export OMP_NUM_THREADS ?= 1

.PHONY: install test test-slow lint format quickstart clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev,onnx,cluster,similarity,demo]"
	$(BIN)/pip install --quiet --no-deps $(PEERS)
	touch $@

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quickstart: install
	OMP_NUM_THREADS=2 $(BIN)/python scripts/quickstart.py

clean:
	rm -rf .venv runs
