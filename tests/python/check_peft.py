"""Checks the formats of other programs with those programs: PEFT and transformers, torch, and mlx_lm where
it is installed.

    python check_peft.py CARTRIDGES FIXTURES

CARTRIDGES is the built program, FIXTURES the folder tests/fixtures. Needs torch, transformers, peft,
tokenizers and safetensors. For every tiny model there: what `cartridges convert` writes, loaded by the
other program, must give the logits of `cartridges logits`, and the other way round; so must a whole model
with an adapter in its weights.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import peft
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

try:
    import mlx.core as mx
    from mlx_lm.models import cache as mlx_cache
except ImportError:
    mlx_cache = None

warnings.filterwarnings("ignore", category=FutureWarning)
transformers.utils.logging.disable_progress_bar()

MODELS = ["tiny-llama3", "tiny-qwen2", "tiny-qwen3"]
IDS = [3, 17, 250, 9, 88, 41, 7, 300, 12]
TOLERANCE = 1e-4


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("fixtures", type=pathlib.Path)
    return parser.parse_args()


class Check:
    """One tiny model with a folder to work in."""

    def __init__(self, program, fixture, folder):
        self.program = program.resolve()
        self.name = fixture.name
        self.folder = folder
        self.fixture = fixture
        self.model = folder / "model"
        self.model.mkdir()
        for file in ["config.json", "model.safetensors"]:
            shutil.copy(fixture / file, self.model / file)
        # Our folders say for which tokenizer they are, and the tiny models have none.
        words = {f"w{i}": i for i in range(512)}
        vocabulary = tokenizers.models.WordLevel(words, unk_token="w0")
        tokenizers.Tokenizer(vocabulary).save(str(self.model / "tokenizer.json"))
        settings = {
            "eos_token": "w2",
            "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
        }
        (self.model / "tokenizer_config.json").write_text(json.dumps(settings))
        self.ids = folder / "ids.json"
        self.ids.write_text(json.dumps(IDS))

    def run(self, *args):
        done = subprocess.run([self.program, *map(str, args)], capture_output=True, text=True)
        assert done.returncode == 0, f"{args}: {done.stderr}"
        return done.stdout

    def convert(self, source, to, name, *more):
        out = self.folder / name
        self.run("convert", source, "--to", to, "--out", out, *more)
        return out

    def ours(self, *more):
        out = self.folder / "logits.safetensors"
        self.run("logits", "--model", self.model, "--ids", self.ids, "--out", out, *more)
        return load_file(out)["logits"]

    def base(self, folder=None):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder or self.model, dtype=torch.float32, attn_implementation="eager"
        )
        return model.eval()

    def ok(self, what, found, wanted):
        assert found.shape == wanted.shape, f"{self.name} {what}: {found.shape} {wanted.shape}"
        worst = (found.double() - wanted.double()).abs().max().item()
        assert worst <= TOLERANCE, f"{self.name} {what}: off by {worst:.2e}"
        print(f"ok {self.name}: {what} (off by {worst:.1e})")


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS])).logits[0]


def cartridges(check):
    public = check.fixture / "cartridge_public.pt"
    ours = check.convert(public, "cartridge", "ours", "--model", check.model, "--dtype", "f32")
    wanted = check.ours("--cartridge", ours)
    assert (wanted - check.ours()).abs().max() > 0.1, "the cartridge changes nothing"

    exported = check.convert(ours, "peft", "peft")
    model = peft.PeftModel.from_pretrained(check.base(), exported)
    assert model.active_peft_config.peft_type == peft.PeftType.CARTRIDGE
    check.ok("PEFT gives our logits behind our cartridge", logits(model), wanted)

    saved = check.folder / "saved"
    model.save_pretrained(saved)
    again = check.convert(saved, "cartridge", "again", "--model", check.model)
    check.ok("we give our logits behind PEFT's cartridge", check.ours("--cartridge", again), wanted)

    encoder = model.prompt_encoder["default"]
    manifest = json.loads((ours / "cartridge.json").read_text())
    assert encoder.num_frozen_tokens == manifest["frozen"]
    assert encoder.frozen_embedding.shape[0] == manifest["frozen"]
    print(f"ok {check.name}: PEFT freezes the slots that we freeze")

    frozen, tensors = manifest["frozen"], load_file(ours / "cartridge.safetensors")
    for dtype, kind in [("f32", torch.float32), ("bf16", torch.bfloat16), ("f16", torch.float16)]:
        file = check.convert(exported, "pt", f"{dtype}.pt", "--dtype", dtype)
        loaded = torch.load(file, weights_only=True)
        for part, name in [("key", "keys"), ("value", "values")]:
            assert len(loaded[f"trainable_{name}"]) == manifest["base_model"]["num_layers"]
            for layer, rest in enumerate(loaded[f"trainable_{name}"]):
                whole = torch.cat([loaded[f"frozen_{name}"][layer], rest], dim=2)[0]
                assert loaded[f"frozen_{name}"][layer].shape[2] == frozen and whole.dtype == kind
                assert torch.equal(whole, tensors[f"layers.{layer}.{part}"].to(kind))
    print(f"ok {check.name}: torch loads our .pt in three element types")
    if mlx_cache is not None:
        prompt_cache(check, ours, tensors)
    return manifest["base_model"]


def prompt_cache(check, ours, tensors):
    for dtype, kind in [("f32", mx.float32), ("bf16", mx.bfloat16), ("f16", mx.float16)]:
        file = check.convert(ours, "mlx", f"{dtype}.safetensors", "--dtype", dtype)
        loaded, about = mlx_cache.load_prompt_cache(str(file), return_metadata=True)
        assert about["model"] and len(loaded) == check.base().config.num_hidden_layers
        for layer, found in enumerate(loaded):
            wanted = tensors[f"layers.{layer}.key"], tensors[f"layers.{layer}.value"]
            assert type(found) is mlx_cache.KVCache and found.offset == wanted[0].shape[1]
            for array, tensor in zip(found.keys_and_values(), wanted):
                assert array.dtype == kind
                same = mx.array(tensor.numpy())[None].astype(kind)
                assert array.shape == same.shape and mx.array_equal(array, same).item()
    print(f"ok {check.name}: mlx_lm loads our prompt cache in three element types")


def write_adapter(check, folder, identity, patches):
    """An adapter folder by hand: {target: (rank, scale)} in mode linear."""
    config = json.loads((check.model / "config.json").read_text())
    hidden, wide, heads = (
        config[name] for name in ["hidden_size", "intermediate_size", "num_attention_heads"]
    )
    queries = heads * config.get("head_dim", hidden // heads)
    widths = {
        "down_proj": (wide, hidden),
        "o_proj": (queries, hidden),
        "q_proj": (hidden, queries),
        "lm_head": (hidden, config["vocab_size"]),
    }
    folder.mkdir()
    tensors, records = {}, []
    for target, (rank, scale) in patches.items():
        inputs, outputs = widths[target.split(".")[-1]]
        tensors[f"{target}.lora_a"] = torch.randn(rank, inputs) / 4
        tensors[f"{target}.lora_b"] = torch.randn(outputs, rank) / 4
        records.append(
            {
                "target": target,
                "mode": "linear",
                "scale": scale,
                "inputs": inputs,
                "outputs": outputs,
            }
        )
    file = folder / "adapter.safetensors"
    save_file(tensors, file)
    manifest = {
        "format_version": 1,
        "base_model": identity,
        "patches": records,
        "dtype": "f32",
        "made_by": {"program": "check_peft.py"},
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    (folder / "adapter.json").write_text(json.dumps(manifest))


def adapters(check, identity):
    torch.manual_seed(1)
    layers = {f"model.layers.{i}.mlp.down_proj": (i + 1, 0.5) for i in range(3)}
    some = {"model.layers.1.self_attn.o_proj": (2, 1.0), "model.layers.2.self_attn.q_proj": (4, -1.5)}
    for name, patches in [
        ("every layer", layers),
        ("some layers", layers | some),
        ("lm_head", {"lm_head": (3, 1.0)}),
    ]:
        folder = check.folder / name
        write_adapter(check, folder, identity, patches)
        wanted = check.ours("--adapter", folder)
        assert (wanted - check.ours()).abs().max() > 0.1, "the adapter changes nothing"
        exported = check.convert(folder, "lora", f"{name} lora")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            # An lm_head that shares its weights cannot be merged; nothing is merged here.
            warnings.filterwarnings("ignore", message=".*tie.*")
            model = peft.PeftModel.from_pretrained(check.base(), exported)
        wrapped = [n for n, m in model.named_modules() if hasattr(m, "lora_A")]
        assert len(wrapped) == len(patches), f"{name}: PEFT changes {wrapped}"
        check.ok(f"PEFT gives our logits with our adapter ({name})", logits(model), wanted)
        saved = check.folder / f"{name} saved"
        model.save_pretrained(saved, save_embedding_layers=False)
        again = check.convert(saved, "adapter", f"{name} again", "--model", check.model)
        found = check.ours("--adapter", again)
        check.ok(f"we give our logits with PEFT's adapter ({name})", found, wanted)
        merged(check, folder, name, wanted)


def merged(check, adapter, name, wanted):
    """A whole model with the adapter in its weights, loaded by transformers alone."""
    whole = check.convert(adapter, "merged", f"{name} merged", "--model", check.model)
    model = check.base(whole)
    check.ok(f"transformers gives our logits with the adapter in the weights ({name})", logits(model), wanted)
    head, table = model.lm_head.weight, model.model.embed_tokens.weight
    tied = check.base().config.tie_word_embeddings and name != "lm_head"
    assert (head.data_ptr() == table.data_ptr()) == tied, "the head is not tied as it should be"
    assert torch.equal(table, check.base().model.embed_tokens.weight)
    for dtype, kind in [("bf16", torch.bfloat16), ("f16", torch.float16)]:
        more = ["--model", check.model, "--dtype", dtype]
        small = check.convert(adapter, "merged", f"{name} {dtype}", *more)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(small, dtype="auto")
        assert loaded.dtype == kind, f"{name}: {loaded.dtype}"
        for part, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[part].to(kind)), part
    print(f"ok {check.name}: transformers loads the merged model in three element types ({name})")


def forks_adapters(check):
    """Both layouts of the transmutation fork, which patches the output of the final norm."""
    hidden = check.base().config.hidden_size
    torch.manual_seed(2)
    bias, weight = torch.randn(hidden), torch.randn(hidden, hidden) / 16
    model = check.base()
    model.model.norm.register_forward_hook(lambda _m, _i, out: out + out @ weight.T + bias)
    wanted = logits(model)
    metadata = {"data_paths": ["a.parquet"], "num_patches": 12, "lambda_scale": 0.25}
    single = {
        "bias_delta": bias,
        "weight_delta": weight,
        "model_name": "owner/model",
        "tokenizer_name": "owner/model",
        "lambda_scale": None,
    }
    layers = {
        "bias_deltas": {0: torch.zeros(hidden), -1: bias},
        "weight_deltas": {0: torch.zeros(hidden, hidden), -1: weight},
        "metadata": metadata | {"layers": [0, -1]},
        "model_name": "owner/model",
        "tokenizer_name": "owner/model",
    }
    for name, content in [("single", single), ("layers", layers)]:
        file = check.folder / f"{name}.pt"
        torch.save(content, file)
        folder = check.convert(file, "adapter", f"fork {name}", "--model", check.model)
        found = check.ours("--adapter", folder)
        check.ok(f"the fork's adapter ({name}) acts at the final norm", found, wanted)


def main():
    args = arguments()
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            check = Check(args.program, args.fixtures / name, pathlib.Path(folder))
            identity = cartridges(check)
            adapters(check, identity)
            forks_adapters(check)
    if mlx_cache is None:
        print("mlx_lm is not installed: its prompt cache was not checked")
    versions = {m.__name__: m.__version__ for m in [peft, transformers, torch]}
    print("ok with " + ", ".join(f"{name} {version}" for name, version in versions.items()))


if __name__ == "__main__":
    main()
