# make demo   micro-world -> base weights -> stage 1 -> stage 2 -> report
# make serve  the micro reference behind HTTP, with a page to try it on
# make test   the quick test suite
# make base   trains the committed base weights again: hours on two cores
# make reference   the same for the reference model and its baseline
# Each sets up .venv first. PYTHON names another interpreter (3.11 or newer).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# Numbers of the full-length run, shown beside the demo's.
REFERENCE_DIR := locvlm_jax/assets/micro_reference
REFERENCE := $(wildcard $(REFERENCE_DIR)/results.json)
export JAX_PLATFORMS ?=

.PHONY: help demo serve base reference test test-slow test-acceptance \
  test-parity lint clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# Python compiles what it imports; to compile all 12,000 files takes 45 s.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'error: Python 3.11 or newer is needed; set PYTHON=...'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-compile -r requirements.txt -e .
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m locvlm_jax.microworld --out runs/microworld \
	  --train 6000 --val 500 --videos 8
	$(BIN)/python -m locvlm_jax.reproduce --config configs/micro.py:demo \
	  --stages stage1,stage2,course@stage2,course@stage1 --jobs 2 \
	  --workdir runs/demo $(if $(REFERENCE),--reference $(REFERENCE))
	@echo 'open runs/demo/report.html'

serve: $(READY)
	$(BIN)/python -m locvlm_jax.serve $(if $(PORT),--port $(PORT))

BASE_WORLD := runs/microworld_base
TRAIN := $(BIN)/python -m locvlm_jax.train
CONVERT := $(BIN)/python -m locvlm_jax.convert

$(BASE_WORLD)/microworld.json: | $(READY)
	$(BIN)/python -m locvlm_jax.microworld --out $(BASE_WORLD) \
	  --train 40000 --val 500 --videos 8 --portraits 40000

base: $(READY) $(BASE_WORLD)/microworld.json
	$(TRAIN) --config=configs/micro.py:portraits --workdir=runs/portraits \
	  --config.root=$(BASE_WORLD)
	$(TRAIN) --config=configs/micro.py:scenes --workdir=runs/scenes \
	  --config.root=$(BASE_WORLD) --config.init.checkpoint=runs/portraits
	$(CONVERT) --input runs/scenes --output runs/scenes_hf
	$(TRAIN) --config=configs/micro.py:captions --workdir=runs/captions \
	  --config.root=$(BASE_WORLD) --config.init.vision=runs/scenes_hf
	$(TRAIN) --config=configs/micro.py:lookups --workdir=runs/lookups \
	  --config.root=$(BASE_WORLD) --config.init.checkpoint=runs/captions
	$(TRAIN) --config=configs/micro.py:base --workdir=runs/base \
	  --config.root=$(BASE_WORLD) --config.init.checkpoint=runs/lookups
	$(CONVERT) --input runs/base --output locvlm_jax/assets/micro_base

# The baseline first: the page shows the last stage.
REFERENCE_STAGES := stage1,reference_baseline,refine_baseline@reference_baseline,reference,refine@reference

reference: $(READY) $(BASE_WORLD)/microworld.json
	$(BIN)/python -m locvlm_jax.reproduce --config configs/micro.py \
	  --workdir runs/reference --stages $(REFERENCE_STAGES) --jobs 2 \
	  --config.root=$(BASE_WORLD)
	$(CONVERT) --input runs/reference/refine@reference --output $(REFERENCE_DIR)
	cp runs/reference/results.json $(REFERENCE_DIR)/

test: $(READY)
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal \
	  -m 'not slow and not parity and not acceptance'

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m slow

# What a run has to survive; writes the table in tests/README.md.
test-acceptance: $(READY)
	$(BIN)/python tests/acceptance/run.py

# Against transformers and peft on PyTorch, which `requirements.txt` does not
# install; the test of lmms-eval skips, since that wants its own environment.
test-parity: $(READY)
	$(BIN)/python -m pip install --quiet torch peft
	$(BIN)/python -m pytest -q -m parity

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf runs $(VENV)
