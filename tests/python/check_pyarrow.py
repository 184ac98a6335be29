"""Checks conversations in parquet with pyarrow, the library that the reference writes and reads them with.

    python check_pyarrow.py CARTRIDGES FIXTURES

CARTRIDGES is the built program, FIXTURES the folder tests/fixtures. Needs pyarrow and tokenizers. What
pyarrow writes in the reference's schema, with ids and log-probabilities of either width, must train, and
train the same; what `cartridges synthesize` writes must have the reference's schema when pyarrow reads it.
"""

import argparse
import json
import math
import pathlib
import shutil
import subprocess
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers

WORDS = 508
SPECIAL = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
END = WORDS + SPECIAL.index("<|end|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("fixtures", type=pathlib.Path)
    return parser.parse_args()


def make_model(fixture, folder):
    """The tiny model with words as its tokens, the last four of which are marks of its chat template."""
    folder.mkdir()
    for file in ["config.json", "model.safetensors"]:
        shutil.copy(fixture / file, folder / file)
    vocabulary = {f"w{i}": i for i in range(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, special=True) for t in SPECIAL])
    assert tokenizer.token_to_id("<|end|>") == END
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def schema(position, token, logprob, targets=True):
    """The reference's schema with these element types."""
    top = pa.struct(
        [
            ("token_idx", pa.list_(position)),
            ("token_id", pa.list_(token)),
            ("logprobs", pa.list_(logprob)),
            ("shape", pa.list_(position)),
        ]
    )
    message = pa.struct(
        [
            ("content", pa.string()),
            ("role", pa.string()),
            ("token_ids", pa.list_(position) if targets else pa.null()),
            ("top_logprobs", top if targets else pa.null()),
        ]
    )
    metadata = pa.struct(
        [
            ("tool_calls", pa.list_(pa.null())),
            ("seed_prompt", pa.string()),
            ("initial_system_prompt", pa.string()),
        ]
    )
    return pa.schema(
        [
            ("messages", pa.list_(message)),
            ("system_prompt", pa.string()),
            ("metadata", metadata),
            ("type", pa.string()),
        ]
    )


# What the reference's own files have.
REFERENCE = schema(pa.int64(), pa.int32(), pa.float32())


def rows(targets=True):
    made = []
    for row in range(6):
        question = [(7 * row + i) % WORDS for i in range(5)]
        answer = [(11 * row + 3 * i) % WORDS for i in range(4)] + [END]
        top = {
            "token_idx": [i for i in range(5) for _ in range(2)],
            "token_id": [t for i in answer for t in (i, (i + 1) % WORDS)],
            # Exact in 32 bits, so that the width makes no difference.
            "logprobs": [-0.25, -2.5] * 5,
            "shape": [5, 2],
        }
        ids = [question + [END], answer] if targets else [None, None]
        words = [" ".join(f"w{i}" for i in ids) for ids in (question, answer[:-1])]
        made.append(
            {
                "messages": [
                    {
                        "content": words[0],
                        "role": "user",
                        "token_ids": ids[0],
                        "top_logprobs": None,
                    },
                    {
                        "content": words[1],
                        "role": "assistant",
                        "token_ids": ids[1],
                        "top_logprobs": top if targets else None,
                    },
                ],
                "system_prompt": "w1 w2 w3",
                "metadata": {
                    "tool_calls": [],
                    "seed_prompt": "w4",
                    "initial_system_prompt": "w1 w2 w3",
                },
                "type": "todo",
            }
        )
    return made


