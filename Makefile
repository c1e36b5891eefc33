# GNU make 4.3 or newer. `make` lists what there is.
#
# CARGO_TARGET_DIR is honoured. For install and uninstall: PREFIX, SYSCONFDIR, LOCALSTATEDIR, DESTDIR.

# cargo where rustup puts it, for shells that have not read its environment file.
export PATH := $(PATH):$(HOME)/.cargo/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO ?= cargo
# librdkafka needs OpenSSL: the system's where its headers are, else it is built as well. For a program without
# librdkafka: FEATURES=--no-default-features.
FEATURES ?= $(if $(OPENSSL_DIR)$(shell pkg-config --exists openssl 2>/dev/null && echo found),,--features vendored-openssl)
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
# Where systemd looks: below /usr and /usr/local, and else only in /etc.
UNITDIR ?= $(if $(filter /usr /usr/local,$(PREFIX)),$(PREFIX)/lib,$(SYSCONFDIR))/systemd/system
MANDIR ?= $(PREFIX)/share/man
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
# What monitoring takes from here: alert rules, a dashboard.
SHAREDIR ?= $(PREFIX)/share/worker

# etc/ has the usual places; an installed file, those of this installation.
PLACES = sed -e 's|/usr/local/bin/worker|$(BINDIR)/worker|g' -e 's|/etc/worker/|$(SYSCONFDIR)/worker/|g' \
    -e 's|/etc/default/worker|$(SYSCONFDIR)/default/worker|g' -e 's|/etc/init.d/worker|$(INIT)|g' \
    -e 's|/var/log/worker|$(LOGS)|g' -e 's|/var/lib/worker|$(DATA)|g' -e 's|/usr/local/share/worker|$(SHAREDIR)|g'
# systemd makes StateDirectory below /var/lib; another place has to be there, and to be named.
ifneq ($(DATA),/var/lib/worker)
UNIT_PLACES = $(PLACES) -e 's|^StateDirectory=.*|ReadWritePaths=$(DATA)|' -e '/^StateDirectoryMode=/d'
else
UNIT_PLACES = $(PLACES)
endif
# A new file under a new name, then renamed: the old one may be in use. $(1) how, $(2) from, $(3) to, $(4) mode.
put = $(1) '$(2)' >'$(DESTDIR)$(3).new' && chmod $(4) '$(DESTDIR)$(3).new' && mv -f '$(DESTDIR)$(3).new' '$(DESTDIR)$(3)' \
    && echo 'installed $(DESTDIR)$(3)'

# WORKER=FILE installs a program that was built elsewhere.
ifdef WORKER
PROGRAM := $(WORKER)
else
PROGRAM := $(TARGET)/release/worker
endif

.DEFAULT_GOAL := help
.PHONY: help build demo test check bench manual kafka kafka-stop install uninstall clean toolchain program

help: ## list the targets
	@echo 'worker: Kafka consumer, one thread and one group a topic. Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

toolchain:
	@scripts/toolchain.sh '$(FEATURES)'

build: toolchain ## build the program for use: target/release/worker
	$(CARGO) build --locked $(FEATURES) --release --bin worker
	@touch '$(TARGET)/release/worker'
	@echo 'Built $(TARGET)/release/worker; next: make install'

demo: toolchain ## see it work, without Kafka and Java; DEMO_SECONDS=20
	@echo 'Building worker and demo (the first time fetches and compiles their crates).'
	@$(CARGO) build --locked $(FEATURES) --workspace --bin worker --example demo
	@# Not by cargo run: it can't be told the whole workspace, and would compile crates a second time.
	@'$(TARGET)/debug/examples/demo' $(DEMO_SECONDS)

test: toolchain ## run all tests; those with a real Kafka need a JDK 17 and Maven
	@scripts/kafka-for-tests.sh
	@$(CARGO) test --locked $(FEATURES) --workspace --no-run
	@$(CARGO) test --locked $(FEATURES) --workspace --quiet

check: toolchain ## formatting, lints, documentation, tests: before a commit
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked $(FEATURES) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked $(FEATURES) --workspace --no-deps
	@$(MAKE) --no-print-directory test

bench: toolchain ## measure against a real Kafka (JDK 17, Maven)
	@tests/kafka/fetch.sh >/dev/null
	$(CARGO) bench --locked $(FEATURES) --bench throughput --bench librdkafka --bench sinks

manual: toolchain ## write manual pages and completions anew, from src/cli.rs
	WORKER_WRITE_MANUAL=1 $(CARGO) test --locked $(FEATURES) --test integration manual::

kafka: ## start a Kafka at 127.0.0.1:9092 to try things (JDK 17, Maven); PORT=9092 VERSION=4.1.1
	@tests/kafka/up.sh

kafka-stop: ## stop it (the same VERSION); its data stay
	@tests/kafka/down.sh

ifndef WORKER
# Only if it is out of date: an installation as root then needs no Rust, if it was built before.
# No rule of make's own, which could not cope with blanks in paths.
program:
	@if [ ! -x '$(PROGRAM)' ] || [ -n "$$(find src Cargo.toml Cargo.lock -newer '$(PROGRAM)')" ]; then \
	    scripts/toolchain.sh '$(FEATURES)' || { echo 'or build it as a user who has Rust (make build), then install' >&2; exit 1; }; \
	    $(CARGO) build --locked $(FEATURES) --release --bin worker && touch '$(PROGRAM)'; \
	fi
else
program:
	@[ -x '$(PROGRAM)' ] || { echo 'WORKER=$(PROGRAM) is no program' >&2; exit 1; }
endif

