# mallet. `make demo` shows what it does, `make test` proves it. Both work as an ordinary user and
# need a Rust toolchain (with cargo) and, the first time, crates.io; all output is in target/.

CARGO   ?= cargo
PREFIX  ?= /usr/local
DESTDIR ?=
# Where systemd looks for units; what is in /usr/local/lib it finds as well.
UNITDIR ?= $(PREFIX)/lib/systemd/system
TARGET  := $(or $(CARGO_TARGET_DIR),target)

# How long `make fuzz` runs each target, and how many times as many cases as `make test` the random
# tests of `make soak` get.
FUZZ_SECONDS ?= 300
SOAK         ?= 50

.PHONY: all demo demo-stream test bench fuzz soak doc man install uninstall clean

all:
	$(CARGO) build --release

# Makes file systems, fills, mirrors and changes them, kills a copy and goes on with it, reads the
# past; then reads a volume made by DragonFly. About a minute.
demo:
	$(CARGO) build --bin mallet --example unpack
	TARGET='$(TARGET)' ./demo.sh

# A master that is written to, followed by a chain of slaves; links killed and started again, an
# outage, and what catches up. Half a minute, and 1.5 GB.
demo-stream:
	$(CARGO) build --bin mallet
	TARGET='$(TARGET)' ./demo-stream.sh

# Everything that must hold before a change goes in. Tests on DragonFly-made volumes run where
# those are found (MALLET_GOLDEN, or ../shared/golden) and say so where they are not. Power cuts,
# faults and kills say how many they tried; those on loop devices need root.
test:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) test --no-fail-fast
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --quiet

# Figures with their ratios; see benches/. Inputs and targets take up to 20 GB in $(TARGET)/bench;
# rsync, and btrfs-progs for root, are measured beside where they are installed.
bench:
	$(CARGO) bench

# Every fuzz target for FUZZ_SECONDS. The corpora also run, bounded, in `make test`.
fuzz:
	@$(CARGO) +nightly --version >/dev/null 2>&1 || { \
		echo "make fuzz needs a nightly compiler: rustup toolchain install nightly" >&2; exit 1; }
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { \
		echo "make fuzz needs cargo-fuzz: cargo install cargo-fuzz" >&2; exit 1; }
	@set -e; for target in $$(ls fuzz/fuzz_targets | sed -n 's/\.rs$$//p'); do \
		mkdir -p "fuzz/seen/$$target"; \
		echo "== $$target: $(FUZZ_SECONDS) s"; \
		$(CARGO) +nightly fuzz run -s none "$$target" "fuzz/seen/$$target" "fuzz/corpus/$$target" -- \
			-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=20; \
	done

# The random tests again, optimised and with SOAK times as many cases: power cuts in SOAK times as
# many random scenarios (lines "crash, ..." say how many states were tried), every fault instead of
# a sample ("faults, ..."), a thousand kills ("kill, ...") of copies on this machine and another
# thousand over links, twelve thousand passes beside a writer on simulated disks ("live, ...") and
# some thousand more between processes.
soak:
	PROPTEST_CASES=$$((256 * $(SOAK))) MALLET_SOAK=$(SOAK) $(CARGO) test --release

# The library's documentation and the manual pages.
doc: man
	$(CARGO) doc --no-deps

man:
	$(CARGO) run --quiet --bin mallet -- man --all '$(TARGET)/man'

# `make install PREFIX=$$HOME/.local` needs no root.
install:
	$(CARGO) build --release --bin mallet
	install -D -m 755 '$(TARGET)/release/mallet' '$(DESTDIR)$(PREFIX)/bin/mallet'
	'$(TARGET)/release/mallet' man --all '$(TARGET)/man'
	install -d '$(DESTDIR)$(PREFIX)/share/man/man1'
	install -m 644 '$(TARGET)'/man/*.1 '$(DESTDIR)$(PREFIX)/share/man/man1/'
	install -d '$(DESTDIR)$(PREFIX)/share/bash-completion/completions' \
		'$(DESTDIR)$(PREFIX)/share/zsh/site-functions' \
		'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d'
	'$(TARGET)/release/mallet' completions bash \
		> '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/mallet'
	'$(TARGET)/release/mallet' completions zsh \
		> '$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_mallet'
	'$(TARGET)/release/mallet' completions fish \
		> '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/mallet.fish'
	install -d '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(PREFIX)/share/doc/mallet'
	for unit in systemd/*.service systemd/*.timer; do \
		sed 's,@BINDIR@,$(PREFIX)/bin,' "$$unit" > "$(DESTDIR)$(UNITDIR)/$${unit#systemd/}" && \
		chmod 644 "$(DESTDIR)$(UNITDIR)/$${unit#systemd/}" || exit 1; \
	done
	install -m 644 systemd/*.example docs/*.md '$(DESTDIR)$(PREFIX)/share/doc/mallet/'

uninstall:
	rm -f '$(DESTDIR)$(PREFIX)/bin/mallet' \
		'$(DESTDIR)$(PREFIX)'/share/man/man1/mallet.1 \
		'$(DESTDIR)$(PREFIX)'/share/man/man1/mallet-*.1 \
		'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/mallet' \
		'$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_mallet' \
		'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/mallet.fish' \
		'$(DESTDIR)$(UNITDIR)/mallet-mirror-stream@.service' \
		'$(DESTDIR)$(UNITDIR)/mallet-mirror-copy@.service' \
		'$(DESTDIR)$(UNITDIR)/mallet-mirror-copy@.timer'
	rm -rf '$(DESTDIR)$(PREFIX)/share/doc/mallet'

clean:
	$(CARGO) clean