def run(program, *args):
    done = subprocess.run([program, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, f"{args}: {done.stderr}"
    return done.stdout


def train(program, model, data, out, config=None):
    more = ["--config", config] if config else []
    run(
        program, "train", "--model", model, "--data", data, "--out", out, "--init", "random",
        "--tokens", 8, "--steps", 2, "--packed-seq-length", 64, *more,
    )  # fmt: skip
    losses = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert len(losses) == 2, losses
    return (out / "cartridge.safetensors").read_bytes()


def reads_pyarrow(program, model, folder):
    variants = {
        "int64, int32, float32": REFERENCE,
        "int32, int32, float64": schema(pa.int32(), pa.int32(), pa.float64()),
        "int32, int64, float32": schema(pa.int32(), pa.int64(), pa.float32()),
        "int64, int64, float64": schema(pa.int64(), pa.int64(), pa.float64()),
        # Types as pyarrow finds them in the Python objects.
        "inferred": None,
    }
    made = {}
    for i, (name, kind) in enumerate(variants.items()):
        file = folder / f"{i}.parquet"
        pq.write_table(pa.Table.from_pylist(rows(), schema=kind), file)
        made[name] = train(program, model, file, folder / f"cartridge {i}")
        assert made[name] == next(iter(made.values())), f"{name} trains another cartridge"
        print(f"ok pyarrow's {name} trains")
    # The reference's layout on the hub: parts in a folder.
    parts = folder / "repository" / "data"
    parts.mkdir(parents=True)
    whole = pa.Table.from_pylist(rows(), schema=REFERENCE)
    for i in range(2):
        pq.write_table(whole.slice(3 * i, 3), parts / f"train-0000{i}-of-00002.parquet")
    found = train(program, model, parts.parent, folder / "cartridge parts")
    assert found == next(iter(made.values())), "two parts train another cartridge"
    print("ok data/*.parquet trains as one data set")
    # A data set without ids and log-probabilities: columns of type null.
    file, config = folder / "null.parquet", folder / "tokens.toml"
    pq.write_table(
        pa.Table.from_pylist(
            rows(False), schema=schema(pa.int64(), pa.int32(), pa.float32(), False)
        ),
        file,
    )
    config.write_text('targets = "tokens"\n')
    train(program, model, file, folder / "cartridge null", config)
    print("ok pyarrow's columns of type null train on their tokens")


def read_by_pyarrow(program, model, folder):
    text, settings = folder / "text.txt", folder / "study.toml"
    text.write_text(" ".join(f"w{i}" for i in range(40)) + "\n")
    settings.write_text("max_completion_tokens_a = 6\nmax_completion_tokens_b = 6\n")
    run(
        program, "synthesize", "--model", model, "--corpus", text, "--out", folder / "study",
        "--config", settings, "--conversations", 4,
    )  # fmt: skip
    file = folder / "study" / "dataset.parquet"
    table = pq.read_table(file)
    assert table.column_names == REFERENCE.names, table.column_names
    for name in ["messages", "system_prompt", "type"]:
        found, wanted = table.schema.field(name).type, REFERENCE.field(name).type
        assert found.equals(wanted), f"{name}: {found}, expected {wanted}"
    # Ours has more about how a row was made; what the reference has comes first.
    found, wanted = (s.field("metadata").type for s in (table.schema, REFERENCE))
    for i in range(wanted.num_fields):
        assert found.field(i).equals(wanted.field(i)), found.field(i)
    file_schema = pq.ParquetFile(file)
    column = file_schema.metadata.row_group(0).column(0)
    assert column.compression == "SNAPPY" and column.path_in_schema == "messages.list.element.content"

    positions = 0
    for row in table.to_pylist():
        assert row["messages"] and row["system_prompt"] and row["metadata"]["tool_calls"] == []
        for message in row["messages"]:
            top = message["top_logprobs"]
            if top is None:
                continue
            count, k = top["shape"]
            assert count == len(message["token_ids"])
            assert len(top["token_idx"]) == len(top["token_id"]) == len(top["logprobs"])
            assert top["token_idx"] == sorted(top["token_idx"]) and max(top["token_idx"]) < count
            mass = [0.0] * count
            for position, logprob in zip(top["token_idx"], top["logprobs"]):
                mass[position] += math.exp(logprob)
            assert all(0.0 < m <= 1.0 + 1e-3 for m in mass), mass
            assert max(map(top["token_idx"].count, range(count))) <= k
            positions += count
    assert positions > 0, "nothing has targets"
    print(f"ok pyarrow reads our {table.num_rows} rows in the reference's schema")


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        program, model = args.program.resolve(), folder / "model"
        make_model(args.fixtures / "tiny-qwen2", model)
        reads_pyarrow(program, model, folder)
        read_by_pyarrow(program, model, folder)
    print(f"ok with pyarrow {pa.__version__}")


if __name__ == "__main__":
    main()
