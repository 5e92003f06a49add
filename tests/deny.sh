#!/bin/sh
# Licences, versions and sources of the dependencies, by deny.toml; needs cargo-deny.
set -eu
cd "$(dirname "$0")/.."

if ! command -v cargo-deny > /dev/null; then
    echo "deny: skipped: cargo-deny is not installed (cargo install --locked cargo-deny)"
    exit 77
fi
exec "${CARGO:-cargo}" deny check licenses bans sources
