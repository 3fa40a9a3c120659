# Each target sets its environment up first (.venv; quick when nothing changed).
#   PYTHON=python3.11    the interpreter for the environment
#   BAG=path             the recording for `make demo`
#   ROS_DOMAIN_ID=n      the DDS domain; a random one by default, apart from other ROS programs
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
RUN := $(VENV)/bin/python
# A file's tests stay together: they share what is made once.
PYTEST := $(RUN) -m pytest -q --numprocesses logical --maxprocesses 4 --dist loadfile

ifndef ROS_DOMAIN_ID
ROS_DOMAIN_ID := $(shell echo $$((1 + RANDOM % 100)))
endif
ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
export ROS_DOMAIN_ID ROS_AUTOMATIC_DISCOVERY_RANGE PYTHON

# Another environment with ROS wheels would lend this one its libraries.
ifdef _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH
endif

.PHONY: help setup check test test-all demo bench docs

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

setup:  ## make .venv with ROS 2 from PyPI, PyTorch and the tools
	@python=$$(scripts/find_python $(VENV)) && "$$python" scripts/setup_environment.py $(VENV)

check: setup  ## style, types, layers, generated files
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) scripts/generate_parameters.py --check
	$(RUN) -m pytest -q test/test_architecture.py

test: setup  ## every test but the slow ones
	$(PYTEST) -m "not slow"

test-all: setup  ## every test
	$(PYTEST)

demo: setup  ## simulator (or BAG=...) to depth pictures on real ROS 2
	$(VENV)/bin/dae-ros demo $(if $(BAG),--bag "$(BAG)")

bench: setup  ## measure decoding, windows, inference and the whole chain
	$(RUN) -m pip install --quiet --editable ".[bench]"
	$(RUN) -m benchmarks.run

docs: setup  ## regenerate config/*.yaml and docs/parameters.md, check the links
	$(RUN) scripts/generate_parameters.py
	$(RUN) scripts/check_links.py
