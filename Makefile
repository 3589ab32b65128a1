# Everything a user or developer does, with nothing installed but Python 3.11 or later, make and a network for pip.
#
#   make bench       set up, and print what a system call costs on the bare machine and under trap-and-emulate
#   make test        set up, check style and types, run all tests
#   make conformance a million random instructions on our core and on Unicorn (SEED=n for others), then the real systems
#   make conformance-real  SeaBIOS, GRUB (under VMMs too), memtest86+ and Linux, from Debian's packages (ARGUMENTS='--only linux')
#   make conformance-x87  a million x87 instructions on our core and on the host's x87
#   make conformance-system  100 000 generated system cases against Bochs and QEMU where they are installed
#   make conformance-unix  every program of the Unix-like kernel under every VMM, in lock step with the bare machine
#   make conformance-bios  what our BIOS answers, beside SeaBIOS and Bochs's BIOS where they are installed
#   make conformance-vmm  every VMM against the bare machine: random kernels, every sensitive case (SEED=n, ARGUMENTS='--kernels 1000')
#   make conformance-paravirtual  random hypercalls of memory against a model of the rules (SEED=n, ARGUMENTS='--sequences 5000')
#   make conformance-boots  boots from firmware under every VMM, recorded and replayed on the bare machine (ARGUMENTS='--only timer')
#   make fuzz        run hostile guests for minutes; `make fuzz SEED=7 SEEDS=20`
#   make fuzz-domains  kernels that ask a paravirtual VMM for anything; `make fuzz-domains SEED=7 KERNELS=20000`
#   make fuzz-guests  guests of VMX and SVM with any VMCS and VMCB, bounds checks on
#   make speed       measure the emulator itself
#   make bench-speed the same guest on this emulator and on QEMU, Bochs, v86 and Unicorn where they are installed
#   make permutations  the permutation suites whole: every case, with its count
#   make guests      assemble the guest kernels, the witness routines and the BIOS again (needs nasm and GNU ld)
#   make gen         write the generated sources again; make profiles: the processor profiles; make prices: the VMM's
#   make freeze      freeze a column of predictions before it is looked at (COLUMN=aa06.sw MECHANISM='first look')
#   make readme      measure again and put the figures into the README
#   make check       are the committed profiles and the README's table current?
#   make help        this text

