#!/usr/bin/env bash
# Runs the tests of what computes on other devices than the processor's fast one: every operation against its
# portable body in f64, and decoder and training against the golden files.
#
#     scripts/check-devices.sh [--software] [ndarray] [wgpu]
#
# Without devices: both. wgpu takes the machine's own GPU; with --software a Vulkan device on the processor, Mesa's
# llvmpipe (Debian's mesa-vulkan-drivers) or SwiftShader, which Chromium brings along. Kernels go through WGSL:
# on Debian 12 the SPIR-V of Burn's `vulkan` feature ends llvmpipe.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Apart from the ordinary artefacts, which these would multiply.
export CARGO_TARGET_DIR=${CARTRIDGES_TARGET_DIR:-$HOME/.cache/cartridges/target}-wgpu
export CARGO_INCREMENTAL=0

if [ "${1:-}" = --software ]; then
    shift
    for driver in /usr/share/vulkan/icd.d/lvp_icd.*.json /usr/lib/chromium/vk_swiftshader_icd.json ""; do
        [ ! -f "$driver" ] || break
    done
    if [ -z "$driver" ]; then
        echo "neither llvmpipe nor SwiftShader is here: install mesa-vulkan-drivers and libvulkan1" >&2
        exit 2
    fi
    echo "software device: $driver"
    export VK_DRIVER_FILES=$driver VK_ICD_FILENAMES=$driver
fi

# One build for all devices. Features are named through the crate that has them, and the tests by their files:
# those of the libraries' own would take a software device an hour.
tests=(test -p cartridges-ops -p cartridges-model -p cartridges-train --no-default-features)
for device in cpu ndarray wgpu; do tests+=(--features "cartridges-ops/$device"); done
tests+=(--test operations --test packed --test golden_decoder --test golden_training)

[ $# -gt 0 ] || set -- ndarray wgpu
for device in "$@"; do
    echo "== $device"
    CARTRIDGES_TEST_DEVICE=$device cargo "${tests[@]}"
done
