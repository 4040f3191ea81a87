PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/quickstart

.PHONY: demo test test-long lint bench clean
# One thread: with two, recurrent layers slow down tenfold as soon as anything else runs on the machine.
demo: export OMP_NUM_THREADS = 1
demo: $(DEMO)/report/index.html
	@echo "The demo's runs are in $(DEMO); open $(DEMO)/report/index.html. To start over: rm -r $(DEMO)"

# Each step leaves a mark when it is complete, and goes on where it stopped when it was not.
$(DEMO)/%.trained: | .venv/.ready
	@echo "== training $*: recipes/quickstart/$*.yaml"
	$(BIN)/python train.py fit --config recipes/quickstart/$*.yaml --ckpt_path auto
	@touch $@

$(DEMO)/hardened.trained: $(DEMO)/clean.trained

$(DEMO)/evaluation.tested: $(DEMO)/clean.trained $(DEMO)/hardened.trained
	@echo "== both in rising noise and under attack: recipes/quickstart/evaluation.yaml"
	$(BIN)/python train.py test --config recipes/quickstart/evaluation.yaml
	@touch $@

$(DEMO)/report/index.html: $(DEMO)/evaluation.tested
	@echo "== the report"
	$(BIN)/python -m robust_asr.report $(DEMO)/evaluation --out $(DEMO)/report

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
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,beam,phones]'
	touch $@

clean:
	rm -rf .venv
