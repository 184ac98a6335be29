#!/usr/bin/env bash
# Runs the tests of the tensor operations on wgpu: the kernels against the portable bodies in f64 on the processor.
#
#     scripts/check-wgpu.sh [--software]
#
# Takes the machine's own GPU; with --software SwiftShader, a Vulkan device on the processor that Chromium brings
# along. Debian 12's Mesa has one too, llvmpipe; what became of it stands in docs/gpu-notes.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Apart from the ordinary artefacts, which these would multiply.
export CARGO_TARGET_DIR=${CARTRIDGES_TARGET_DIR:-$HOME/.cache/cartridges/target}-wgpu
export CARGO_INCREMENTAL=0

if [ "${1:-}" = --software ]; then
    driver=${SWIFTSHADER:-/usr/lib/chromium/vk_swiftshader_icd.json}
    if [ ! -f "$driver" ]; then
        echo "$driver is missing: install Chromium, or say in SWIFTSHADER where vk_swiftshader_icd.json is" >&2
        exit 2
    fi
    export VK_DRIVER_FILES=$driver VK_ICD_FILENAMES=$driver
fi
cargo test -p cartridges-ops --no-default-features --features cpu,wgpu
