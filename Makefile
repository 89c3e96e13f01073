# Every target works as the first command on a fresh checkout: what needs the environment goes through scripts/env, which makes it.

ENV := scripts/env
PREFIX ?= /usr/local
TIME ?= 60
DESTDIR ?=
BINARIES := qmp-varlinkd qmp-simulator
SWIFT_SOURCES := Package.swift Sources Tests interfaces

.DEFAULT_GOAL := help
.PHONY: help demo build test storm fuzz bench gate check generated format shell install clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1	/p' Makefile | expand -t 18

demo: build ## boot a Linux guest and speak to it with varlinkctl
	$(ENV) examples/demo

build: ## build the programs into .build/release/
	$(ENV) sh -c 'for name in $(BINARIES); do swift build -c release --static-swift-stdlib --product $$name || exit; done'

test: ## build and run all tests; a skipped one is a failure
	$(ENV) swift build --product qmp-varlinkd
	$(ENV) swift build --build-tests
	$(ENV) scripts/test

storm: ## the long campaign: 20,000 sessions, 50 kills of the daemon, 500 drives, 10,000 monitors, 1,000 parked sessions (a quarter of an hour)
	$(ENV) swift build --product qmp-varlinkd
	$(ENV) swift build --build-tests
	QMP_VARLINK_STORM_SESSIONS=5000 QMP_VARLINK_STORM_SEEDS=4 QMP_VARLINK_STORM_PARALLEL=16 QMP_VARLINK_KILLS=50 \
	  QMP_VARLINK_STORAGE_ROUNDS=500 QMP_VARLINK_CYCLES=10000 \
	  QMP_VARLINK_PARKED=1000 QMP_VARLINK_PARKING_SECONDS=120 \
	  $(ENV) scripts/test --no-parallel --filter 'StormTests|ParkedThousandTests|DaemonKilledTests|StorageStormTests|MonitorHotplugTests.cycles'

fuzz: ## look for inputs that break something, with libFuzzer: TIME=seconds for each target (60)
	$(ENV) scripts/fuzz --time $(TIME)

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

install: ## install what "make build" made into $(DESTDIR)$(PREFIX)
	@for name in $(BINARIES); do test -x .build/release/$$name || exec $(MAKE) build; done
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/qmp-varlink/interfaces
	install -m 755 $(BINARIES:%=.build/release/%) $(DESTDIR)$(PREFIX)/bin
	install -m 644 interfaces/*.varlink $(DESTDIR)$(PREFIX)/share/qmp-varlink/interfaces

clean: ## remove what was built (the environment stays: rm -rf .devroot)
	rm -rf .build
