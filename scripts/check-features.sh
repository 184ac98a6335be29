#!/usr/bin/env bash
# Type-checks the workspace for devices that the gate does not build.
#
#     scripts/check-features.sh [ndarray] [wgpu] [cuda] [all]
#
# Without arguments: the first three. `all` is one build that holds every device. No GPU, driver, CUDA
# or Vulkan kit is needed; a first run compiles Burn once for each, 5 to 10 minutes on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Apart from the ordinary artefacts, which these would multiply.
export CARGO_TARGET_DIR=${CARTRIDGES_TARGET_DIR:-$HOME/.cache/cartridges/target}-features
export CARGO_INCREMENTAL=0

# The release profile builds procedural macros unoptimised; the dev profile here does not.
check=(check --release --workspace --all-targets --no-default-features --features)

[ $# -gt 0 ] || set -- ndarray wgpu cuda
for device in "$@"; do
    echo "== $device"
    case $device in
        ndarray | wgpu) cargo "${check[@]}" "$device" ;;
        cuda) scripts/cuda-nvrtc/cargo.sh "${check[@]}" cuda-nvrtc ;;
        all) scripts/cuda-nvrtc/cargo.sh "${check[@]}" cpu,ndarray,wgpu,cuda-nvrtc ;;
        *)
            echo "unknown device '$device'; expected ndarray, wgpu, cuda or all" >&2
            exit 2
            ;;
    esac
done