install: program ## install program, service, manual, configuration; PREFIX, DESTDIR
	@install -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(SYSCONFDIR)/worker' '$(DESTDIR)$(SYSCONFDIR)/init.d' \
	    '$(DESTDIR)$(SYSCONFDIR)/logrotate.d' '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(MANDIR)/man1' \
	    '$(DESTDIR)$(BASHDIR)' '$(DESTDIR)$(ZSHDIR)' '$(DESTDIR)$(FISHDIR)' '$(DESTDIR)$(SHAREDIR)/handlers'
	@# Records may stand in both. A mode that somebody has changed stays.
	@for dir in '$(DESTDIR)$(DATA)' '$(DESTDIR)$(LOGS)'; do [ -d "$$dir" ] || install -d -m 750 "$$dir" || exit 1; done
	@$(call put,cat,$(PROGRAM),$(BINDIR)/worker,755)
	@$(call put,$(PLACES),etc/worker.init,$(INIT),755)
	@$(call put,$(UNIT_PLACES),etc/worker.service,$(UNITDIR)/worker.service,644)
	@$(foreach page,$(wildcard etc/man/*.1),$(call put,$(PLACES),$(page),$(MANDIR)/man1/$(notdir $(page)),644) &&) true
	@$(call put,cat,etc/completions/worker.bash,$(BASHDIR)/worker,644)
	@$(call put,cat,etc/completions/_worker,$(ZSHDIR)/_worker,644)
	@$(call put,cat,etc/completions/worker.fish,$(FISHDIR)/worker.fish,644)
	@$(call put,cat,etc/worker.rules.yml,$(SHAREDIR)/worker.rules.yml,644)
	@$(call put,cat,etc/worker-dashboard.json,$(SHAREDIR)/worker-dashboard.json,644)
	@$(foreach handler,$(wildcard etc/handlers/*),$(call put,$(PLACES),$(handler),$(SHAREDIR)/handlers/$(notdir $(handler)),755) &&) true
	@conf='$(DESTDIR)$(CONFIG)'; \
	$(PLACES) -e 's|^#dir = .*|dir = "$(DATA)"|' etc/consumer.toml >"$$conf.new" && chmod 644 "$$conf.new" || exit 1; \
	if [ ! -e "$$conf" ]; then \
	    mv "$$conf.new" "$$conf"; echo "installed $$conf"; \
	elif cmp -s "$$conf.new" "$$conf"; then \
	    rm "$$conf.new"; echo "unchanged $$conf"; \
	else \
	    echo "kept      $$conf, which differs; the new example is $$conf.new"; \
	fi
	@# No .new beside it: logrotate reads every file there.
	@if [ -e '$(DESTDIR)$(ROTATE)' ]; then echo 'kept      $(DESTDIR)$(ROTATE)'; else \
	    $(PLACES) etc/worker.logrotate >'$(DESTDIR)$(ROTATE)' && \
	    chmod 644 '$(DESTDIR)$(ROTATE)' && echo 'installed $(DESTDIR)$(ROTATE)'; fi
	@# Only on the machine itself: a package's own scripts know its users.
	@if [ -z '$(DESTDIR)' ] && [ "$$(id -u)" = 0 ]; then scripts/service-user.sh '$(DATA)' '$(LOGS)'; fi
	@if [ -n '$(DESTDIR)' ]; then \
	    echo 'A tree for a package; where it is unpacked at /: program $(BINDIR)/worker, configuration $(CONFIG), services $(UNITDIR)/worker.service and $(INIT)'; \
	else \
	    start='$(INIT) start'; \
	    if [ -d /run/systemd/system ]; then systemctl daemon-reload; start='systemctl enable --now worker'; fi; \
	    echo "Next: edit $(CONFIG), then $(BINDIR)/worker check -c $(CONFIG), then $$start"; \
	fi

uninstall: ## remove program, service, manual; configuration, data and logs stay
	@if [ -z '$(DESTDIR)' ] && [ -x '$(INIT)' ] && '$(INIT)' status >/dev/null 2>&1; then \
	    echo 'worker runs; stop it first: $(INIT) stop' >&2; exit 1; fi
	@if [ -z '$(DESTDIR)' ] && [ -d /run/systemd/system ] && systemctl --quiet is-active worker; then \
	    echo 'worker runs; stop it first: systemctl disable --now worker' >&2; exit 1; fi
	@for file in '$(BINDIR)/worker' '$(INIT)' '$(UNITDIR)/worker.service' '$(BASHDIR)/worker' '$(ZSHDIR)/_worker' \
	    '$(FISHDIR)/worker.fish' '$(SHAREDIR)/worker.rules.yml' '$(SHAREDIR)/worker-dashboard.json' \
	    $(foreach handler,$(wildcard etc/handlers/*),'$(SHAREDIR)/handlers/$(notdir $(handler))') $(foreach page,$(wildcard etc/man/*.1),'$(MANDIR)/man1/$(notdir $(page))'); do \
	    [ ! -e '$(DESTDIR)'"$$file" ] || { rm '$(DESTDIR)'"$$file" && echo 'removed $(DESTDIR)'"$$file"; } || exit 1; done
	@rmdir '$(DESTDIR)$(SHAREDIR)/handlers' '$(DESTDIR)$(SHAREDIR)' 2>/dev/null || true
	@if [ -z '$(DESTDIR)' ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	@echo 'left in place: $(DESTDIR)$(SYSCONFDIR)/worker, $(DESTDIR)$(ROTATE), $(DESTDIR)$(DATA), $(DESTDIR)$(LOGS), the user worker'

clean: ## remove everything that was built and fetched
	$(CARGO) clean
