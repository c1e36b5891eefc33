# GNU make 4.3 or newer. `make` lists what there is.
#
# CARGO_TARGET_DIR is honoured. For install and uninstall: PREFIX, SYSCONFDIR, LOCALSTATEDIR, DESTDIR.

# cargo where rustup puts it, for shells that have not read its environment file.
export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO ?= cargo
DEMO_SECONDS ?= 20

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
SYSCONFDIR ?= /etc
LOCALSTATEDIR ?= /var
DESTDIR ?=

CONFIG = $(SYSCONFDIR)/worker/consumer.toml
INIT = $(SYSCONFDIR)/init.d/worker
ROTATE = $(SYSCONFDIR)/logrotate.d/worker
DATA = $(LOCALSTATEDIR)/lib/worker
LOGS = $(LOCALSTATEDIR)/log/worker

# WORKER=FILE installs a program that was built elsewhere.
ifdef WORKER
PROGRAM := $(WORKER)
else
PROGRAM := $(TARGET)/release/worker
endif

.DEFAULT_GOAL := help
.PHONY: help build demo test check bench kafka kafka-stop install uninstall clean toolchain program

help: ## list the targets
	@echo 'worker: Kafka consumer, one thread and one group a topic. Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

toolchain:
	@scripts/toolchain.sh

build: toolchain ## build the program for use: target/release/worker
	$(CARGO) build --locked --release --bin worker
	@touch '$(TARGET)/release/worker'
	@echo 'Built $(TARGET)/release/worker; next: make install'

demo: toolchain ## see it work, without Kafka and Java; DEMO_SECONDS=20
	@echo 'Building worker and demo (the first time fetches and compiles their crates).'
	@$(CARGO) build --locked --workspace --bin worker --example demo
	@# Not by cargo run: it can't be told the whole workspace, and would compile crates a second time.
	@'$(TARGET)/debug/examples/demo' $(DEMO_SECONDS)

test: toolchain ## run all tests; those with a real Kafka need a JDK 17 and Maven
	@scripts/kafka-for-tests.sh
	@$(CARGO) test --locked --workspace --no-run
	@$(CARGO) test --locked --workspace --quiet

check: toolchain ## formatting, lints, documentation, tests: before a commit
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps
	@$(MAKE) --no-print-directory test

bench: toolchain ## measure against a real Kafka (JDK 17, Maven)
	@tests/kafka/fetch.sh >/dev/null
	$(CARGO) bench --locked --bench throughput

kafka: ## start a Kafka at 127.0.0.1:9092 to try things (JDK 17, Maven); PORT=9092
	@tests/kafka/up.sh

kafka-stop: ## stop it; its data stay
	@tests/kafka/down.sh

ifndef WORKER
# Only if it is out of date: an installation as root then needs no Rust, if it was built before.
# No rule of make's own, which could not cope with blanks in paths.
program:
	@if [ ! -x '$(PROGRAM)' ] || [ -n "$$(find src Cargo.toml Cargo.lock -newer '$(PROGRAM)')" ]; then \
	    scripts/toolchain.sh || { echo 'or build it as a user who has Rust (make build), then install' >&2; exit 1; }; \
	    $(CARGO) build --locked --release --bin worker && touch '$(PROGRAM)'; \
	fi
else
program:
	@[ -x '$(PROGRAM)' ] || { echo 'WORKER=$(PROGRAM) is no program' >&2; exit 1; }
endif

install: program ## install program, init script, configuration; PREFIX, DESTDIR
	@install -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(SYSCONFDIR)/worker' '$(DESTDIR)$(SYSCONFDIR)/init.d' \
	    '$(DESTDIR)$(SYSCONFDIR)/logrotate.d' '$(DESTDIR)$(DATA)' '$(DESTDIR)$(LOGS)'
	@# A new file under a new name, then renamed: the program may be running.
	@install -m 755 '$(PROGRAM)' '$(DESTDIR)$(BINDIR)/worker.new'
	@mv -f '$(DESTDIR)$(BINDIR)/worker.new' '$(DESTDIR)$(BINDIR)/worker'
	@echo 'installed $(DESTDIR)$(BINDIR)/worker'
	@sed -e 's|/usr/local/bin/worker|$(BINDIR)/worker|' -e 's|/etc/worker/consumer.toml|$(CONFIG)|' \
	    -e 's|/etc/default/worker|$(SYSCONFDIR)/default/worker|' -e 's|/var/log/worker/|$(LOGS)/|' \
	    etc/worker.init >'$(DESTDIR)$(INIT).new'
	@chmod 755 '$(DESTDIR)$(INIT).new'
	@mv -f '$(DESTDIR)$(INIT).new' '$(DESTDIR)$(INIT)'
	@echo 'installed $(DESTDIR)$(INIT)'
	@conf='$(DESTDIR)$(CONFIG)'; \
	sed 's|^#dir = .*|dir = "$(DATA)"|' etc/consumer.toml >"$$conf.new" && chmod 644 "$$conf.new" || exit 1; \
	if [ ! -e "$$conf" ]; then \
	    mv "$$conf.new" "$$conf"; echo "installed $$conf"; \
	elif cmp -s "$$conf.new" "$$conf"; then \
	    rm "$$conf.new"; echo "unchanged $$conf"; \
	else \
	    echo "kept      $$conf, which differs; the new example is $$conf.new"; \
	fi
	@# No .new beside it: logrotate reads every file there.
	@if [ -e '$(DESTDIR)$(ROTATE)' ]; then echo 'kept      $(DESTDIR)$(ROTATE)'; else \
	    sed -e 's|/var/log/worker/|$(LOGS)/|' etc/worker.logrotate >'$(DESTDIR)$(ROTATE)' && \
	    chmod 644 '$(DESTDIR)$(ROTATE)' && echo 'installed $(DESTDIR)$(ROTATE)'; fi
	@# Only on the machine itself: a package's own scripts know its users.
	@if [ -z '$(DESTDIR)' ] && [ "$$(id -u)" = 0 ]; then \
	    if id worker >/dev/null 2>&1; then chown worker '$(DATA)' '$(LOGS)'; \
	    else echo 'There is no user worker; without it the service runs as root. To make it:'; \
	        echo '  useradd --system --home-dir $(DATA) --shell /usr/sbin/nologin worker && chown worker $(DATA) $(LOGS)'; fi; \
	fi
	@if [ -z '$(DESTDIR)' ]; then \
	    echo 'Next: edit $(CONFIG), then $(BINDIR)/worker check -c $(CONFIG), then $(INIT) start'; \
	else \
	    echo 'A tree for a package; where it is unpacked at /: program $(BINDIR)/worker, configuration $(CONFIG), service $(INIT)'; \
	fi

uninstall: ## remove program and init script; configuration, data and logs stay
	@if [ -z '$(DESTDIR)' ] && [ -x '$(INIT)' ] && '$(INIT)' status >/dev/null 2>&1; then \
	    echo 'worker runs; stop it first: $(INIT) stop' >&2; exit 1; fi
	@rm -f '$(DESTDIR)$(BINDIR)/worker' '$(DESTDIR)$(INIT)'
	@echo 'removed $(DESTDIR)$(BINDIR)/worker and $(DESTDIR)$(INIT)'
	@echo 'left in place: $(DESTDIR)$(SYSCONFDIR)/worker, $(DESTDIR)$(ROTATE), $(DESTDIR)$(DATA), $(DESTDIR)$(LOGS)'

clean: ## remove everything that was built and fetched
	$(CARGO) clean
