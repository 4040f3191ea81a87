PYTHON ?= python3
BIN := .venv/bin
# What the pins of constraints.txt were tested with, the newest first; setup.cfg says the same.
PYTHONS := 3.13 3.12 3.11
DEMO := runs/quickstart

.PHONY: demo joshi2022-an4 joshi2022-an4-conformer test test-long test-hf test-python lint bench clean
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

$(DEMO)/standard.tested: $(DEMO)/evaluation.tested
	@echo "== all three under the standard evaluation: recipes/quickstart/standard.yaml"
	$(BIN)/python train.py test --config recipes/quickstart/standard.yaml
	@touch $@

$(DEMO)/report/index.html: $(DEMO)/standard.tested
	@echo "== the report"
	$(BIN)/python -m robust_asr.report $(DEMO)/evaluation $(DEMO)/standard --out $(DEMO)/report

# Where these are trained already this loads the last checkpoint and does nothing.
runs/an4/baseline.trained runs/an4/conformer_lfmmi.trained: runs/an4/%.trained: | .venv/.ready data/an4/train.jsonl.gz
	@echo "== the recogniser to attack: recipes/an4/$*.yaml"
	$(BIN)/python train.py fit --config recipes/an4/$*.yaml --ckpt_path auto
	@touch $@

data/an4/train.jsonl.gz:
	@echo "$@ is missing. Prepare AN4: $(BIN)/python -m datamodules.prepare librispeech AN4_FOLDER data/an4 --hold-out-speakers 10"
	@false

# The chain of Joshi et al. 2022. A stage is runs/joshi2022/SCALE/RECIPE; SCALE is a file of configs/scale. Two processes of one thread
# each, by the recipes; the recogniser that a chain begins with takes one.
STAGE = $(BIN)/python train.py $(1) --config recipes/joshi2022/$(notdir $*).yaml --values configs/scale/$(patsubst %/,%,$(dir $*)).yaml

runs/joshi2022/%.attacked:
	@echo "== attacking the training part: $*"
	$(call STAGE,predict)
	@touch $@

runs/joshi2022/%.trained:
	@echo "== training $*"
	$(call STAGE,fit) --ckpt_path auto
	@touch $@

runs/joshi2022/%.tested:
	@echo "== every system under attack: $*"
	$(call STAGE,test)
	@touch $@

# What each stage waits for: $(1) is the scale, $(2) the recogniser that the chain begins with.
define JOSHI
$(addprefix runs/joshi2022/$(1)/,offline_attacks.attacked offline_attacks_targeted.attacked finetune_asr.trained finetune_mixture.trained): \
  runs/an4/$(2).trained
runs/joshi2022/$(1)/denoiser.trained: $(addprefix runs/joshi2022/$(1)/,offline_attacks.attacked offline_attacks_targeted.attacked)
$(addprefix runs/joshi2022/$(1)/,finetune_joint.trained finetune_joint_frozen.trained): runs/joshi2022/$(1)/denoiser.trained
$(addprefix runs/joshi2022/$(1)/,standard.tested table3.tested table4.tested): \
  $(addprefix runs/joshi2022/$(1)/,denoiser.trained finetune_asr.trained finetune_joint.trained finetune_joint_frozen.trained)
runs/joshi2022/$(1)/standard.tested: runs/joshi2022/$(1)/finetune_mixture.trained

runs/joshi2022/$(1)/report/index.html: $(addprefix runs/joshi2022/$(1)/,standard.tested table3.tested table4.tested)
	@echo "== the report"
	$(BIN)/python -m robust_asr.report $$(basename $$^) --out $$(@D)
endef

$(eval $(call JOSHI,an4,baseline))
$(eval $(call JOSHI,an4_conformer,conformer_lfmmi))

joshi2022-an4 joshi2022-an4-conformer: export OMP_NUM_THREADS = 1
joshi2022-an4: runs/joshi2022/an4/report/index.html
joshi2022-an4-conformer: runs/joshi2022/an4_conformer/report/index.html
joshi2022-an4 joshi2022-an4-conformer:
	@echo "The chain's runs are in $(<D:/report=); open $<. To start over: rm -r $(<D:/report=)"

# Two files at a time: most tests compute on one thread.
test: .venv/.ready
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

test-long: .venv/.ready test-hf
	$(BIN)/python -m pytest -m "long or not long" --timeout=7200

# The extra [hf], in a virtual environment that is thrown away: torchmetrics imports transformers wherever it is installed, which slows
# down every start.
test-hf:
	@$(FIND_PYTHON); folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$$python -m venv "$$folder" && \
	"$$folder/bin/python" -m pip install $(subst phones,phones$(COMMA)hf,$(INSTALL)) && \
	"$$folder/bin/python" -m pytest -x --numprocesses=2 --dist=loadfile -k "whisper or hf_ctc or audit" tests/robust_asr

# make test-python PYTHON=python3.12: the install, the demo's recipes for a step and a short suite (the battery for two recognisers), in
# a virtual environment that is thrown away.
SHORT := tests/robust_asr/test_contract.py tests/robust_asr/test_checkpoint.py tests/lightning_modules/test_evaluation.py \
  -k "not test_contract or compact or rnnt"
test-python:
	@$(FIND_PYTHON); folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	echo "== $$python, $$version: install, demo, short suite" && \
	$$python -m venv "$$folder" && \
	"$$folder/bin/python" -m pip install $(INSTALL) && \
	"$$folder/bin/python" -m pytest -x tests/test_recipes.py -k quickstart && \
	"$$folder/bin/python" -m pytest -x --numprocesses=2 --dist=loadfile $(SHORT)

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/.ready
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.loading
	$(BIN)/python -m benchmarks.cost
	$(BIN)/python -m benchmarks.conformer
	$(BIN)/python -m benchmarks.denoiser
	$(BIN)/python -m benchmarks.adversarial_step
	$(BIN)/python -m benchmarks.ranks
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.coverage

# torch and torchaudio are pinned as a pair: any other build of either breaks `import torchaudio`.
INSTALL := --quiet --constraint constraints.txt --editable '.[test,phones]'

# Sets $python and $version. A PYTHON that is given is taken or refused; else the newest that is accepted stands in for python3.
define FIND_PYTHON
first=; for python in $(PYTHON) $(if $(filter file,$(origin PYTHON)),$(PYTHONS:%=python%)); do \
	version=$$($$python -c 'import platform; print(platform.python_version())' 2> /dev/null || echo missing); \
	first=$${first:-$$version}; \
	case "$$version" in $(subst $(SPACE),|,$(PYTHONS:%=%.*))) break;; esac; \
	python=; \
done; \
if [ -z "$$python" ]; then \
	echo "$(PYTHON) is $$first, accepted is Python $(subst $(SPACE),$(COMMA) ,$(PYTHONS)): install one or name it, make PYTHON=PATH"; \
	exit 1; \
fi; \
if [ "$$python" != "$(PYTHON)" ]; then echo "$(PYTHON) is $$first, using $$python, which is $$version"; fi
endef
COMMA := ,
EMPTY :=
SPACE := $(EMPTY) $(EMPTY)

.venv/.ready: constraints.txt setup.cfg
	@$(FIND_PYTHON); $$python -m venv .venv
	$(BIN)/python -m pip install $(INSTALL)
	touch $@

clean:
	rm -rf .venv
