#!/bin/sh
# Says what is missing to build this project, and what to do about it. Silent where nothing is.
# The argument: cargo's options for features, which decide whether librdkafka and OpenSSL are built.
set -eu
cd "$(dirname "$0")/.."
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
bad=0
missing() {
    echo "missing: $1" >&2
    echo "  remedy: $2" >&2
    bad=1
}
rustup="install Rust from https://rustup.rs:  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"

if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    missing "cargo and rustc $needed or newer" "$rustup"
else
    found=$(rustc --version | sed -n 's/^rustc \([0-9]*\.[0-9]*\).*/\1/p')
    # Newer by both numbers: 1.100 is newer than 1.89.
    if [ "$(printf '%s\n%s\n' "$needed" "${found:-0.0}" | sort -t. -k1,1n -k2,2n | head -n 1)" != "$needed" ]; then
        remedy="$rustup"
        ! command -v rustup >/dev/null || remedy="rustup update stable"
        missing "rustc $needed or newer; $(command -v rustc) is ${found:-of an unknown version}" "$remedy"
    fi
fi
# Rust links with it.
command -v cc >/dev/null || missing "a C compiler (cc)" \
    "Debian: apt-get install gcc libc6-dev; Fedora: dnf install gcc; Alpine: apk add build-base"
case ${1:-} in
    *--no-default-features*) ;;
    *)
        command -v c++ >/dev/null || missing "a C++ compiler (c++), which librdkafka is built with" \
            "Debian: apt-get install g++; Fedora: dnf install gcc-c++; Alpine: apk add build-base; or build without that client: FEATURES=--no-default-features"
        command -v make >/dev/null || missing "make, which librdkafka is built with" "Debian: apt-get install make; Fedora: dnf install make"
        ;;
esac
case ${1:-} in
    *vendored-openssl*)
        command -v perl >/dev/null || missing "OpenSSL's headers (found by pkg-config), or perl to build it" \
            "Debian: apt-get install pkg-config libssl-dev; Fedora: dnf install pkgconf openssl-devel; Alpine: apk add pkgconf openssl-dev"
        ;;
esac
exit $bad
