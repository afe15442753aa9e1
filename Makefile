# The default Python's environment is .venv; any other tested version's is
# .venv-VERSION. PYTHON=path chooses the default Python.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

ifneq ($(filter-out help clean distclean,$(or $(MAKECMDGOALS),help)),)
# Each is VENV|VERSION|INTERPRETER.
PYTHONS := $(shell PYTHON='$(PYTHON)' tools/find_python.sh 2>/dev/null | tr ' ' '|')
endif
field = $(word $(2),$(subst |, ,$(1)))
VERSION := $(call field,$(firstword $(PYTHONS)),2)
ENV := .venv/.env-$(VERSION)
BUILD := .venv/.build-$(VERSION)

BUILD_INPUTS := CMakeLists.txt pyproject.toml $(shell find cpp -type f)

.PHONY: help
help:
	@echo 'make demo         build, run a short benchmark and the example'
	@echo 'make test         lint, then all C++ and Python tests'
	@echo 'make build        make .venv and build the library in it'
	@echo 'make lint         ruff and mypy'
	@echo 'make format       format the Python code, and the C++ code if clang-format is found'
	@echo 'make test-cpp     C++ tests: plain, address and undefined, thread sanitizers'
	@echo 'make test-python  Python tests, on each Python found'
	@echo 'make bench        the whole benchmark'
	@echo 'make floor        what this machine can do at all, in bare C++'
	@echo 'make lock         update requirements/test.txt'
	@echo 'make clean        remove what was built'
	@echo 'make distclean    remove the environments too'

.PHONY: demo
demo: $(BUILD)
	.venv/bin/proclink bench --seconds 1
	.venv/bin/python examples/quickstart.py

.PHONY: test
test: lint test-cpp test-python

.PHONY: build
build: $(BUILD)

.PHONY: bench
bench: $(BUILD)
	.venv/bin/proclink bench

.PHONY: floor
floor: build/floor
	build/floor

build/floor: benchmarks/floor.cpp
	@mkdir -p build
	$(CXX) -std=c++20 -O2 -Wall -Wextra -o $@ $<

# ---- Environments -----------------------------------------------------------
# The stamps carry the version, so that a change of Python remakes .venv.

# $(1) environment, $(2) version, $(3) interpreter
define python_rules
$(1)/.env-$(2): requirements/test.txt
	$(3) -m venv --clear $(1)
	$(1)/bin/python -m pip install --quiet --no-deps --requirement $$<
	$(1)/bin/python -m pip check
	@touch $$@

$(1)/.build-$(2): $(1)/.env-$(2) $(BUILD_INPUTS)
	$(1)/bin/python -m pip install --no-build-isolation --no-deps --editable .
	@touch $$@

.PHONY: test-python-$(2)
test-python-$(2): $(1)/.build-$(2)
	@echo '== Python $(2)'
	$(1)/bin/python -m pytest $(PYTEST_ARGS)

TEST_PYTHON += test-python-$(2)
endef
$(foreach p,$(PYTHONS),$(eval $(call python_rules,$(call field,$(p),1),$(call field,$(p),2),$(call field,$(p),3))))

# Without a usable Python: says why, and fails.
.venv/.env-:
	@tools/find_python.sh

.venv/.build-: .venv/.env-

.PHONY: lock
lock: | $(if $(PYTHONS),,.venv/.env-)
	tools/lock.sh $(call field,$(firstword $(PYTHONS)),3)

# ---- Checks -----------------------------------------------------------------

.PHONY: lint
lint: $(ENV)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

.PHONY: format
format: $(ENV)
	.venv/bin/ruff check --fix-only --quiet
	.venv/bin/ruff format
	if command -v clang-format >/dev/null; then find cpp -name '*.[ch]pp' -exec clang-format -i {} +; fi

.PHONY: test-cpp test-cpp-plain test-cpp-asan test-cpp-tsan
test-cpp: test-cpp-plain test-cpp-asan test-cpp-tsan
test-cpp-plain: CMAKE_ARGS = -DCMAKE_BUILD_TYPE=Release
test-cpp-asan: CMAKE_ARGS = -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPROCLINK_SANITIZE=address,undefined
test-cpp-tsan: CMAKE_ARGS = -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPROCLINK_SANITIZE=thread
# GCC 12's thread sanitizer fails at start under strong address randomization.
test-cpp-tsan: RUN = $(shell setarch -R true 2>/dev/null && echo setarch -R)
test-cpp-plain test-cpp-asan test-cpp-tsan: $(ENV)
	@echo '== C++ tests: $(@:test-cpp-%=%)'
	.venv/bin/cmake -S . -B build/$@ -G Ninja -DCMAKE_MAKE_PROGRAM='$(CURDIR)/.venv/bin/ninja' \
	  -DPROCLINK_TESTS=ON -DPROCLINK_WERROR=ON $(CMAKE_ARGS) --log-level=WARNING
	.venv/bin/cmake --build build/$@
	$(RUN) .venv/bin/ctest --test-dir build/$@ --output-on-failure --no-tests=error

.PHONY: test-python
test-python: $(TEST_PYTHON) $(if $(PYTHONS),,.venv/.env-)
	@tools/find_python.sh >/dev/null

# ---- Cleaning ---------------------------------------------------------------

.PHONY: clean
clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .venv*/.build-*
	find src tests examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: distclean
distclean: clean
	rm -rf .venv .venv-3.*
