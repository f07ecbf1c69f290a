# Everything here works on a clean clone with make and Python 3.11 to 3.14. The rest is installed into .venv when it is
# needed. Choose the interpreter with: make PYTHON=/path/to/python3.12 test

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The tests start Python more than a thousand times. Without its cache it compiles the package each time.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?=
TORCH ?= torch==2.13.0
BIN := .venv/bin
PIP_INSTALL := python -m pip install --disable-pip-version-check -qq

# Prints the first argument that runs and is a Python between LOW and HIGH with venv. A pyenv shim can exist and still
# refuse to run, so each one is tried.
define FIND_PYTHON
find_python() { \
	local low=$$1 high=$$2; shift 2; \
	for candidate in "$$@"; do \
		if "$$candidate" -c "import ensurepip, sys, venv; sys.exit(not ($$low) <= sys.version_info[:2] <= ($$high))" \
			2>/dev/null; then echo "$$candidate"; return; fi; \
	done; \
	echo "No Python from ($$low) to ($$high) with the venv module was found among: $$*." \
		"Install one, or name it: make PYTHON=/path/to/python" >&2; \
	return 1; \
}
endef

.PHONY: help demo kernels test clients web test-slow test-web test-arm lint types docs dist golden bench pictures pebble pebble-eval clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r target what; do \
		printf '  make %-11s %s\n' "$$target" "$$what"; done

demo: .venv/.installed-demo ## ask the built-in model a spoken question; no download of weights
	$(BIN)/python examples/demo.py

kernels: .venv/.installed-dev ## our own products for this machine, with any C++ compiler (seconds)
	$(BIN)/python -m kernels.build

# Without a compiler, the tests of our own products skip.
test: .venv/.installed-dev ## the tests (13 to 50 minutes on two cores)
	-@$(BIN)/python -m kernels.build
	$(BIN)/python -m pytest -n 3 --dist worksteal

test-slow: .venv/.installed-dev ## what make test leaves out: tests that export once more or try a thousand things
	-@$(BIN)/python -m kernels.build
	$(BIN)/python -m pytest -n 3 --dist worksteal -m slow

