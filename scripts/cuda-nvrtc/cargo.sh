#!/usr/bin/env bash
# Runs cargo with this folder's config.toml and leaves Cargo.lock as it was.
#
#     scripts/cuda-nvrtc/cargo.sh build --release --features cuda-nvrtc
#
# With the stand-in, Cargo takes LLVM's packages out of Cargo.lock. Left so, the next ordinary build
# would look for them again and could take other versions. If this script is killed outright, get the
# file back with `git checkout Cargo.lock`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

# Two runs at a time would each keep the other's changed file.
exec 9<"$here/config.toml"
flock 9

saved=$(mktemp)
cp -p Cargo.lock "$saved"
trap 'cp -p "$saved" Cargo.lock; rm -f "$saved"' EXIT

# Behind the subcommand, where clippy hands it on; in front, cargo would keep it to itself.
cargo "${1:?a cargo command}" --config "$here/config.toml" "${@:2}"
