#!/usr/bin/env bash
# Checks and times a device in one go: opens it, compares logits with the processor's in f32 and bf16, runs the
# whole program small, and prints the table of `cartridges bench`; and, where Python has PyTorch with CUDA, the same work
# by both.
#
#     scripts/gpu-check.sh PROGRAM [DEVICE] [SHAPE...]
#
# PROGRAM is built with the device and the processor (docs/gpu-notes.md). Without further arguments: cuda:0, and
# the shapes qwen3-0.6b and qwen3-4b at 2048 tokens behind 2048 slots in bf16. Files and JSON go to $OUT (default
# gpu-check). MODEL (default: the small one of quickstart) must be on the machine or reachable. Every part runs,
# whatever the ones before it did; the exit status is 1 if one failed.
set -uo pipefail

program=${1:?usage: scripts/gpu-check.sh PROGRAM [DEVICE] [SHAPE...]}
device=${2:-cuda:0}
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- qwen3-0.6b qwen3-4b
out=${OUT:-gpu-check}
model=${MODEL:-qwen2.5-coder-0.5b}
tokens=${TOKENS:-2048}
precision=${PRECISION:-bf16}
mkdir -p "$out"
failed=0

part() {
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    if ! "$@" 2>"$out/log"; then
        failed=1
        echo "FAILED: $*"
        tail -n 5 "$out/log"
    fi
    echo "   $((SECONDS - start)) s"
}

# The largest difference of two files of logits, and the share of positions with the same likeliest token.
compare() {
    python3 - "$1" "$2" <<'PYTHON'
import array, json, struct, sys
def logits(path):
    data = open(path, "rb").read()
    length = struct.unpack("<Q", data[:8])[0]
    about = next(v for k, v in json.loads(data[8:8 + length]).items() if k != "__metadata__")
    first, last = about["data_offsets"]
    return about["shape"][-1], array.array("f", data[8 + length + first:8 + length + last])
(vocab, a), (_, b) = logits(sys.argv[1]), logits(sys.argv[2])
rows = range(0, len(a), vocab)
best = lambda x, row: max(range(row, row + vocab), key=x.__getitem__) - row
same = sum(best(a, row) == best(b, row) for row in rows)
worst = max(abs(x - y) for x, y in zip(a, b))
print(f"largest difference {worst:.2e} at a scale of {max(map(abs, a)):.1f}; likeliest token the same at {same} of {len(rows)}")
sys.exit(worst != worst)
PYTHON
}

logits() { "$program" logits --model "$model" --ids "$out/ids.json" --device "$1" --precision "$2" --out "$out/$3.safetensors"; }
against_processor() { logits "$device" "$1" "$1" && compare "$out/processor.safetensors" "$out/$1.safetensors"; }
bench() { "$program" bench "$@" --device "$device" --precision "$precision"; }

echo '[785, 6722, 315, 9625, 374, 12095, 13, 576, 6722, 315, 9856, 374, 19846, 13, 576, 6722]' >"$out/ids.json"
part "doctor" "$program" doctor --device "$device"
part "the processor's logits" logits cpu f32 processor
part "logits in f32" against_processor f32
part "logits in bf16" against_processor bf16
part "the whole program, small" "$program" quickstart --smoke --model "$model" --device "$device" --out "$out/quickstart"
for shape in "$@"; do
    json() { echo "$out/$shape-$1.json"; }
    part "train $shape" bench train --shape "$shape" --seq "$tokens" --prefix "$tokens" --out "$(json train)"
    part "prefill $shape" bench prefill --shape "$shape" --seq "$tokens" --prefix "$tokens" --out "$(json prefill)"
    if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
        for mode in "" --compile; do
            part "against PyTorch $mode, $shape" python3 "$(dirname "$0")/bench/against-torch.py" --program "$program" \
                --device "$device" --shape "$shape" --precision "$precision" --rounds 1 $mode
        done
    fi
    part "decode $shape" bench decode --shape "$shape" --batch 1,16 --prefix "$tokens" --out "$(json decode)"
done
exit "$failed"
