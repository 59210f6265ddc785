# "make help" lists what there is. Nothing needs to be prepared: each target makes the virtual
# environment first if it is not there. Python 3.10 or later and make are all it takes.
#
# Without a GPU, the CPU build of PyTorch saves several GB: let pip find it in PyTorch's own index,
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
# (see https://pytorch.org/get-started/locally/). Any other pip setting works in the same way.

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV ?= .venv
EXTRAS ?= cpu,export,serve,dev,docs
WORKERS ?= 2
PYTEST_ARGS ?=
PYTHON ?= $(shell for python in python3.11 python3 python3.14 python3.13 python3.12 python3.10; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	&& { echo "$$python"; break; }; done)

BENCHMARKS := startup cpu cpu_backends overhead host_side fusion_forms precision
comma := ,
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(subst $(comma),-,$(EXTRAS))
BINDINGS := $(VENV)/tensorrt/.ready
ORACLE := $(VENV)/oracle/.ready
ENVIRONMENTS := tritonserver tritonclient kserve
RAY := $(VENV)/ray
RAY_READY := $(RAY)/.ready

# One thread for each test process, and none that spins while it waits: the machine is shared.
QUIET := OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1

# The Python for the tests on a GPU: an image's own will do if it has numpy, pytest and cuda-bindings.
GPU_PYTHON ?= $(BIN)/python

# Targets with a description are commands, not files.
.PHONY: $(shell awk -F: '/^[a-z-]*:.*\043\043 / { print $$1 }' $(firstword $(MAKEFILE_LIST)))

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) \
		| awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

install: $(READY) ## Make .venv and install the package into it (editable, pinned versions)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.10 or later found." \
		"Install one, or name it: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) comes without" \
		"the venv module. Install it (Debian, Ubuntu: apt install python3-venv), or name another" \
		"Python: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(READY): setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV): a minute, or several on a slow line (PyTorch is large)."
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet \
		-c constraints.txt --config-settings editable_mode=compat -e '.[$(EXTRAS)]'
	@touch $@

# TensorRT's Python bindings (1 MB each, no TensorRT and no GPU in them), which tests compare with.
# 8.6.1 has wheels up to Python 3.11.
$(BINDINGS): | $(READY)
	@echo "Installing the bindings of TensorRT 8.6, 10.16 and 11.4 into $(VENV)/tensorrt."
	@install() { $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps \
		--upgrade --target "$(VENV)/tensorrt/$$2" "$$1==$$2"; }; \
		install tensorrt_cu12_bindings 10.16.1.11 && install tensorrt_cu13_bindings 11.4.0.106 \
		&& { $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' \
			|| install tensorrt_bindings 8.6.1; }
	@touch $@

# A real Triton server, and clients whose messages cannot live in one process with each other's.
# Wheels for Linux on x86-64, Python 3.11 or 3.12.
$(ORACLE): $(ENVIRONMENTS:%=tests/conformance/%.txt) | $(BIN)/python
	@echo "Installing a Triton server and clients into $(VENV)/oracle: two minutes, 1.1 GB."
	@set -e; for name in $(ENVIRONMENTS); do home="$(VENV)/oracle/$$name"; \
		rm -rf "$$home"; $(BIN)/python -m venv "$$home"; \
		"$$home/bin/python" -m pip install --disable-pip-version-check --quiet \
			-r "tests/conformance/$$name.txt"; done
	@$(VENV)/oracle/tritonserver/bin/python -m pip install --disable-pip-version-check --quiet \
		--no-deps --config-settings editable_mode=compat -e .
	@touch $@

# Ray Serve in an environment of its own: it needs an older protobuf than the rest is tested with.
$(RAY_READY): setup.cfg pyproject.toml constraints-ray.txt | $(BIN)/python
	@echo "Installing Ray Serve into $(RAY): half a minute, and 700 MB."
	@$(BIN)/python -m venv $(RAY)
	@$(RAY)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints-ray.txt \
		--config-settings editable_mode=compat -e '.[cpu,serve,ray]' \
		onnx pytest 'tritonclient[grpc,http]'
	@$(RAY)/bin/python -m pip check
	@touch $@

ray: $(RAY_READY) ## Make .venv/ray, for parnet-deploy serve --ray

demo: $(READY) ## A trained network from checkpoint to answers, in about a minute
	$(BIN)/parnet-deploy demo

test: $(READY) ## Run the tests, but for the slow ones
	$(QUIET) $(BIN)/python -m pytest -n $(WORKERS) \
		-m "not slow and not conformance and not chaos" $(PYTEST_ARGS)

test-all: $(READY) $(BINDINGS) ## Run all tests, but for those that need a real Triton
	$(QUIET) $(BIN)/python -m pytest -n $(WORKERS) \
		-m "not conformance and not chaos" $(PYTEST_ARGS)

oracle: $(ORACLE) ## Install a real Triton server and the clients of others (.venv/oracle)

conformance: $(READY) $(ORACLE) ## The clients of others against a real Triton, and against our server
	$(QUIET) PARNET_REQUIRE_ORACLE=1 PARNET_ORACLE=$(abspath $(VENV)/oracle) \
		$(BIN)/python -m pytest -m conformance $(PYTEST_ARGS) tests/conformance

gpu-fixtures: $(READY) ## Make what the GPU tests cannot make without PyTorch (tests/gpu/prepared)
	$(QUIET) $(BIN)/python -m tests.gpu.prepare

test-ray: $(RAY_READY) ## Run the tests on a local Ray cluster of two nodes
	$(QUIET) $(RAY)/bin/python -m pytest -m ray $(PYTEST_ARGS) tests/serve/ray

test-gpu: ## Run the tests that need a GPU; none may be skipped for want of one (GPU_PYTHON=...)
	PARNET_REQUIRE_GPU=1 $(GPU_PYTHON) -m pytest -m "gpu or tensorrt" $(PYTEST_ARGS) tests/gpu

test-page: $(READY) ## Run the tests of the page; those in a browser may not be skipped (Chromium)
	PARNET_REQUIRE_BROWSER=1 $(BIN)/python -m pytest $(PYTEST_ARGS) tests/serve/page

test-embed: $(READY) ## Build and run the programs in C and C++; none may be skipped for want of a compiler
	$(QUIET) PARNET_REQUIRE_COMPILER=1 $(BIN)/python -m pytest $(PYTEST_ARGS) tests/capi tests/examples

overload: $(READY) ## Serve 200 clients with a queue of 64 for OVERLOAD_SECONDS (30); nothing else may run
	$(QUIET) $(BIN)/python -m tests.serve.load.overload

soak: $(READY) ## Everything at once, with random faults, for SOAK_MINUTES (60): nothing lost, no growth
	$(QUIET) $(BIN)/python -m tests.soak.soak

chaos-runs: $(READY) ## Call simulated devices CHAOS_RUNS (1000000) times in random worlds, each answer compared
	$(QUIET) $(BIN)/python -m tests.chaos.runs $(CHAOS_ARGS)

fuzz: $(READY) ## Send malformed requests to a real server, FUZZ_EXAMPLES (3000) for each test
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-3000} $(QUIET) $(BIN)/python -m pytest $(PYTEST_ARGS) tests/serve/fuzz