.PHONY: help bench speed bench-speed test conformance conformance-x87 conformance-system conformance-unix conformance-vmm conformance-paravirtual conformance-bios conformance-boots permutations fuzz fuzz-domains fuzz-guests lint check readme guests gen \
	profiles prices freeze wheel clean clean-cache
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough; `make PYTHON=/path/to/python` decides otherwise.
PYTHON ?= $(shell for python in python3 python3.15 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# A venv without pip of its own (no ensurepip on the system) is served by the pip outside.
PIP = $$(if $(BIN)/python -m pip --version >/dev/null 2>&1; then echo $(BIN)/python -m pip; \
	else echo $(PYTHON) -m pip --python $(BIN)/python; fi) --disable-pip-version-check --quiet

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or later found; install one, or: make PYTHON=/path/to/it" >&2; exit 2; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version)" >&2
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --without-pip --clear $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "installing x86virt and what it needs" >&2
	@$(PIP) install --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	@echo "installing x86virt and what its tests need" >&2
	@$(PIP) install --editable '.[test]'
	@touch $@ $(VENV)/installed

bench: $(VENV)/installed
	@$(BIN)/x86virt bench syscall --strategy native --strategy trap-and-emulate

speed: $(VENV)/installed
	@$(BIN)/x86virt bench speed

# `make bench-speed ARGUMENTS='--json FILE'` writes the figures as JSON.
bench-speed: $(VENV)/installed-test
	@$(BIN)/python benchmarks/bench_speed.py $(ARGUMENTS)

lint: $(VENV)/installed-test
	@$(BIN)/ruff check .
	@$(BIN)/mypy

# The suite runs compiled on two processes; a fast subset also under the interpreter and with bounds checks on.
EVERY_WAY := tests/test_smc.py tests/test_segmentation.py tests/test_real_mode.py tests/test_gates_16.py tests/test_x87.py
WITHOUT_JIT := $(EVERY_WAY) tests/test_board.py tests/test_delivery.py tests/test_virtual_8086.py tests/test_fused.py \
	tests/test_ide_guest.py tests/test_disk.py
WITH_BOUNDS := $(EVERY_WAY) tests/test_instructions.py tests/test_fuzz.py tests/test_ide_guest.py tests/test_hostile_guests.py

test: lint
	@$(BIN)/x86virt run hello >/dev/null
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile
	@echo "a fast subset with the JIT disabled:"
	@NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest $(WITHOUT_JIT)
	@echo "a fast subset with bounds checks on:"
	@X86VIRT_BOUNDSCHECK=1 $(BIN)/python -m pytest $(WITH_BOUNDS)

# `make conformance-system ARGUMENTS='--seed 1000 --only paging'` chooses other kernels.
conformance-system: $(VENV)/installed-test
	@$(BIN)/python tests/conformance_system.py --cases 100000 $(ARGUMENTS)

# `make conformance-vmm SEED=7 ARGUMENTS='--strategy trap-and-emulate --only paging --kernels 5000'` chooses others.
conformance-vmm: $(VENV)/installed-test
	@$(BIN)/python tests/conformance_vmm.py --seed $(SEED) $(ARGUMENTS)

# `make conformance-paravirtual SEED=7 ARGUMENTS='--sequences 5000'` plays others.
conformance-paravirtual: $(VENV)/installed-test
	@$(BIN)/python tests/conformance_paravirtual.py --seed $(SEED) $(ARGUMENTS)

conformance-boots: $(VENV)/installed-test
	@$(BIN)/python tests/replay_boots.py $(ARGUMENTS)

CASES ?= 1000000
SEED ?= 1
conformance: $(VENV)/installed-test
	@$(BIN)/python -m tests.fuzz_instructions --cases $(CASES) --seed $(SEED)
	@$(BIN)/python tests/real_images.py $(ARGUMENTS)

conformance-real: $(VENV)/installed-test
	@$(BIN)/python tests/real_images.py $(ARGUMENTS)

conformance-x87: $(VENV)/installed-test
	@$(BIN)/python -m tests.fuzz_x87 --cases $(CASES) --seed $(SEED)

# `make conformance-unix ARGUMENTS='--program memory --strategy trap-and-emulate'` does less.
conformance-unix: $(VENV)/installed-test
	@$(BIN)/python tests/unix_programs.py $(ARGUMENTS)

conformance-bios: $(VENV)/installed-test
	@$(BIN)/python tests/bios_answers.py

# Every case of the suites of which `make test` runs a slice.
permutations: $(VENV)/installed-test
	@$(BIN)/python tests/permutations.py 30000
	@$(BIN)/python tests/far_and_task_permutations.py
	@$(BIN)/python tests/paging_permutations.py
	@$(BIN)/python tests/nested_permutations.py 20000

# Hostile guests for minutes: ten million instructions per seed; `make fuzz SEED=7 SEEDS=20`.
SEEDS ?= 4
fuzz: $(VENV)/installed-test
	@$(BIN)/python -m tests.fuzz_hostile --seed $(SEED) --seeds $(SEEDS)

# Kernels in ring 1 that ask a paravirtual VMM for anything; `make fuzz-domains SEED=7 KERNELS=20000`.
KERNELS ?= 3000
fuzz-domains: $(VENV)/installed-test
	@$(BIN)/python -m tests.fuzz_domains --kernels $(KERNELS) --seed $(SEED)

# Guests of VMX and SVM whose VMCS or VMCB is anything; `make fuzz-guests ATTACKS=100000`.
ATTACKS ?= 20000
fuzz-guests: $(VENV)/installed-test
	@X86VIRT_BOUNDSCHECK=1 $(BIN)/python tests/test_hostile_guests.py $(ATTACKS)

# What is generated and committed is current: the profiles, the README's table.
check: $(VENV)/installed
	@$(BIN)/python benchmarks/reference/make_profiles.py --check
	@$(BIN)/python -m x86virt.vmm.witness_run --check
	@$(BIN)/python benchmarks/readme.py --check

# The README's figures, those of this host included.
readme: $(VENV)/installed
	@$(BIN)/python benchmarks/readme.py --speed

gen: $(VENV)/installed
	@$(BIN)/python -m x86virt.core.generate

profiles: $(VENV)/installed
	@$(BIN)/python benchmarks/reference/make_profiles.py

guests: $(VENV)/installed
	@$(BIN)/python -m x86virt.vmm.paravirtual.include
	@$(BIN)/python benchmarks/guests/build.py
	@$(BIN)/python -m x86virt.vmm.witness_build
	@$(BIN)/python -m x86virt.firmware.build

# What the paths of the VMM cost under each shipped profile: after a change of the witness routines, of a profile, or of
# anything that changes cycles.
prices: $(VENV)/installed
	@$(BIN)/python -m x86virt.vmm.witness_run

# What `x86virt validate` predicts of a column, before it is looked at for the first time and after each change, with its reason.
freeze: $(VENV)/installed
	@$(BIN)/python -m x86virt.validation.freeze '$(COLUMN)' --mechanism '$(MECHANISM)'

wheel: $(BIN)/python
	@$(PIP) wheel --no-deps --wheel-dir dist .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Machine code that was compiled by earlier runs.
clean-cache:
	rm -rf "$${X86VIRT_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/x86virt}"
