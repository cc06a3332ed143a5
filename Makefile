# ExpertFleet. `make help` lists the targets.
# Needs python >= 3.11, git and GNU make; everything else goes into .venv.

PYTHON      ?= python3
CLIENTS ?=
RUN_CONFIG  ?=
PYTEST_ARGS ?=
# Of `make simulate`, where nothing is installed yet: cpu, or cuda (4 GB more).
TORCH       ?= cpu

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
# Whoever has run `make install` has all that a simulation needs.
TRAINS  := $(or $(wildcard $(STAMP)),$(VENV)/.simulation-$(TORCH))
# A directory without a module in it would be an error to mypy.
SOURCES := $(foreach d,common server_app client_app expertfleet benchmarks docs examples tests,$(if $(shell find $(d) -name '*.py' -print -quit 2>/dev/null),$(d)))

PYTEST  := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# What the user gave may hold quotes and spaces: it reaches the recipe through the environment,
# where the shell does not read it a second time.
export CLIENTS RUN_CONFIG

# Images of containers often set it: then each of hundreds of processes compiles torch's modules,
# and its start takes half as long again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install simulate test test-all test-fleets test-links test-some-links test-others test-hard test-containers baselines mutants check format lock stubs docs clean distclean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Examples:"
	@echo "    make simulate"
	@echo "    make simulate RUN_CONFIG='strategy=\"random\" num-rounds=10' CLIENTS=50"
	@echo "    make test PYTEST_ARGS='tests/common -k metrics'"

install: $(STAMP) ## Create .venv and install the project and its tools

simulate: $(TRAINS) ## Train on this machine with `flwr run` (RUN_CONFIG, CLIENTS)
	@$(BIN)/python -m server_app flwr-run $(if $(CLIENTS),--clients="$$CLIENTS") --run-config="$$RUN_CONFIG"

test: $(STAMP) ## Run the tests, one real fleet among them (PYTEST_ARGS)
	$(PYTEST) -m "smoke or not (simulation or deployment or slow or containers or links)" $(PYTEST_ARGS)

test-all: $(STAMP) ## The same, every fleet and every simulation, two weak links (half an hour)
	$(MAKE) --jobs=3 --output-sync=target test-fleets test-some-links test-others

# Real fleets wait for each other's clocks: all others take what they leave of the machine.
test-fleets: $(STAMP)
	$(BIN)/python -m pytest -m deployment tests/deployment $(PYTEST_ARGS)

# They wait for their links more than for a processor.
test-links: $(STAMP) ## Real fleets behind weak links, all of them (20 minutes; needs root)
	$(BIN)/python -m pytest -m links -n 5 tests/links $(PYTEST_ARGS)

test-some-links: $(STAMP)
	$(BIN)/python -m pytest -m "links and not slow" -n 2 tests/links $(PYTEST_ARGS)

test-others: $(STAMP)
	nice -n 5 $(PYTEST) --hypothesis-profile=thorough -m "not deployment and not containers and not links" $(PYTEST_ARGS)

# Eight, since they sleep most of the time.
test-hard: $(STAMP) ## Fast tests, each by itself and on a machine that stalls (long)
	$(BIN)/python -m pytest -n 8 -p tests.hard_times -m "not (simulation or deployment or slow or containers or links)" $(PYTEST_ARGS)

test-containers: $(STAMP) ## Build the images and train in them (needs Docker; minutes)
	$(BIN)/python -m pytest -m containers -ra $(PYTEST_ARGS) tests/containers

baselines: $(STAMP) ## Train every baseline once with `flwr run` (ten minutes)
	$(BIN)/python -m tests.simulation.every_baseline

mutants: $(STAMP) ## Check that the suite notices faults made on purpose (minutes)
	$(BIN)/python -m tests.mutants

check: $(STAMP) ## Lint, format check, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports

format: $(STAMP) ## Rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(BIN)/uv ## Pin the newest allowed versions in constraints.txt
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --upgrade \
	  --python-version 3.11 --fork-strategy fewest --quiet \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  --generate-hashes --output-file constraints.txt

docs: $(STAMP) ## Write the documentation to site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "$$PWD/site/index.html (its search wants a server: python -m http.server --directory site)"

stubs: $(STAMP) ## Generate the gRPC stubs from their .proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. \
	  --grpc_python_out=. common/serving/inference.proto

clean: ## Remove caches and builds (results stay)
	rm -rf build dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(SOURCES) -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## The same, and the environment .venv
	rm -rf $(VENV)

# ------------------------------------------------------------------ bootstrap
$(STAMP): pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev,export,hf,loggers,own-data]'
	@touch $@

# torch for the CPU is built elsewhere than on the package index, and so has none of the
# hashes of constraints.txt; torch and torchvision have to come from one place.
$(VENV)/.simulation-cpu: pyproject.toml constraints.txt | $(BIN)/uv
	@echo "Installing into $(VENV) what a simulation needs, with torch for the CPU: 1.5 GB on the disk, 0.5 GB to download, a minute or so (TORCH=cuda for an NVIDIA GPU: 6 GB)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu \
	  $$(sed -n 's/^\(torch\(vision\)*==[^ ]*\) .*/\1/p' constraints.txt) 2>/dev/null || \
	  echo "torch for the CPU cannot be had from here: taking that of the package index, 6 GB on the disk and 3 GB to download where it is for CUDA"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[simulation]'
	@touch $@

$(VENV)/.simulation-cuda: pyproject.toml constraints.txt | $(BIN)/uv
	@echo "Installing into $(VENV) what a simulation needs, with torch for CUDA: 6 GB on the disk, 3 GB to download, minutes"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[simulation]'
	@touch $@

$(BIN)/uv: | $(BIN)/python
	@sed -n '/^uv==/,/[^\\]$$/p' constraints.txt > $(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r $(VENV)/uv.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
