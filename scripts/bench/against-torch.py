#!/usr/bin/env python3
"""The same work by `cartridges bench` and by PyTorch (torch_reference.py beside this file), in turns.

    python3 -m venv env && env/bin/pip install torch numpy
    env/bin/python scripts/bench/against-torch.py --program target/release/cartridges [--rounds 3] [--threads 2]

Prints one row per kind of work: the medians of both, tokens per second against each other, and peak memory. Work in
precisions that the reference has not is set against its f32.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TORCH = str(HERE / "torch_reference.py")

# Name, arguments of `cartridges bench`, arguments of the reference.
WORK = [
    ("train 512, prefix 256, 2 segments",
     ["train", "--seq", "512", "--prefix", "256", "--segment", "256"],
     ["train", "--seq", "512", "--prefix", "256", "--segments", "2"]),
    ("train 2048, prefix 1024, 8 segments",
     ["train", "--seq", "2048", "--prefix", "1024", "--segment", "256", "--steps", "3"],
     ["train", "--seq", "2048", "--prefix", "1024", "--segments", "8", "--steps", "3"]),
    ("prefill 512, prefix 256",
     ["prefill", "--seq", "512", "--prefix", "256"],
     ["prefill", "--seq", "512", "--prefix", "256"]),
    ("decode, batch 1, prefix 256",
     ["decode", "--batch", "1", "--prefix", "256"],
     ["decode", "--batch", "1", "--prefix", "256"]),
    ("decode, batch 16, shared prefix 1024",
     ["decode", "--batch", "16", "--prefix", "1024"],
     ["decode", "--batch", "16", "--prefix", "1024", "--shared"]),
]


def last_json(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def ours(program, work, precision, threads):
    command = [program, "bench", *work, "--shape", "smollm2-135m", "--precision", precision, "--json"]
    report = last_json(command + ["--threads", str(threads)])
    row = report["rows"][0]
    return row["tokens_per_s"], row["peak_bytes"] / 2**20


def torch(work, threads):
    row = last_json([sys.executable, TORCH, *work, "--threads", str(threads)])
    return row["tokens_per_s"], row["peak_rss_mib"]


def middle(pairs):
    return [statistics.median(column) for column in zip(*pairs)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the built program")
    parser.add_argument("--precision", default="f32", help="several with commas between: f32, bf16, q8, q4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--only", default="", help="work whose name begins with this")
    args = parser.parse_args()
    print("| work | precision | tokens/s | PyTorch f32 | ratio | peak MiB | PyTorch | share |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name, mine, theirs in WORK:
        if not name.startswith(args.only):
            continue
        precisions = args.precision.split(",")
        found = {precision: [] for precision in precisions}
        reference = []
        for _ in range(args.rounds):
            reference.append(torch(theirs, args.threads))
            for precision in precisions:
                found[precision].append(ours(args.program, mine, precision, args.threads))
        speed, memory = middle(reference)
        for precision in precisions:
            own_speed, own_memory = middle(found[precision])
            print(f"| {name} | {precision} | {own_speed:.1f} | {speed:.1f} | {own_speed / speed:.2f} "
                  f"| {own_memory:.0f} | {memory:.0f} | {own_memory / memory:.2f} |", flush=True)


if __name__ == "__main__":
    main()
