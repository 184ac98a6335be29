"""Checks a server with a client that does what the reference's Tokasaurus client does.

    python check_tokasaurus.py URL [--key KEY] [--cartridge ID] [--fake]

The reference's client needs no key; with one, the header is sent as well.
"""

import argparse
import array
import asyncio
import base64
import json
import pickle
import sys

import aiohttp


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--key")
    parser.add_argument("--cartridge", help="id of a cartridge that the server has")
    parser.add_argument("--fake", action="store_true")
    return parser.parse_args()


def unpack(kind, text):
    values = array.array(kind, base64.b64decode(text))
    if sys.byteorder == "big":
        values.byteswap()
    return list(values)


def get(item, name):
    """Batches without cartridges hold objects, those with cartridges dicts of objects."""
    return item[name] if isinstance(item, dict) else getattr(item, name)


async def post(session, url, body):
    async with session.post(url, json=body) as response:
        return response.status, await response.content.read()


async def check_batch(session, args, path, model, cartridges, top):
    def request(text):
        made = {
            "messages": [{"role": "user", "content": text}],
            "model": model,
            "max_completion_tokens": 8,
            "temperature": 0.0,
            "apply_chat_template_overrides": {"enable_thinking": False},
            "logprobs_in_fingerprint": True,
        }
        if cartridges:
            made["cartridges"] = cartridges
        if top is not None:
            made |= {"logprobs": True, "top_logprobs": top}
        return made

    texts = ["say:first words", "say:second words", "say:third"]
    status, body = await post(session, args.url + path, {"requests": [request(t) for t in texts]})
    assert status == 200, body
    items = pickle.loads(body)
    assert len(items) == len(texts)
    for item in items:
        assert isinstance(item, dict) == ("cartridge" in path)
        usage = get(item, "usage")
        assert usage.prompt_tokens > 0 and usage.completion_tokens > 0
        choice = get(item, "choices")[0]
        assert isinstance(choice.message.content, str)
        assert choice.finish_reason in ("stop", "length")
        fingerprint = json.loads(get(item, "system_fingerprint"))
        ids = fingerprint["completion_ids"][0]
        assert len(ids) == usage.completion_tokens
        chosen = unpack("f", fingerprint["packed_chosen_logprobs"][0])
        assert len(chosen) == len(ids) and all(value <= 0 for value in chosen)
        if top is None:
            assert fingerprint["packed_topk_indices"] is None
            continue
        indices = unpack("i", fingerprint["packed_topk_indices"][0])
        logprobs = unpack("f", fingerprint["packed_topk_logprobs"][0])
        assert len(indices) == len(logprobs) == len(ids) * top
        for row in range(len(ids)):
            values = logprobs[row * top : (row + 1) * top]
            assert values == sorted(values, reverse=True)
            # Greedy: the likeliest is the chosen one.
            assert indices[row * top] == ids[row] and abs(values[0] - chosen[row]) < 1e-5
    if args.fake:
        contents = [get(item, "choices")[0].message.content for item in items]
        assert contents == ["first words", "second words", "third"], contents


async def check_single(session, args, model, cartridges):
    for prefix in ("/custom/cartridge", "/v1/cartridge"):
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 4,
                "cartridges": cartridges}
        status, answer = await post(session, args.url + prefix + "/chat/completions", body)
        assert status == 200, answer
        assert json.loads(answer)["object"] == "chat.completion"
        body = {"model": model, "prompt": "x", "max_tokens": 4, "cartridges": cartridges}
        status, answer = await post(session, args.url + prefix + "/completions", body)
        assert status == 200, answer
        assert json.loads(answer)["object"] == "text_completion"


async def check_errors(session, args, model):
    path = "/custom/cartridge/chat/completions"
    good = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    for more, wanted in (
        ({"unknown": 1}, 422),
        ({"max_tokens": "x"}, 422),
        ({"frequency_penalty": 1}, 400),
        ({"max_tokens": None}, 400),
        ({"cartridges": [{"id": "missing", "source": "local"}]}, 400),
        ({"cartridges": [{"id": "elsewhere/cartridge", "source": "wandb"}]}, 400),
    ):
        status, answer = await post(session, args.url + path, good | more)
        if "max_tokens" in more and more["max_tokens"] is None and status == 200:
            continue  # the server has a limit of its own
        assert status == wanted, (more, status, answer)
        assert json.loads(answer)["detail"]


async def main():
    args = arguments()
    args.url = args.url.rstrip("/")
    headers = {"Authorization": f"Bearer {args.key}"} if args.key else {}
    timeout = aiohttp.ClientTimeout(total=90)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        async with session.get(args.url + "/ping") as response:
            assert await response.json() == {"message": "pong"}
        async with session.get(args.url + "/v1/models") as response:
            models = (await response.json())["data"]
            assert len(models) == 1
            model = models[0]["id"]
        for path in ("/custom/synchronous-batch-completions", "/batch/chat/completions"):
            for top in (None, 4):
                await check_batch(session, args, path, model, None, top)
            print("ok", path)
        cartridges = []
        if args.cartridge:
            # The reference's client can only name remote sources.
            cartridges = [{"id": args.cartridge, "source": "huggingface", "force_redownload": False}]
        fake, args.fake = args.fake, False  # with a cartridge its name is part of the answer
        for path in ("/batch/cartridge/chat/completions",
                     "/custom/cartridge/synchronous-batch-completions"):
            await check_batch(session, args, path, model, cartridges, 4)
            print("ok", path)
        args.fake = fake
        await check_single(session, args, model, cartridges)
        print("ok single requests")
        await check_errors(session, args, model)
        print("ok errors")


asyncio.run(main())
