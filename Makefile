# The default Python's environment is .venv; any other tested version's is
# .venv-VERSION. PYTHON=path chooses the default Python.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
# Tests disturb each other's times; only what `prepare` builds is built side by side.
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export UV_PYTHON_DOWNLOADS := never
export UV_SYSTEM_CERTS := 1
# The tests start hundreds of processes, and without bytecode each compiles everything again.
unexport PYTHONDONTWRITEBYTECODE

ifneq ($(filter-out help clean distclean,$(or $(MAKECMDGOALS),help)),)
# Each is VENV|VERSION|INTERPRETER.
PYTHONS := $(shell PYTHON='$(PYTHON)' tools/find_python.sh 2>/dev/null | tr ' ' '|')
endif
field = $(word $(2),$(subst |, ,$(1)))
VERSION := $(call field,$(firstword $(PYTHONS)),2)
VERSIONS := $(sort $(foreach p,$(PYTHONS),$(call field,$(p),2)))
ENV := .venv/.env-$(VERSION)
BUILD := .venv/.build-$(VERSION)

BUILD_INPUTS := CMakeLists.txt pyproject.toml $(shell find cpp -type f)
UV := .venv-uv/bin/uv
FLAVOURS := plain asan tsan
# More workers than cores: many tests wait.
WORKERS := 6
RUNS := 10

.PHONY: help
help:
	@echo 'make demo         build, run a short benchmark and the example'
	@echo 'make test         lint, C++ tests, Python tests: each case once a transport, fewer on the middle Python'
	@echo 'make test-full    the same with every combination of cases, before a release'
	@echo 'make build        make .venv and build the library in it'
	@echo 'make lint         ruff and mypy'
	@echo 'make format       format the Python code, and the C++ code if clang-format is found'
	@echo 'make test-cpp     C++ tests: plain, address and undefined, thread sanitizers'
	@echo 'make test-python  Python tests, on each Python found; CASES=all, rotated or smoke'
	@echo 'make soak         Python tests RUNS=10 times in a row, and as often beside four busy loops'
	@echo 'make bench        the whole benchmark'
	@echo 'make floor        what this machine can do at all, in bare C++'
	@echo 'make lock         update requirements/'
	@echo 'make clean        remove what was built'
	@echo 'make distclean    remove the environments too'

.PHONY: demo
demo: $(BUILD)
	.venv/bin/proclink bench --seconds 1
	.venv/bin/python examples/quickstart.py

# Each stage is timed.
.PHONY: test test-full
test-full: export CASES := all
test test-full: | $(if $(PYTHONS),,.venv/.env-)
	+@tools/stages.sh '$(MAKE)' prepare lint $(FLAVOURS:%=test-cpp-%) $(TEST_PYTHON)

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

.venv-uv/.env: requirements/uv.txt
	$(call field,$(firstword $(PYTHONS)),3) -m venv --clear .venv-uv
	.venv-uv/bin/python -m pip install --quiet --no-deps --requirement $<
	@touch $@

# What holds on the oldest and on the newest version holds on those between.
cases = $(if $(filter $(1),$(firstword $(VERSIONS)) $(lastword $(VERSIONS))),rotated,smoke)

# $(1) environment, $(2) version, $(3) interpreter
define python_rules
$(1)/.env-$(2): requirements/test.txt .venv-uv/.env
	$(UV) venv --quiet --clear --no-project --python $(3) $(1)
	$(UV) pip install --quiet --python $(1) --no-deps --compile-bytecode --requirement $$<
	$(UV) pip check --quiet --python $(1)
	@touch $$@

$(1)/.build-$(2): $(1)/.env-$(2) $(BUILD_INPUTS)
	env -u MAKEFLAGS $(UV) pip install --quiet --python $(1) --no-build-isolation --no-deps \
	  --reinstall-package proclink --editable .
	@touch $$@

.PHONY: test-python-$(2)
test-python-$(2): $(1)/.build-$(2)
	$(1)/bin/python -m pytest --numprocesses $(WORKERS) --cases $$(or $$(CASES),$(call cases,$(2))) $(PYTEST_ARGS)

TEST_PYTHON += test-python-$(2)
BUILDS += $(1)/.build-$(2)
endef
$(foreach p,$(PYTHONS),$(eval $(call python_rules,$(call field,$(p),1),$(call field,$(p),2),$(call field,$(p),3))))

# Twice as many builds at once as there are cores, each with as many compilers as there are: every
# build has parts that only one compiler can do, and on a busy machine more of them get more of it.
.PHONY: prepare prepared
prepare: | $(if $(PYTHONS),,.venv/.env-)
	+@$(MAKE) --no-print-directory SIDE_BY_SIDE=1 --jobs $$((2 * $$(nproc))) --output-sync=target prepared
prepared: $(BUILDS) $(FLAVOURS:%=build-cpp-%)

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

.PHONY: test-cpp $(FLAVOURS:%=build-cpp-%) $(FLAVOURS:%=test-cpp-%)
test-cpp: $(FLAVOURS:%=test-cpp-%)
# What is quick to build: lines in a stack are enough, linking at once is for the library, and the
# address sanitizer's checks take the compiler twice as long to optimize as to write down.
cpp = -DCMAKE_BUILD_TYPE=RelWithDebInfo '-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=$(1) -g1 -DNDEBUG'
build-cpp-plain: CMAKE_ARGS = $(call cpp,-O2)
build-cpp-asan: CMAKE_ARGS = $(call cpp,-O0) -DPROCLINK_SANITIZE=address,undefined
build-cpp-tsan: CMAKE_ARGS = $(call cpp,-O1) -DPROCLINK_SANITIZE=thread
# GCC 12's thread sanitizer fails at start under strong address randomization.
test-cpp-tsan: RUN = $(shell setarch -R true 2>/dev/null && echo setarch -R)

$(FLAVOURS:%=build-cpp-%): build-cpp-%: $(ENV)
	.venv/bin/cmake -S . -B build/cpp-$* -G Ninja -DCMAKE_MAKE_PROGRAM='$(CURDIR)/.venv/bin/ninja' \
	  -DPROCLINK_TESTS=ON -DPROCLINK_WERROR=ON $(CMAKE_ARGS) --log-level=WARNING
	env -u MAKEFLAGS .venv/bin/cmake --build build/cpp-$* --parallel $$(nproc)

$(FLAVOURS:%=test-cpp-%): test-cpp-%: build-cpp-%
	$(RUN) .venv/bin/ctest --test-dir build/cpp-$* --parallel $(WORKERS) --output-on-failure \
	  --no-tests=error

.PHONY: test-python
test-python: $(TEST_PYTHON) $(if $(PYTHONS),,.venv/.env-)
	@tools/find_python.sh >/dev/null

.PHONY: soak
soak: $(BUILD)
	tools/soak.sh $(RUNS) .venv/bin/python -m pytest --quiet --numprocesses $(WORKERS) $(PYTEST_ARGS)

# ---- Cleaning ---------------------------------------------------------------

.PHONY: clean
clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .venv*/.build-*
	find src tests examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: distclean
distclean: clean
	rm -rf .venv .venv-*
