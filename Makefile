# Every target works as the first command on a fresh checkout: what needs the environment goes through scripts/env, which makes it.

ENV := scripts/env
PREFIX ?= /usr/local
TIME ?= 60
DESTDIR ?=
SYSCONFDIR ?= /etc
BINARIES := qmp-varlinkd qmpctl qmp-simulator
# A program's relocations as ranges, in place of a megabyte that each start reads.
LINKER := -Xlinker -z -Xlinker pack-relative-relocs
# What "make install" and "make deb" take the programs from.
BUILD ?= .build/release
SWIFT_SOURCES := Package.swift Sources Tests interfaces examples/swift

# zsh looks below /usr where Debian's packages put theirs, and below other prefixes where the administrator does.
ZSH_COMPLETIONS = $(PREFIX)/share/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)
BASH_COMPLETIONS = $(PREFIX)/share/bash-completion/completions
FISH_COMPLETIONS = $(PREFIX)/share/fish/vendor_completions.d
UNITS = $(PREFIX)/lib/systemd
SHARE = $(PREFIX)/share/qmp-varlink
DOC = $(PREFIX)/share/doc/qmp-varlink
EXAMPLES := varlinkctl-tour vmspawn-like qemu_qmp_session.py varlink_calls.py service

.DEFAULT_GOAL := help
.PHONY: help demo build test storm soak fuzz faults sanitize-address sanitize-thread bench gate check generated format shell docs install deb clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /  make \1	/p' Makefile | expand -t 26

demo: build ## boot a Linux guest and speak to it with varlinkctl
	$(ENV) examples/demo

build: ## build the programs into .build/release/
	$(ENV) sh -c 'for name in $(BINARIES); do swift build -c release --static-swift-stdlib $(LINKER) --product $$name || exit; done'

test: ## build and run all tests; a skipped one is a failure
	$(ENV) swift build --product qmp-varlinkd
	$(ENV) swift build --build-tests
	$(ENV) scripts/test

storm: ## the long campaign: 20,000 sessions, 50 kills of the daemon, 500 drives, 10,000 monitors, 1,000 parked sessions (a quarter of an hour)
	$(ENV) swift build --product qmp-varlinkd
	$(ENV) swift build --build-tests
	QMP_VARLINK_STORM_SESSIONS=5000 QMP_VARLINK_STORM_SEEDS=4 QMP_VARLINK_STORM_PARALLEL=16 QMP_VARLINK_KILLS=50 \
	  QMP_VARLINK_STORAGE_ROUNDS=500 QMP_VARLINK_CYCLES=10000 \
	  QMP_VARLINK_PARKED=1000 QMP_VARLINK_PARKING_SECONDS=120 QMP_VARLINK_PARKING_STRIDE=1 \
	  $(ENV) scripts/test --no-parallel --filter 'StormTests|ParkedThousandTests|ParkingStepsTests|DaemonKilledTests|StorageStormTests|MonitorHotplugTests.cycles'

soak: TIME = 5m
soak: ## a long mixed load that must leave no trace and raise no line: TIME=300, 90s, 5m, 1h (5m); figures and a chart in .build/soak/
	$(ENV) swift build -c release --static-swift-stdlib $(LINKER) --product qmp-varlinkd
	$(ENV) Tests/Soak/run --time $(TIME) $(if $(SEED),--seed $(SEED))

fuzz: ## look for inputs that break something, with libFuzzer: TIME=seconds for each target (60), or RUNS=inputs
	$(ENV) scripts/fuzz $(if $(RUNS),--runs $(RUNS),--time $(TIME))

sanitize-address: ## the unit tests, and the integration tests that measure nothing, under AddressSanitizer, in .build/asan (long)
	$(ENV) scripts/sanitize address

sanitize-thread: ## the same under ThreadSanitizer, in .build/tsan (long)
	$(ENV) scripts/sanitize thread

