# Every target that people call has its line of help after two hashes.
SHELL := /bin/bash
.DEFAULT_GOAL := help
SEEDS ?= 100
MINUTES ?= 10
SEED ?= 1
PROCESSES ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: help demo demo-down setup test test-e2e test-kernels test-deploy test-kube test-torture torture deploy-setup bpf lint format sim bench fuzz audit lock docs clean

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r name text; do printf '%-20s %s\n' "$$name" "$$text"; done

demo: ## Start a three-node cluster here, use it, and leave it running
	@tools/setup.sh demo
	@.venv/bin/python tools/demo.py

demo-down: ## End the cluster of `make demo`; its data stays in .demo
	@tools/setup.sh demo
	@.venv/bin/raftctl dev down --dir .demo

setup: ## Install everything for development into .venv
	@tools/setup.sh dev

test: setup ## Check and test everything; prints what this machine could not run
	@.venv/bin/python tools/run_tests.py

test-e2e: setup ## Test what takes longer: torture, other kernels, whole machines, Kubernetes
	@for needs in kernels machines kube images torture; do tools/setup.sh $$needs || exit; done
	@.venv/bin/python tools/run_tests.py --long

test-kernels: setup ## Run the kernel's program on Debian's kernels 5.10, 6.1 and 6.12
	@tools/setup.sh kernels
	@.venv/bin/python -m pytest -m long tests/kernel/test_kernels.py tests/kernel/test_export_kernels.py

torture: setup ## Torture real agents and check all promises: make torture MINUTES=60 SEED=1 (root)
	@tools/setup.sh torture
	@.venv/bin/python -m tests.torture --minutes $(MINUTES) --seed $(SEED)

test-deploy: setup ## Have the playbooks of ansible/ set up and mend real Debian systems (root)
	@tools/setup.sh machines
	@.venv/bin/python -m pytest -m long tests/e2e/deploy

test-kube: setup ## Run the operator on a real Kubernetes: that of KUBECONFIG, or its own (root)
	@tools/setup.sh kube
	@tools/setup.sh images
	@.venv/bin/python -m pytest -m long tests/unit/kubernetes tests/e2e/test_containerfile.py tests/e2e/kube

test-torture: setup ## Test five minutes of torture, partial links and power failures (root)
	@tools/setup.sh kernels
	@tools/setup.sh torture
	@.venv/bin/python -m pytest -m long tests/torture

deploy-setup: ## Install what the playbooks of ansible/ need into .venv
	@tools/setup.sh deploy

bpf: ## Build the kernel's program anew (needs clang and libbpf's headers)
	@tools/setup.sh bpf
	@$(MAKE) -s --always-make -C bpf

lint: setup ## Style, types and import directions
	@.venv/bin/python tools/lint.py

format: setup ## Put the code into its form
	@.venv/bin/ruff check --quiet --fix-only . && .venv/bin/ruff format .
	@if command -v clang-format > /dev/null; then clang-format -i bpf/*.[ch]; fi

sim: setup ## Simulate clusters: make sim SEEDS=1000, or SEEDS=1000:2000
	@.venv/bin/python -m tests.sim.run --seeds $(SEEDS) --processes $(PROCESSES)

bench: setup ## Measure, compare with etcd and PySyncObj, and write docs/performance.md (40 minutes)
	@.venv/bin/python -m pip install --quiet --require-hashes -r requirements/bench.txt
	@.venv/bin/python -m benchmarks.compare --json build/compare.json
	@.venv/bin/python -m benchmarks.scale --json build/scale.json
	@.venv/bin/python -m benchmarks.report build/compare.json build/scale.json

fuzz: setup ## Fuzz the parsers of foreign bytes: make fuzz MINUTES=120, TARGET=frames for one
	@.venv/bin/python -m pip install --quiet --require-hashes -r requirements/fuzz.txt
	@.venv/bin/python -m tests.fuzz --minutes $(MINUTES) $(addprefix --target ,$(TARGET))

audit: ## Ask for known vulnerabilities of all that requirements/*.txt lock (needs the network)
	@tools/audit.sh

lock: ## Write requirements/*.txt anew: the newest versions that pyproject.toml allows
	@tools/lock.sh

docs: setup ## Write the generated pages of docs/, ansible/ and charts/ anew
	@.venv/bin/python -m tools.config_docs docs/configuration.md
	@.venv/bin/python -m tools.metrics_docs docs/metrics.md
	@.venv/bin/python -m tools.cli_docs docs/cli.md
	@.venv/bin/python -m tools.role_docs
	@.venv/bin/python -m tools.chart_files

clean: ## Remove .venv, caches and build output (not .demo)
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
