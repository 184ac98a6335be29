"""Checks a server with OpenAI's own Python package.

    python check_openai.py URL [--key KEY] [--cartridge ID] [--fake]

Everything is checked for its structure, which holds for any model; with --fake also for the exact
answers of the scripted stand-in (`cargo run --example fake_server`).
"""

import argparse
import io
import json
import time

import openai


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--key", default="none")
    parser.add_argument("--cartridge", help="id of a cartridge that the server has")
    parser.add_argument("--schemas", action="store_true", help="the server keeps answers to schemas")
    parser.add_argument("--fake", action="store_true")
    return parser.parse_args()


def user(text):
    return [{"role": "user", "content": text}]


def check_models(client, args):
    models = client.models.list().data
    assert len(models) == 1, models
    assert client.models.retrieve(models[0].id).id == models[0].id
    return models[0].id


def check_chat(client, model, args):
    answer = client.chat.completions.create(
        model=model, messages=user("say:one two"), max_completion_tokens=4, temperature=0, seed=1
    )
    assert answer.object == "chat.completion" and answer.model == model
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert 0 < answer.usage.completion_tokens <= 4
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    ids = json.loads(answer.system_fingerprint)["completion_ids"][0]
    assert len(ids) == answer.usage.completion_tokens
    if args.fake:
        assert answer.choices[0].message.content == "one two"
    again = client.chat.completions.create(
        model=model, messages=user("say:one two"), max_completion_tokens=4, temperature=0, seed=1
    )
    assert again.choices[0].message.content == answer.choices[0].message.content


def check_parts_and_n(client, model, args):
    parts = [{"type": "text", "text": "say:"}, {"type": "text", "text": "hello"}]
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": parts}], n=3, max_tokens=3, seed=7
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    if args.fake:
        assert all(choice.message.content == "hello" for choice in answer.choices)


def check_logprobs(client, model, args):
    answer = client.chat.completions.create(
        model=model, messages=user("say:a b c"), logprobs=True, top_logprobs=3, max_tokens=3,
        temperature=0,
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert token.logprob <= 0 and isinstance(token.bytes, list)
        assert len(token.top_logprobs) == 3
        falling = [top.logprob for top in token.top_logprobs]
        assert falling == sorted(falling, reverse=True)
    text = client.completions.create(model=model, prompt="say:a b c", logprobs=2, max_tokens=3)
    logprobs = text.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs)
    assert len(logprobs.text_offset) == len(logprobs.tokens)


def check_completions(client, model, args):
    answer = client.completions.create(model=model, prompt=["say:x", "say:y"], max_tokens=2, n=2)
    assert answer.object == "text_completion" and len(answer.choices) == 4
    if args.fake:
        assert [choice.text for choice in answer.choices] == ["x", "x", "y", "y"]
    ids = client.completions.create(model=model, prompt=[1, 2, 3], max_tokens=2)
    assert len(ids.choices) == 1


def check_streams(client, model, args):
    chunks = list(client.chat.completions.create(
        model=model, messages=user("say:a b c"), stream=True, max_tokens=5, temperature=0,
        logprobs=True, stream_options={"include_usage": True},
    ))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    tokens = sum(len(c.choices[0].logprobs.content) for c in chunks
                 if c.choices and c.choices[0].logprobs)
    assert tokens == chunks[-1].usage.completion_tokens
    assert [c for c in chunks if c.choices][-1].choices[0].finish_reason in ("stop", "length")
    whole = client.chat.completions.create(
        model=model, messages=user("say:a b c"), max_tokens=5, temperature=0
    )
    assert text == whole.choices[0].message.content, (text, whole.choices[0].message.content)
    pieces = client.completions.create(model=model, prompt="say:a b", stream=True, max_tokens=3)
    assert "".join(piece.choices[0].text for piece in pieces) is not None
    with client.chat.completions.create(
        model=model, messages=user("forever"), stream=True, max_tokens=200
    ) as stream:
        next(iter(stream))  # and then leave


def check_schema(client, model, args):
    if not (args.schemas or args.fake):
        return
    said = 'say:{"a": 1}'
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
              "additionalProperties": False}
    for form in (
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}},
    ):
        answer = client.chat.completions.create(
            model=model, messages=user(said), response_format=form, max_tokens=64, temperature=0
        )
        if answer.choices[0].finish_reason == "stop":
            value = json.loads(answer.choices[0].message.content)
            assert isinstance(value, dict)


def check_cartridges(client, model, args):
    if args.cartridge is None:
        return
    answer = client.chat.completions.create(
        model=model, messages=user("What is this about?"), max_tokens=4,
        extra_body={"cartridges": [{"id": args.cartridge, "source": "local"}]},
    )
    if args.fake:
        assert answer.choices[0].message.content.startswith(f"[{args.cartridge}]")
    try:
        client.chat.completions.create(
            model=model, messages=user("x"), max_tokens=4,
            extra_body={"cartridges": [{"id": "missing", "source": "local"}]},
        )
        raise AssertionError("a missing cartridge was served")
    except openai.NotFoundError as error:
        assert error.body["message"], error.body


def check_errors(client, model, args):
    for kind, more in (
        (openai.BadRequestError, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (openai.BadRequestError, {"frequency_penalty": 1.0}),
        (openai.BadRequestError, {"max_tokens": -1}),
        (openai.NotFoundError, {"model": "no-such-model"}),
    ):
        request = {"model": model, "messages": user("x"), "max_tokens": 1, **more}
        try:
            client.chat.completions.create(**request)
            raise AssertionError(f"{more} was taken")
        except kind as error:
            assert error.body["message"], error.body


def check_batches(client, model, args):
    url = "/v1/chat/completions"
    lines = [
        {"custom_id": f"line-{at}", "method": "POST", "url": url,
         "body": {"model": model, "messages": user(f"say:{at}"), "max_tokens": 2}}
        for at in range(5)
    ]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    sent = client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")
    assert sent.bytes == len(content) and sent.purpose == "batch"
    assert sent.id in [file.id for file in client.files.list()]
    batch = client.batches.create(input_file_id=sent.id, endpoint=url, completion_window="24h")
    while batch.status == "in_progress":
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed", batch
    assert (batch.request_counts.completed, batch.request_counts.failed) == (5, 0)
    output = client.files.content(batch.output_file_id).text
    answers = [json.loads(line) for line in output.splitlines()]
    assert [answer["custom_id"] for answer in answers] == [line["custom_id"] for line in lines]
    if args.fake:
        assert answers[3]["response"]["body"]["choices"][0]["message"]["content"] == "3"
    for file in (sent.id, batch.output_file_id):
        assert client.files.delete(file).deleted


def main():
    args = arguments()
    client = openai.OpenAI(base_url=args.url.rstrip("/") + "/v1", api_key=args.key, max_retries=0)
    model = check_models(client, args)
    for check in (check_chat, check_parts_and_n, check_logprobs, check_completions, check_streams,
                  check_schema, check_cartridges, check_errors, check_batches):
        check(client, model, args)
        print("ok", check.__name__)


if __name__ == "__main__":
    main()
