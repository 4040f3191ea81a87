PYTHON ?= python3
BIN := .venv/bin

.PHONY: test test-long lint bench clean
test: .venv/.ready
	$(BIN)/python -m pytest

test-long: .venv/.ready
	$(BIN)/python -m pytest -m "long or not long" --timeout=7200

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/.ready
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.loading
	$(BIN)/python -m benchmarks.cost

# torch and torchaudio are pinned as a pair: any other build of either breaks `import torchaudio`.
.venv/.ready: constraints.txt setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed, found " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,beam]'
	touch $@

clean:
	rm -rf .venv
