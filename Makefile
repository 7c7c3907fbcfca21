.DEFAULT_GOAL := help
.PHONY: help venv demo check quick test lock clean
BIN := .venv/bin
ARGS ?=
# Two at a time: a platform that starts waits more than it works.
TWO = -n 2
# The system tests last: what is quick fails first.
TESTS = $(filter-out tests/system %/conftest.py %/__init__.py %/__pycache__,$(wildcard tests/*)) $(wildcard tests/system)

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: ## set up .venv: the pinned packages and Rebu itself (PYTHON=... names the interpreter)
	@scripts/venv.sh

demo: venv ## start Rebu, stream a simulated morning through it, show what came out (ARGS=--exit: then stop)
	@$(BIN)/rebu demo $(ARGS)

check: venv ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

quick: venv ## the tests that start nothing (ARGS go to pytest)
	$(BIN)/python -m pytest $(TWO) -m "not system" --ignore=tests/system $(ARGS)

test: check ## check, then every test (ARGS go to pytest)
	$(BIN)/python -m pytest $(TWO) $(TESTS) $(ARGS)

lock: ## write requirements.lock anew from pyproject.toml (ARGS=--upgrade: with the newest versions)
	@scripts/lock.sh $(ARGS)

clean: ## remove .venv, caches and build files
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find rebu_ray scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
