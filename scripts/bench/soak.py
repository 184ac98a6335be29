#!/usr/bin/env python3
"""Trains and serves at once for an hour, and looks whether memory grows or anything gets slower.

    scripts/bench/soak.py --program target/release/cartridges --data dataset.parquet --cartridge cartridges/handbook

One process trains a cartridge on the conversations, starting from the given one, another serves the given one to
three clients that ask without pause. Needs the standard library alone. Prints a row for each sixth of the time: the
seconds and the processor's seconds of a training step, the tokens per second of the answers, and the resident
memory of both (its greatest value). The exit status is 1 if, between the second sixth and the last, memory grew by
more than 3 %, or a step took over 10 % more of the processor; the first sixth is for warming up.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

QUESTIONS = [
    "What is the most important thing to know?",
    "Who is mentioned, and why?",
    "Summarise what you know in two sentences.",
    "Which numbers matter, and what do they stand for?",
]
TICKS = os.sysconf("SC_CLK_TCK")


def memory_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def start_server(args, log):
    folder = os.path.dirname(os.path.abspath(args.cartridge))
    # Small enough to be full within minutes: the server keeps the keys and values of what it has seen.
    command = [args.program, "serve", "--port", "0", "--cartridge-dir", folder, "--kv-tokens", "8192", *args.model]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    while server.poll() is None:
        with open(log.name) as text:
            found = re.search(r"^serving\s+(\S+)", text.read(), re.M)
        if found:
            return server, found[1].rstrip("/")
        time.sleep(0.5)
    sys.exit(f"the server ended: see {log.name}")


def ask(url, cartridge, number, answered, failed, stop):
    """Asks until told to stop; notes when an answer ended and how many tokens it had, or what went wrong."""
    while not stop.is_set():
        body = {
            "model": "default",
            "messages": [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}],
            "max_tokens": 48,
            "temperature": 0.7,
            "seed": number,
            "cartridges": [{"id": cartridge, "source": "local"}],
        }
        number += 1
        request = urllib.request.Request(
            url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as reply:
                answered.append((time.time(), json.load(reply)["usage"]["completion_tokens"]))
        except OSError as error:
            failed.append(f"{error} {error.read().decode() if hasattr(error, 'read') else ''}")
            return


def steps_of(path):
    if not os.path.exists(path):
        return []
    with open(path) as lines:
        return [json.loads(line)["seconds"] for line in lines if line.endswith("}\n")]


def measure(args, server, url, trainer, record, folder):
    """The rows of the table, and the number of answers."""
    answered, failed, stop = [], [], threading.Event()
    name = os.path.basename(os.path.abspath(args.cartridge))
    for client in range(3):
        threading.Thread(target=ask, args=(url, name, client, answered, failed, stop), daemon=True).start()
    length = args.minutes * 60 / 6
    rows = []
    print("| minutes | s/step | processor s/step | steps | answers tok/s | train MiB | serve MiB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for part in range(6):
        begin, steps, busy = time.time(), len(steps_of(record)), processor_seconds(trainer.pid)
        most = [0, 0]
        while time.time() < begin + length:
            for process, what in ((trainer, "training"), (server, "the server")):
                if process.poll() is not None:
                    sys.exit(f"{what} ended with {process.returncode}: see {folder}")
            if failed:
                sys.exit(f"a request failed: {failed[0]}; see {folder}")
            most = [max(most[0], memory_mib(trainer.pid)), max(most[1], memory_mib(server.pid))]
            time.sleep(2)
        seconds = steps_of(record)[steps:]
        if not seconds:
            sys.exit("no training step ended in a sixth of the time: give it more --minutes")
        tokens = sum(tokens for at, tokens in list(answered) if at >= begin)
        row = (statistics.median(seconds), (processor_seconds(trainer.pid) - busy) / len(seconds), len(seconds),
               tokens / (time.time() - begin), *most)
        rows.append(row)
        print("| {:.0f} to {:.0f} | {:.2f} | {:.2f} | {} | {:.1f} | {:.0f} | {:.0f} |".format(
            part * length / 60, (part + 1) * length / 60, *row), flush=True)
    stop.set()
    return rows, len(answered)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the built program")
    parser.add_argument("--data", required=True, help="conversations of self-study")
    parser.add_argument("--cartridge", required=True, help="a cartridge's folder")
    parser.add_argument("--model", default="", help="the model, if not the default one")
    parser.add_argument("--minutes", type=float, default=60)
    args = parser.parse_args()
    args.model = ["--model", args.model] if args.model else []

    folder = tempfile.mkdtemp(prefix="soak-")
    logs = [open(os.path.join(folder, name), "w") for name in ("serve.log", "train.log")]
    server, url = start_server(args, logs[0])
    out = os.path.join(folder, "trained")
    command = [args.program, "train", "--data", args.data, "--out", out, "--init", "cartridge",
               "--init-cartridge", args.cartridge, "--steps", "1000000", "--packed-seq-length", "512", *args.model]
    trainer = subprocess.Popen(command, stdout=logs[1], stderr=logs[1])
    record = os.path.join(out, "train.jsonl")
    while not steps_of(record) and trainer.poll() is None:
        time.sleep(1)

    try:
        rows, answers = measure(args, server, url, trainer, record, folder)
        for process in (trainer, server):
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(timeout=600) for process in (trainer, server)]
    finally:
        for process in (trainer, server):
            process.kill()

    early, late = rows[1], rows[-1]
    grown = [late[i] / early[i] - 1 for i in (4, 5)]
    slower = late[1] / early[1] - 1
    print(f"memory: training {grown[0]:+.1%}, serving {grown[1]:+.1%}; processor time of a step {slower:+.1%}; "
          f"{answers} answers; ended with {codes}")
    sys.exit(max(grown) > 0.03 or slower > 0.1)


if __name__ == "__main__":
    main()
