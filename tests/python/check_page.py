"""Checks the chat page in a headless Chromium.

    python check_page.py URL [--chromium PROGRAM] [--key KEY] [--shots FOLDER] [--fake]
"""

import argparse
import asyncio
import base64
import json
import pathlib
import subprocess
import tempfile

import aiohttp


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--key")
    parser.add_argument("--shots", type=pathlib.Path, help="folder for pictures of the page")
    parser.add_argument("--fake", action="store_true")
    return parser.parse_args()


class Page:
    """One tab, driven over the DevTools protocol."""

    def __init__(self, socket):
        self.socket, self.last, self.problems = socket, 0, []

    async def call(self, method, **params):
        self.last += 1
        wanted = self.last
        await self.socket.send_json({"id": wanted, "method": method, "params": params})
        while True:
            message = await self.socket.receive_json(timeout=30)
            self.note(message)
            if message.get("id") == wanted:
                assert "error" not in message, message
                return message["result"]

    def note(self, message):
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(message["params"]["exceptionDetails"])
        if message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            if entry["level"] == "error":
                self.problems.append(entry["text"])

    async def evaluate(self, expression):
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                                 awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression, seconds=60):
        for _ in range(int(seconds * 10)):
            if value := await self.evaluate(expression):
                return value
            await asyncio.sleep(0.1)
        raise AssertionError(f"never true: {expression}\n{self.problems}")

    async def shot(self, folder, name):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            picture = await self.call("Page.captureScreenshot")
            (folder / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))


async def say(page, text):
    await page.evaluate(
        f"at('text').value = {json.dumps(text)}; at('ask').requestSubmit(); true"
    )
    await page.until("running === null && messages.length > 0 "
                     "&& messages[messages.length - 1].role === 'assistant'")
    return await page.evaluate("messages[messages.length - 1].content")


async def check(page, args):
    for domain in ("Page", "Runtime", "Log"):
        await page.call(f"{domain}.enable")
    await page.call("Page.navigate", url=args.url)
    await page.until("document.readyState === 'complete' && typeof at === 'function'")
    if args.key:
        await page.until("at('keybox').offsetParent !== null")
        page.problems.clear()  # the refusals that asked for the key
        await page.evaluate(f"at('key').value = {json.dumps(args.key)}; at('usekey').click(); true")
    await page.until("at('load').textContent.includes('running')")
    assert args.key or await page.evaluate("at('keybox').offsetParent === null")
    await page.until("at('cartridges').childElementCount > 0")
    print("ok load:", await page.evaluate("at('load').textContent"))
    await page.evaluate(
        "(document.querySelector('#cartridges input') || {click() {}}).click(); true")
    chosen = await page.evaluate("chosen().join()")
    answer = await say(page, "Hello")
    if args.fake:
        assert answer.startswith(f"[{chosen}] "), answer
    shown = await page.evaluate("document.querySelector('#log').lastElementChild.textContent")
    assert shown == answer
    print("ok chat with cartridge", chosen or "(none)")
    evil = "say:<img src=x onerror=alert(1)><script>alert(2)</script>"
    await say(page, evil)
    assert await page.evaluate("document.querySelectorAll('#log img, #log script').length") == 0
    print("ok text is only text")
    for name, width, height, scheme in (
        ("wide-light", 1200, 800, "light"), ("wide-dark", 1200, 800, "dark"),
        ("phone-light", 360, 640, "light"), ("phone-dark", 360, 640, "dark"),
    ):
        await page.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                        deviceScaleFactor=1, mobile=width < 500)
        await page.call("Emulation.setEmulatedMedia",
                        features=[{"name": "prefers-color-scheme", "value": scheme}])
        await asyncio.sleep(0.2)
        fits = "document.documentElement.scrollWidth <= innerWidth " \
               "&& at('send').getBoundingClientRect().bottom <= innerHeight"
        assert await page.evaluate(fits), name
        await page.shot(args.shots, name)
    print("ok sizes and schemes")
    # A policy violation or a script error would be among these.
    assert not page.problems, page.problems
    print("ok no problems in the console")


async def main():
    args = arguments()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = subprocess.Popen(
            [args.chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"],
            stderr=subprocess.DEVNULL,
        )
        try:
            port_file = pathlib.Path(folder) / "DevToolsActivePort"
            while not (port_file.exists() and port_file.read_text().count("\n") >= 1):
                await asyncio.sleep(0.1)
            port = port_file.read_text().splitlines()[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    tabs = await response.json()
                tab = next(tab for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(
                    tab["webSocketDebuggerUrl"], max_msg_size=64 << 20
                ) as socket:
                    await check(Page(socket), args)
        finally:
            browser.terminate()
            browser.wait(timeout=20)


asyncio.run(main())