# Their tests skip without. Resumes: only what is missing is made.
CLIENTS := $(basename $(notdir $(wildcard tests/clients/requirements/*.txt)))
clients: $(CLIENTS:%=.venv-clients/%/.installed) ## other people's clients and frameworks, for their tests (1 GB, a minute)

web: web/node_modules/.installed ## Node's packages of the runtime for browsers (200 MB)

web/node_modules/.installed: web/package.json web/package-lock.json
	cd web && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

test-web: .venv/.installed-dev web ## the runtime for browsers: in Node, and a talk in headless Chromium
	$(BIN)/python -m pytest tests/web

# The first command shows the progress. If it cannot make the userland, the tests skip and say why.
test-arm: .venv/.installed-dev ## the runtime's tests and Pebble on four ARM64 processors, emulated (6 to 12 minutes)
	-@$(BIN)/python -m tests.arm.userland
	$(BIN)/python -m pytest -m arm -n 2 --dist worksteal tests/arm

lint: .venv/.installed-dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev ## mypy, strict, over package, benchmarks, examples, recipe and kernels; pyright over calls of its public interface
	$(BIN)/mypy src/voxrill benchmarks examples pebble kernels
	$(BIN)/basedpyright --pythonpath $(BIN)/python

docs: .venv/.installed-docs ## the documentation site, into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

dist: .venv/.installed-dev ## build wheels and sdist, and prove that a device can install them
	rm -rf dist build/untested
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m kernels.wheels dist
	$(BIN)/python -m pytest -m packaging -s

golden: .venv-golden/.installed .venv-golden-lfm3/.installed ## make tests/golden/*.npz anew from liquid-audio and transformers
	.venv-golden/bin/python tests/golden/make_golden.py
	.venv-golden-lfm3/bin/python tests/golden/make_lfm3.py

# e.g. make bench BENCH="--only decode,prefill --threads 2"
BENCH ?=
bench: .venv/.installed-dev ## measure the true size beside llama.cpp, onnxruntime-genai and the reference (half an hour)
	@for environment in .venv-bench .venv-bench-genai .venv-golden; do \
		$(MAKE) --no-print-directory $$environment/.installed || echo "going on without $$environment" >&2; done
	$(BIN)/python -m benchmarks.run --llama .venv-bench/bin/python --genai .venv-bench-genai/bin/python \
		--reference .venv-golden/bin/python $(BENCH)

# The turn's times are drawn, so the machine should do nothing else. PulseAudio lends the talk its devices.
pictures: .venv/.installed-dev ## draw the pictures of the README and of docs/ anew (half a minute)
	$(BIN)/python -m benchmarks.pictures

pebble: .venv/.installed-dev ## train the small built-in model (hours; resumes; see pebble/README.md)
	$(BIN)/python pebble/recipe.py

# e.g. make pebble-eval BUNDLES=src/voxrill/pebble/bundle EVAL="--part hear --limit 50"
CACHE ?= build/pebble
BUNDLES ?= $(addprefix $(CACHE)/,float32 int8 int4)
EVAL ?=
pebble-eval: .venv/.installed-dev ## evaluate Pebble's bundles, the first as the reference (a quarter of an hour each)
	$(BIN)/python pebble/evaluate.py $(BUNDLES) --cache $(CACHE) --out $(CACHE)/evaluation.json $(EVAL)

clean: ## remove what was built; the environments stay
	rm -rf build build-demo dist devices/native *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find export runtime quantize devices kernels src tests benchmarks pebble -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.created:
	@$(FIND_PYTHON); \
	python=$$(find_python 3,11 3,14 $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3)); \
	echo "Making .venv with $$("$$python" --version)"; \
	"$$python" -m venv --clear .venv
	@touch $@

.venv/.installed-demo: .venv/.created pyproject.toml
	@echo "Installing voxrill[demo] into .venv"
	@$(BIN)/$(PIP_INSTALL) -e ".[demo]"
	@touch $@

# torch comes first and alone: so pip takes the build that its configuration prefers (CPU, if an index offers one), and no
# later package asks for another build. --group needs pip 25.1; Python 3.11 to 3.13 bring an older pip.
EXTRAS := export,quantize,hub,pebble,eval,demo,echo,serve,wake,npu,archive
.venv/.installed-dev: .venv/.created pyproject.toml
	@echo "Installing voxrill[$(EXTRAS)] and the dependency group dev into .venv"
	@$(BIN)/$(PIP_INSTALL) "pip>=25.1"
	@$(BIN)/$(PIP_INSTALL) "$(TORCH)"
	@$(BIN)/$(PIP_INSTALL) -e ".[$(EXTRAS)]" --group dev
	@touch .venv/.installed-demo $@

.venv/.installed-docs: .venv/.installed-dev
	@echo "Installing the dependency group docs into .venv"
	@$(BIN)/$(PIP_INSTALL) --group docs
	@touch $@

# A framework has an environment of its own, because their requirements clash. Our pip installs into it: one less to make.
.venv-clients/%/.installed: tests/clients/requirements/%.txt .venv/.created
	@echo "Making .venv-clients/$*"
	@$(BIN)/python -m venv --clear --without-pip .venv-clients/$*
	@$(BIN)/python -m pip --python .venv-clients/$* install --disable-pip-version-check -qq -r $<
	@touch $@

# The reference has an environment of its own: it needs Python 3.12 and packages older than ours.
.venv-golden/.installed:
	@$(FIND_PYTHON); \
	python=$$(find_python 3,12 3,12 $(or $(PYTHON),python3.12 $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python))); \
	echo "Making .venv-golden with $$("$$python" --version)"; \
	"$$python" -m venv --clear .venv-golden
	@.venv-golden/bin/$(PIP_INSTALL) torch==2.13.0 torchaudio transformers==4.57.6 accelerate einops librosa \
		sentencepiece safetensors soundfile tokenizers
	@.venv-golden/bin/$(PIP_INSTALL) --no-deps liquid-audio==1.3.0
	@touch $@

# LFM3 is in transformers from 5.x on; the exporter needs an older one.
.venv-golden-lfm3/.installed: .venv/.created
	@echo "Making .venv-golden-lfm3"
	@$(BIN)/python -m venv --clear .venv-golden-lfm3
	@.venv-golden-lfm3/bin/$(PIP_INSTALL) "$(TORCH)"
	@.venv-golden-lfm3/bin/$(PIP_INSTALL) transformers==5.24.0
	@touch $@

# llama.cpp is compiled here, so that it uses all features of this processor. It needs a C++ compiler and some minutes. AMX
# is off: its kernel crashes (at ldtilecfg) on virtual machines that list AMX among their features.
NO_AMX := -mno-amx-tile -mno-amx-int8 -mno-amx-bf16
.venv-bench/.installed: .venv/.created
	@echo "Making .venv-bench; llama.cpp is compiled, which takes about ten minutes"
	@$(BIN)/python -m venv --clear .venv-bench
	@.venv-bench/bin/$(PIP_INSTALL) numpy gguf cmake ninja
	@CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF '-DCMAKE_C_FLAGS=$(NO_AMX)' '-DCMAKE_CXX_FLAGS=$(NO_AMX)'" \
		.venv-bench/bin/$(PIP_INSTALL) \
		--no-cache-dir --no-binary llama-cpp-python llama-cpp-python==0.3.36
	@touch $@

# onnxruntime-genai's model builder wants a newer transformers than ours.
.venv-bench-genai/.installed: .venv/.created
	@echo "Making .venv-bench-genai"
	@$(BIN)/python -m venv --clear .venv-bench-genai
	@.venv-bench-genai/bin/$(PIP_INSTALL) "$(TORCH)"
	@.venv-bench-genai/bin/$(PIP_INSTALL) onnxruntime-genai==0.18.0 "transformers>=5.24,<6" onnx onnx-ir safetensors
	@touch $@

# Rockchip's toolkit needs packages older than ours (torch up to 2.4, which comes with CUDA: 5.6 GB in all). The command
# `voxrill npu-check BUNDLE --rknn .venv-rknn/bin/python` uses it.
.venv-rknn/.installed:
	@$(FIND_PYTHON); \
	python=$$(find_python 3,11 3,11 $(or $(PYTHON),python3.11 $(wildcard $(HOME)/.pyenv/versions/3.11*/bin/python))); \
	echo "Making .venv-rknn with $$("$$python" --version)"; \
	"$$python" -m venv --clear .venv-rknn
	@.venv-rknn/bin/$(PIP_INSTALL) rknn-toolkit2==2.5.0
	@touch $@
