# The two commands of the README, and what they are made of. Scripts in tools/ do the work and say what is missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help demo test check lint types unit coverage bench fuzz soak format hooks lock clean

help:
	@echo 'make demo      install into .venv and run the scenario what-a-vpn-hides'
	@echo 'make test      install what the tests need (real peers by apt) and run them all; as root or through sudo'
	@echo 'make check     the part that needs no privilege: linters, types, tests without root'
	@echo 'make coverage  all tests, with branch coverage'
	@echo 'make bench     lab, run, tap and observer beside Mininet, tcpdump and tshark (BENCH=NAME); as root or through sudo'
	@echo 'make fuzz      feed ten million generated datagrams to the tunnel (DATAGRAMS=N SEED=TEXT)'
	@echo 'make soak      ten minutes of tunnels over bad links, then 10 GB, no octet lost (SECONDS=N OCTETS=N); as root or through sudo'
	@echo 'make format    let ruff rewrite the sources'
	@echo 'make hooks     run the checks before every commit'
	@echo 'make lock      resolve the dependencies again (UPGRADE=1: take newer versions)'
	@echo 'make clean     remove .venv and caches; runs/ stays'

demo:
	@tools/venv.sh run
	@tools/demo.sh

test:
	@tools/test.sh

coverage:
	@tools/test.sh --cov --cov-report=term-missing:skip-covered

bench:
	@tools/venv.sh test
	@.venv/bin/python -m tests.bench $(BENCH)

fuzz:
	@tools/fuzz.sh

soak:
	@SOAK_SECONDS=$(or $(SECONDS),600) SOAK_OCTETS=$(or $(OCTETS),10000000000) tools/soak.sh

check: lint types unit

lint:
	@tools/venv.sh test
	@. tools/common.sh; as_owner .venv/bin/ruff check .
	@. tools/common.sh; as_owner .venv/bin/ruff format --check .

types:
	@tools/venv.sh test
	@. tools/common.sh; as_owner .venv/bin/mypy

unit:
	@tools/venv.sh test
	@. tools/common.sh; as_owner .venv/bin/python -m pytest -m 'not root and not interop'

format:
	@tools/venv.sh test
	@. tools/common.sh; as_owner .venv/bin/ruff check --fix --select I .
	@. tools/common.sh; as_owner .venv/bin/ruff format .

hooks:
	@tools/venv.sh test
	@. tools/common.sh; as_owner .venv/bin/pre-commit install

lock:
	@tools/lock.sh

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
