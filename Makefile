PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/quickstart
JOSHI := runs/joshi2022/an4
JOSHI_SETS := $(addprefix $(JOSHI)/,offline_attacks.attacked offline_attacks_targeted.attacked)
JOSHI_TANDEMS := $(addprefix $(JOSHI)/,finetune_joint.trained finetune_joint_frozen.trained)
JOSHI_FITS := $(JOSHI)/denoiser.trained $(JOSHI)/finetune_asr.trained $(JOSHI_TANDEMS)
JOSHI_TABLES := $(JOSHI)/table3.tested $(JOSHI)/table4.tested

.PHONY: demo joshi2022-an4 test test-long lint bench clean
# One thread a process: with two, recurrent layers slow down tenfold as soon as anything else runs on the machine.
demo: export OMP_NUM_THREADS = 1
demo: $(DEMO)/report/index.html
	@echo "The demo's runs are in $(DEMO); open $(DEMO)/report/index.html. To start over: rm -r $(DEMO)"

# Each step leaves a mark when it is complete, and goes on where it stopped when it was not.
$(DEMO)/%.trained: | .venv/.ready
	@echo "== training $*: recipes/quickstart/$*.yaml"
	$(BIN)/python train.py fit --config recipes/quickstart/$*.yaml --ckpt_path auto
	@touch $@

$(DEMO)/hardened.trained $(DEMO)/adversarial.trained: $(DEMO)/clean.trained

$(DEMO)/evaluation.tested: $(DEMO)/hardened.trained $(DEMO)/adversarial.trained
	@echo "== all three in rising noise and under attack: recipes/quickstart/evaluation.yaml"
	$(BIN)/python train.py test --config recipes/quickstart/evaluation.yaml
	@touch $@

$(DEMO)/report/index.html: $(DEMO)/evaluation.tested
	@echo "== the report"
	$(BIN)/python -m robust_asr.report $(DEMO)/evaluation --out $(DEMO)/report

# Two processes of one thread each, by the recipes; the baseline takes one.
joshi2022-an4: export OMP_NUM_THREADS = 1
joshi2022-an4: $(JOSHI)/report/index.html
	@echo "The chain's runs are in $(JOSHI); open $(JOSHI)/report/index.html. To start over: rm -r $(JOSHI)"

# Where the baseline is trained already this loads its last checkpoint and does nothing.
runs/an4/baseline.trained: | .venv/.ready data/an4/train.jsonl.gz
	@echo "== the baseline: recipes/an4/baseline.yaml"
	$(BIN)/python train.py fit --config recipes/an4/baseline.yaml --ckpt_path auto
	@touch $@

data/an4/train.jsonl.gz:
	@echo "$@ is missing. Prepare AN4: $(BIN)/python -m datamodules.prepare librispeech AN4_FOLDER data/an4 --hold-out-speakers 10"
	@false

$(JOSHI_SETS): $(JOSHI)/%.attacked: runs/an4/baseline.trained
	@echo "== attacking the training part: recipes/joshi2022/an4/$*.yaml"
	$(BIN)/python train.py predict --config recipes/joshi2022/an4/$*.yaml
	@touch $@

$(JOSHI_FITS): $(JOSHI)/%.trained: runs/an4/baseline.trained
	@echo "== training $*: recipes/joshi2022/an4/$*.yaml"
	$(BIN)/python train.py fit --config recipes/joshi2022/an4/$*.yaml --ckpt_path auto
	@touch $@

$(JOSHI_TABLES): $(JOSHI)/%.tested: $(JOSHI_FITS)
	@echo "== every system under attack: recipes/joshi2022/an4/$*.yaml"
	$(BIN)/python train.py test --config recipes/joshi2022/an4/$*.yaml
	@touch $@

$(JOSHI)/denoiser.trained: $(JOSHI_SETS)
$(JOSHI_TANDEMS): $(JOSHI)/denoiser.trained

$(JOSHI)/report/index.html: $(JOSHI_TABLES)
	@echo "== the report"
	$(BIN)/python -m robust_asr.report $(JOSHI)/table3 $(JOSHI)/table4 --out $(JOSHI)/report

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
	$(BIN)/python -m benchmarks.conformer
	$(BIN)/python -m benchmarks.adversarial_step
	$(BIN)/python -m benchmarks.ranks
	$(BIN)/python -m benchmarks.memory

# torch and torchaudio are pinned as a pair: any other build of either breaks `import torchaudio`.
.venv/.ready: constraints.txt setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed, found " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,beam,phones]'
	touch $@

clean:
	rm -rf .venv
