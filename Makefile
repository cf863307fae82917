# Everything a person or a machine does with this project. `make help` lists it.
# Needed beforehand: git, make, Python >= 3.11. The rest is installed into .venv and build/.

.DEFAULT_GOAL := help
.PHONY: help up test lint format docs bench lock setup clean
.SILENT:

BIN := .venv/bin
CODE := $(wildcard src tests bench docsite)
ARGS ?=
# Most tests wait for servers, so that three at once keep two cores busy. Files stay whole and in
# their order: each process has servers of its own, and bridges that files next to each other share.
AT_ONCE := --numprocesses 3 --dist loadfile --no-loadscope-reorder

help: ## Show this list
	@echo 'usage: make TARGET [ARGS="..."]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' Makefile

up: ## Run everything on this machine; ARGS="--port-offset 100", see ARGS=--help
	scripts/setup embedded
	exec $(BIN)/letta-matrix up $(ARGS)

test: ## Run all tests; ARGS="-k name" and the like go to pytest
	scripts/setup dev
	scripts/chromium
	scripts/heisenbridge
	$(BIN)/python -m pytest $(AT_ONCE) $(ARGS)

lint: ## Check style, types and the layers
	scripts/setup dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/pyright
	$(BIN)/lint-imports

format: ## Format the code and fix what can be fixed by itself
	scripts/setup dev
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

docs: ## Build the documentation into build/site, and check its links
	scripts/setup docs
	$(BIN)/python -m docsite
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: ## Measure; prints a table and writes build/bench.json
	scripts/setup dev
	$(BIN)/python -m bench $(ARGS)

lock: ## Compile requirements/*.txt afresh; ARGS=--upgrade takes newer versions
	scripts/lock $(ARGS)

setup: ## Install what all other targets need, for working on the code
	scripts/setup dev

clean: ## Remove what was installed and built
	rm -rf .venv build