chaos: $(READY) chaos-runs ## Faults in their long forms: chaos-runs, CHAOS_KILLS (500) random kills, a kill at every step
	$(QUIET) $(BIN)/python -m tests.chaos.kills
	$(QUIET) $(BIN)/python -m pytest -n $(WORKERS) -m chaos $(PYTEST_ARGS) tests/chaos

lint: $(READY) ## Style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

PROTOCOL := parnet_deploy/serve/protocol
proto: $(READY) ## Compile open_inference.proto after a change
	$(BIN)/python -m grpc_tools.protoc -I$(PROTOCOL) \
		--descriptor_set_out=$(PROTOCOL)/open_inference.binpb open_inference.proto

docs: $(READY) ## Build the documentation into docs/_build/html (docs/_build/html/index.html)
	$(BIN)/python -m sphinx -E -a -W --keep-going -n -q -j auto -d docs/_build/doctrees docs docs/_build/html

build: $(READY) ## Build the wheel and the source distribution into dist/
	rm -rf build dist
	@mkdir -p dist; $(BIN)/python -m build --outdir dist --no-isolation > dist/build.log 2>&1 \
		|| { cat dist/build.log; exit 1; }
	@ls dist
	rm -rf build

sbom: $(READY) ## Write what the package is made of, as installed here: dist/sbom.cdx.json (CycloneDX)
	@mkdir -p dist
	$(BIN)/python tools/sbom.py dist/sbom.cdx.json

check: export PARNET_REQUIRE_STUBS := 1
check: export PARNET_REQUIRE_COMPILER := 1
check: export PARNET_REQUIRE_BACKENDS := 1
check: lint test-all docs build ## What every change must pass; CI runs conformance and test-ray too

bench: $(READY) ## Measure everything in benchmarks/ on ParNet-S (minutes; nothing else may run)
	@set -e; for name in $(BENCHMARKS); do \
		echo "== benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py; done

clean: ## Remove what the tools made; keeps engines/ and .venv
	rm -rf build dist docs/_build htmlcov .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache *.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print | xargs rm -rf
