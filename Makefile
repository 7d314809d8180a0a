# Every target but `lock`, `clean` and `help` first makes the checkout ready; that takes no time where it is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: setup python demo test test-all check bench wheel lock clean help

bin := .venv/bin
packages := libs services
code := $(packages) tests bench examples
# Most tests wait for processes and guests: three at a time keep two cores busy. Each has a broker and database of its own.
spread := -n 3 --dist loadfile --no-loadscope-reorder

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 12

setup: ## install what is missing: Debian packages and .venv
	@tools/setup

python:
	@tools/setup --python-only

demo: setup ## one real build, end to end
	@exec $(bin)/leveret demo

test: setup ## the tests but the slow ones
	@exec $(bin)/pytest -m "not slow" $(spread) $(ARGS)

test-all: setup ## every test
	@exec $(bin)/pytest $(spread) $(ARGS)

check: python ## style, types, layers, freshness of generated documents; needs no Debian packages
	@set -e; for step in \
	  "ruff check $(code)" \
	  "ruff format --check $(code)" \
	  "mypy" \
	  "lint-imports" \
	  "python -m leveret_proto.asyncapi --check docs/asyncapi.yaml" \
	  "python -m leveret_proto.manifest.schema --check docs/manifest.schema.json" \
	  "python -m leveret_proto.definitions --check deploy/rabbitmq/definitions.json" \
	  "python tools/configuration-page --check docs/configuration.md"; \
	do echo "check: $$step"; $(bin)/$$step; done

bench: setup ## every promise of SPECIFICATION.md with its measured figure (ARGS: names of measures)
	@exec $(bin)/python -m bench $(ARGS)

wheel: python ## build the wheel into dist/
	@$(bin)/python -m hatchling build -t wheel

lock: ## resolve requirements.lock and bench/peers/peers.lock anew; needs uv
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-header --extra up --extra test --extra dev pyproject.toml -o requirements.lock
	cd bench/peers && uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --no-header peers.in -o peers.lock

clean: ## remove everything that was made in the checkout
	rm -rf .venv bench/.peers dist demo-artifacts .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(packages) tests bench examples -name __pycache__ -prune -exec rm -rf {} +
