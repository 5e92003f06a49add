# The one entry point for people and for continuous integration. `make help` lists what it can do.

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man
DESTDIR    ?=
CARGO      ?= cargo

# What the C API reports (config.rs), and the file name that C releases have had since 1.8.
API_VERSION  := 1.18.6
LIBRARY_FILE := libdqlite.so.0.0.1
STAGE        := $(CURDIR)/build/stage
BUILT        := $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: all help install stage demo deb dist deb-swap check torture sim-long sim-databases kill9 faults mixed failover go bench peers compare compare-store fix deps clean

all: ## Build the library, shared and static, in release form
	$(CARGO) build --release --lib

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 12

# Builds nothing, so that it can be run with rights and a PATH of its own.
install: ## Install library, header, manual and dqlite.pc that `make` has built (DESTDIR=, PREFIX=, LIBDIR=)
	@test -f $(BUILT)/libdqlite.so || { echo "There is nothing to install yet: run make first." >&2; exit 1; }
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(MANDIR)/man3
	install -m 755 $(BUILT)/libdqlite.so $(DESTDIR)$(LIBDIR)/$(LIBRARY_FILE)
	ln -sf $(LIBRARY_FILE) $(DESTDIR)$(LIBDIR)/libdqlite.so.0
	ln -sf libdqlite.so.0 $(DESTDIR)$(LIBDIR)/libdqlite.so
	install -m 644 $(BUILT)/libdqlite.a $(DESTDIR)$(LIBDIR)/libdqlite.a
	install -m 644 include/dqlite.h $(DESTDIR)$(INCLUDEDIR)/dqlite.h
	install -m 644 docs/man/libdqlite.3 $(DESTDIR)$(MANDIR)/man3/libdqlite.3
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
		-e 's|@VERSION@|$(API_VERSION)|' pkgconfig/dqlite.pc.in \
		> $(DESTDIR)$(LIBDIR)/pkgconfig/dqlite.pc
	chmod 644 $(DESTDIR)$(LIBDIR)/pkgconfig/dqlite.pc

stage: all ## Build, and install into build/stage, where the tests and the demo look
	@$(MAKE) -s --no-print-directory install DESTDIR= PREFIX=$(STAGE) LIBDIR=$(STAGE)/lib INCLUDEDIR=$(STAGE)/include MANDIR=$(STAGE)/share/man

demo: deps stage ## Run a small program with a node inside, kill it, and show that the data is still there
	@sh c-tests/demo/demo.sh

check: deps ## Run every test; ends with a summary
	@CARGO='$(CARGO)' sh tests/check.sh

torture: deps stage ## All API functions with any arguments from several threads, 10 minutes (TORTURE_TOOL=valgrind|tsan|none, TORTURE_SECONDS=, TORTURE_SEED=)
	@sh c-tests/torture.sh

sim-long: ## Simulate 200,000 seeds of the Raft core, a minute each (SIM_RUNS=, SIM_FIRST=, SIM_SECONDS=, SIM_ONCE=, SIM_THREADS=)
	@SIM_RUNS=$${SIM_RUNS:-200000} SIM_SECONDS=$${SIM_SECONDS:-60} $(CARGO) test -q \
		--config tests/sim/optimised.toml --features planted-bugs --test sim -- --nocapture --exact no_seed_breaks_a_promise

sim-databases: ## Simulate 20,000 seeds with real databases under each core (SIM_DB_RUNS=, SIM_DB_FIRST=, SIM_DB_TENTHS=, SIM_ONCE=, SIM_THREADS=)
	@SIM_DB_RUNS=$${SIM_DB_RUNS:-20000} $(CARGO) test -q \
		--config tests/sim/optimised.toml --features planted-bugs --test sim -- --nocapture no_seed_breaks_a_promise_of_the_databases

kill9: deps stage ## 200 rounds of writers and kill -9, and 1000 with tiny segments (KILL9_ROUNDS=, KILL9_SMALL=, KILL9_SEED=)
	@KILL9_ROUNDS=$${KILL9_ROUNDS:-200} KILL9_SMALL=$${KILL9_SMALL:-1000} sh tests/dropin/kill9.sh

bench: deps stage ## Throughput, latency and cost beside Debian's C library: an hour (BENCH_WORKLOADS=, BENCH_CLIENTS=, BENCH_NODES=)
	@sh benches/load/bench.sh

peers: deps stage ## Beside raft-rs, openraft, async-raft and hiqlite: 20 minutes after a long build (PEERS_ONLY=, PEERS_ROUNDS=)
	@CARGO='$(CARGO)' sh benches/peers/peers.sh

compare: deps stage ## Size, memory and latency beside Debian's C library
	@sh c-tests/compare/compare.sh

compare-store: deps stage ## Start-up, snapshots and memory beside Debian's C library: half an hour (STORE_PARTS=, STORE_MB=)
	@sh c-tests/compare/store.sh

faults: deps stage ## 100 kills of the leader, 50 pauses, 50 partitions; 3 and 5 nodes under load (FAULT_ROUNDS=, FAULT_SEED=)
	@FAULT_ROUNDS=$${FAULT_ROUNDS:-100} FAULT_STALLED_S=$${FAULT_STALLED_S:-60} sh tests/dropin/faults.sh

mixed: deps stage ## Clusters of our nodes and C ones, the long form (MIXED_ROUNDS=, MIXED_SECONDS=, PEER_LIBRARY=)
	@MIXED_ROUNDS=$${MIXED_ROUNDS:-5} MIXED_SECONDS=$${MIXED_SECONDS:-60} sh tests/dropin/mixed.sh

go: deps stage ## The tests of go-dqlite 3, and of 2 and 1 as far as C 1.18 passes them (GO_SUITES=, GO_RACE=1, GO_PREFIX=)
	@GO_SUITES="$${GO_SUITES:-3 2 1}" sh tests/dropin/go.sh

failover: deps stage ## How long writes stop without a leader, beside C: half an hour (FAILOVER_ROUNDS=, FAILOVER_CASES=)
	@sh tests/dropin/failover.sh

deb: deps ## Build Debian packages into build/deb: libdqlite0, libdqlite-dev, dqlite-tools
	@sh debian/build.sh

dist: ## Make a Debian source package with all crates in it, of the last commit, in build/deb
	@sh debian/dist.sh

deb-swap: deb ## Change a running cluster in a throw-away Debian from its C packages to ours and back, under load
	@sh tests/packaging/swap.sh

fix: ## Format the code and write include/dqlite.h again
	$(CARGO) fmt
	UPDATE_HEADER=1 $(CARGO) test --test header committed

deps: ## Install what the build and the tests need, if it is missing
	@sh tests/deps.sh

clean: ## Remove everything that was built
	rm -rf build target