faults: ## try every row of docs/faults.md, and write down how long callers waited (three minutes)
	$(ENV) swift build --product qmp-varlinkd
	$(ENV) swift build --build-tests
	rm -f .build/fault-figures
	QMP_VARLINK_FAULT_FIGURES=$(CURDIR)/.build/fault-figures \
	  $(ENV) scripts/test --no-parallel --filter "$$($(ENV) scripts/fault-table --filter)"
	$(ENV) scripts/fault-table --write .build/fault-figures

bench: build ## measure against systemd-vmspawn and the bare QMP socket (some four minutes)
	$(ENV) Benchmarks/run

gate: build ## fail if an operation costs more system calls, allocations or instructions than it may
	$(ENV) Benchmarks/gate

check: ## check the format and build everything with warnings as errors
	$(ENV) swift format lint --strict --parallel --recursive $(SWIFT_SOURCES)
	$(ENV) swift build --build-tests

generated: ## write interfaces/generated/ anew, from the QEMU of the environment
	$(ENV) swift build --product qmp-varlinkd
	mkdir -p interfaces/generated
	$(ENV) .build/debug/qmp-varlinkd interface >interfaces/generated/.new
	mv interfaces/generated/.new interfaces/generated/io.qmpvarlink.QMP.varlink

format: ## rewrite the Swift sources in the project's format
	$(ENV) swift format --in-place --parallel --recursive $(SWIFT_SOURCES)

shell: ## a shell in the environment
	$(ENV) bash

docs: ## write the documentation of the Swift libraries into .build/docs
	$(ENV) swift build
	$(ENV) scripts/make-docs .build/debug .build/docs

install: ## install what "make build" made into $(DESTDIR)$(PREFIX)
	@for name in $(BINARIES); do test -x $(BUILD)/$$name || exec $(MAKE) build; done
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(SYSCONFDIR)/qmp-varlink $(DESTDIR)$(SHARE)/interfaces $(DESTDIR)$(DOC)/examples
	install -m 755 $(BINARIES:%=$(BUILD)/%) $(DESTDIR)$(PREFIX)/bin
	install -m 644 interfaces/*.varlink interfaces/generated/*.varlink $(DESTDIR)$(SHARE)/interfaces
	install -D -m 644 polkit/io.qmpvarlink.policy $(DESTDIR)$(PREFIX)/share/polkit-1/actions/io.qmpvarlink.policy
	for manager in system user; do \
	  install -d $(DESTDIR)$(UNITS)/$$manager && install -m 644 systemd/$$manager/* $(DESTDIR)$(UNITS)/$$manager || exit; \
	  sed -i 's|/usr/bin/|$(PREFIX)/bin/|' $(DESTDIR)$(UNITS)/$$manager/qmp-varlink@.service || exit; \
	done
	for page in man/*.[1-8]; do \
	  install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page#man/} || exit; \
	done
	install -d $(DESTDIR)$(BASH_COMPLETIONS) $(DESTDIR)$(ZSH_COMPLETIONS) $(DESTDIR)$(FISH_COMPLETIONS)
	for name in $(BINARIES); do \
	  program="$(ENV) $(BUILD)/$$name --generate-completion-script"; \
	  $$program bash >$(DESTDIR)$(BASH_COMPLETIONS)/$$name && $$program zsh >$(DESTDIR)$(ZSH_COMPLETIONS)/_$$name \
	    && $$program fish >$(DESTDIR)$(FISH_COMPLETIONS)/$$name.fish || exit; \
	done
	install -m 644 README.md docs/*.md $(DESTDIR)$(DOC)
	cp -R --no-preserve=ownership $(EXAMPLES:%=examples/%) $(DESTDIR)$(DOC)/examples

deb: ## build a Debian package of what "make build" made into .build/
	@for name in $(BINARIES); do test -x $(BUILD)/$$name || exec $(MAKE) build; done
	$(ENV) scripts/make-deb $(BUILD) .build

clean: ## remove what was built (the environment stays: rm -rf .devroot)
	rm -rf .build
