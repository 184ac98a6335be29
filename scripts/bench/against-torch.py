#!/usr/bin/env python3
"""The same work by `cartridges bench` and by PyTorch (torch_reference.py beside this file), in turns.

    python3 -m venv env && env/bin/pip install torch numpy
    env/bin/python scripts/bench/against-torch.py --program target/release/cartridges [--rounds 3] [--threads 2]

Prints one row per kind of work: the medians of both, tokens per second against each other, and peak memory. Work in
precisions that the reference has not is set against its f32.

On a GPU, with a program that was built for it:

    python3 scripts/bench/against-torch.py --program cartridges --device cuda:0 --shape qwen3-0.6b --precision bf16
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TORCH = str(HERE / "torch_reference.py")

# What the reference must be told of a shape (those of crates/cartridges-model/models).
SHAPES = {
    "smollm2-135m": dict(layers=30, hidden=576, heads=9, kv_heads=3, head_dim=64, ffn=1536, vocab=49152),
    "qwen3-0.6b": dict(layers=28, hidden=1024, heads=16, kv_heads=8, head_dim=128, ffn=3072, vocab=151936),
    "qwen3-4b": dict(layers=36, hidden=2560, heads=32, kv_heads=8, head_dim=128, ffn=9728, vocab=151936),
}


def train(seq, prefix, segments, *more):
    ours = ["train", "--seq", seq, "--prefix", prefix, "--segment", seq // segments, *more]
    return f"train {seq}, prefix {prefix}, {segments} segments", ours, [
        "train", "--seq", seq, "--prefix", prefix, "--segments", segments, *more]


def prefill(seq, prefix):
    work = ["prefill", "--seq", seq, "--prefix", prefix]
    return f"prefill {seq}, prefix {prefix}", work, work


def decode(batch, prefix):
    work = ["decode", "--batch", batch, "--prefix", prefix]
    name = f"decode, batch {batch}, {'shared ' if batch > 1 else ''}prefix {prefix}"
    return name, work, work + ["--shared"] * (batch > 1)


# Name, arguments of `cartridges bench`, arguments of the reference.
ON_PROCESSOR = [train(512, 256, 2), train(2048, 1024, 8, "--steps", 3), prefill(512, 256), decode(1, 256),
                decode(16, 1024)]
ON_GPU = [train(2048, 2048, 8), prefill(2048, 2048), decode(1, 2048), decode(16, 2048)]


def last_json(command):
    command = [str(word) for word in command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def ours(args, work, precision):
    command = [args.program, "bench", *work, "--shape", args.shape, "--precision", precision, "--json"]
    report = last_json(command + ["--threads", args.threads, "--device", args.device])
    row = report["rows"][0]
    return row["tokens_per_s"], row["peak_bytes"] / 2**20


def torch(args, work):
    shape = [word for name, value in SHAPES[args.shape].items() for word in ("--" + name.replace("_", "-"), value)]
    options = ["--threads", args.threads, "--device", args.device.removesuffix(":0")]
    options += ["--dtype", args.torch_dtype] + ["--compile"] * args.compile
    row = last_json([sys.executable, TORCH, *work, *shape, *options])
    return row["tokens_per_s"], row["peak_rss_mib"]


def middle(pairs):
    return [statistics.median(column) for column in zip(*pairs)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the built program")
    parser.add_argument("--precision", default="f32", help="several with commas between: f32, bf16, q8, q4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", default="smollm2-135m", choices=SHAPES)
    parser.add_argument("--torch-dtype", default="", help="of the reference: f32 on a processor, bf16 on a GPU")
    parser.add_argument("--compile", action="store_true", help="let the reference use torch.compile")
    parser.add_argument("--only", default="", help="work whose name begins with this")
    args = parser.parse_args()
    gpu = args.device != "cpu"
    args.torch_dtype = args.torch_dtype or ("bf16" if gpu else "f32")
    print(f"| work | precision | tokens/s | PyTorch {args.torch_dtype} | ratio | peak MiB | PyTorch | share |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name, mine, theirs in ON_GPU if gpu else ON_PROCESSOR:
        if not name.startswith(args.only):
            continue
        precisions = args.precision.split(",")
        found = {precision: [] for precision in precisions}
        reference = []
        for _ in range(args.rounds):
            reference.append(torch(args, theirs))
            for precision in precisions:
                found[precision].append(ours(args, mine, precision))
        speed, memory = middle(reference)
        for precision in precisions:
            own_speed, own_memory = middle(found[precision])
            print(f"| {name} | {precision} | {own_speed:.1f} | {speed:.1f} | {own_speed / speed:.2f} "
                  f"| {own_memory:.0f} | {memory:.0f} | {own_memory / memory:.2f} |", flush=True)


if __name__ == "__main__":
    main()
