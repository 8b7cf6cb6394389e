"""The status page in headless Chromium, over the DevTools protocol.

    status_page.py URL STEP...

Steps: login=TOKEN, rows=COUNT, themes, keyboard, filter, patched, drain, disk=SIZE. Whatever the console, the content security
policy or an exception complains of is a failure too. With PORTCULLIS_SHOTS=FOLDER each theme leaves a picture there.
"""
import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

import websockets

PATIENCE = 20

# The lowest contrast of text on what lies below it, and where it is.
CONTRAST = """(() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return { r, g, b, a }; };
  const over = (top, below) => ({ r: top.r * top.a + below.r * (1 - top.a), g: top.g * top.a + below.g * (1 - top.a), b: top.b * top.a + below.b * (1 - top.a), a: 1 });
  const light = ({ r, g, b }) => { const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const ground = (node) => { const up = []; for (let at = node; at; at = at.parentElement) up.push(parse(getComputedStyle(at).backgroundColor)); return up.reverse().reduce((below, top) => over(top, below), { r: 255, g: 255, b: 255, a: 1 }); };
  let worst = { ratio: 99 };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim() || !node.checkVisibility() || node.closest("noscript, .unseen, .skip, option, svg")) continue;
    const below = ground(node), above = over(parse(getComputedStyle(node).color), below);
    const [a, b] = [light(above), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst.ratio) worst = { ratio, text: text.data.trim().slice(0, 40), tag: node.tagName + "." + node.className };
  }
  return worst;
})()"""


class Page:
    def __init__(self, socket):
        self.socket, self.count, self.wrong = socket, 0, []

    async def call(self, method, **parameters):
        self.count += 1
        number = self.count
        await self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE))
            self.note(answer)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def note(self, event):
        kind, facts = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.wrong.append(json.dumps(facts["exceptionDetails"])[:600])
        if kind == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.wrong.append("console: " + json.dumps(facts["args"])[:400])
        if kind == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.wrong.append(facts["entry"]["text"] + " " + facts["entry"].get("url", ""))

    async def look(self, expression):
        """What an expression is on the page."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (expression, answer)
        return answer["result"].get("value")

    async def until(self, what, expression, wanted=True):
        """Looks again and again until it is as it should be."""
        end = time.monotonic() + PATIENCE
        while True:
            found = await self.look(expression)
            if found == wanted:
                return
            if time.monotonic() > end:
                raise AssertionError(f"{what}: {expression} is {found!r} and not {wanted!r}; {self.wrong}")
            await asyncio.sleep(0.05)

    async def press(self, key, code=None):
        names = {"/": ("Slash", 191), "Escape": ("Escape", 27), "Enter": ("Enter", 13), "ArrowDown": ("ArrowDown", 40)}
        code, number = names.get(key, (f"Key{key.upper()}", ord(key.upper()[0])))
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        more = {"text": text} if text else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=code, windowsVirtualKeyCode=number, **more)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code, windowsVirtualKeyCode=number)

    async def type(self, text):
        await self.call("Input.insertText", text=text)

    async def media(self, theme):
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])


async def login(page, token):
    await page.until("the token is asked for", "document.getElementById('login').open")
    assert await page.look("document.getElementById('main').hidden"), "nothing is shown before"
    await page.look("document.getElementById('token').focus()")
    await page.type("not the right one")
    await page.press("Enter")
    await page.until("a wrong one is told", "document.getElementById('login-error').textContent", "This is not the right token.")
    await page.until("it is asked for again", "document.getElementById('login').open && document.getElementById('token').value === ''")
    await page.look("document.getElementById('token').focus()")
    await page.type(token)
    await page.press("Enter")
    await page.until("it is let in", "!document.getElementById('main').hidden && !document.getElementById('login').open")
    kept = await page.look("[document.cookie, JSON.stringify(localStorage), location.href].join(' ')")
    assert token not in kept, kept
    # Chromium tells of each 401 on its console, as it should.
    page.wrong = [wrong for wrong in page.wrong if "401" not in wrong]


async def rows(page, count):
    await page.until("all backends have a row", "document.querySelectorAll('tbody tr').length", int(count))
    await page.until("what is on the screen is drawn", "document.querySelector('tbody tr .word').textContent !== ''")
    words = await page.look("[...new Set([...document.querySelectorAll('tbody tr[data-state] .word')].map((it) => it.textContent))]")
    assert words and all(words), words
    assert await page.look("document.getElementById('live').textContent") == "live"
    before = await page.look("Number(document.body.dataset.received)")
    await page.until("it goes on by itself", f"Number(document.body.dataset.received) > {before} + 1")


async def themes(page, _):
    await page.look("document.activeElement.blur()")
    grounds = []
    for theme in ("light", "dark"):
        await page.media(theme)
        await page.until("no colour is on its way any more", "document.getAnimations().length", 0)
        grounds.append(await page.look("getComputedStyle(document.body).backgroundColor"))
        worst = await page.look(CONTRAST)
        assert worst["ratio"] >= 4.5, (theme, worst)
        folder = os.environ.get("PORTCULLIS_SHOTS")
        if folder:
            picture = await page.call("Page.captureScreenshot", format="png")
            count = await page.look("document.querySelectorAll('tbody tr').length")
            with open(f"{folder}/page-{count}-{theme}.png", "wb") as file:
                file.write(base64.b64decode(picture["data"]))
    assert grounds[0] != grounds[1], grounds
    # A choice counts more than what the system wishes, and holds.
    await page.press("t")
    await page.until("the theme is switched", "getComputedStyle(document.body).backgroundColor", grounds[0])
    await page.press("t")
    await page.until("and back", "getComputedStyle(document.body).backgroundColor", grounds[1])
    await page.media("light")


async def keyboard(page, _):
    name = await page.look("document.querySelectorAll('tbody tr .name')[1].textContent")
    await page.press("/")
    await page.until("the filter has the focus", "document.activeElement.id", "search")
    await page.type(name)
    await page.until("one is left", "document.querySelectorAll('tbody tr').length", 1)
    await page.press("Escape")
    await page.until("all are back", "document.querySelectorAll('tbody tr').length > 1")
    await page.press("j")
    await page.press("j")
    await page.until("the second row has the focus", "document.activeElement.closest('tbody tr')?.querySelector('.name').textContent", name)
    assert await page.look("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus can be seen"
    assert await page.look("document.querySelectorAll('tbody tr[tabindex=\"0\"]').length") == 1
    await page.press("Enter")
    await page.until("all about it is shown", "document.getElementById('panel').open")
    assert name in await page.look("document.getElementById('panel-title').textContent")
    await page.press("Escape")
    await page.until("it is closed", "!document.getElementById('panel').open")
    await page.until("the row has the focus again", "document.activeElement.closest('tbody tr')?.querySelector('.name').textContent", name)
    await page.press("?")
    await page.until("the keys are told", "document.getElementById('help').open")
    await page.press("Escape")
    await page.until("and closed", "!document.getElementById('help').open")


async def filter(page, _):
    await page.look("document.getElementById('search').focus()")
    await page.type("app-49")
    await page.until("eleven are left", "document.querySelectorAll('tbody tr').length", 11)
    await page.type("nobody")
    await page.until("none is left, and that is said", "!document.getElementById('nothing').hidden")
    await page.press("Escape")
    await page.until("all are back", "document.querySelectorAll('tbody tr').length", 500)
    await page.look("{ const it = document.getElementById('sort'); it.value = 'name'; it.dispatchEvent(new Event('change')); }")
    await page.until("they are sorted as people count", "[...document.querySelectorAll('tbody tr')].slice(0, 3).map((it) => it.dataset.key.split('\\n')[1]).join()", "app-0,app-1,app-2")


async def patched(page, _):
    await page.look("window.first = [...document.querySelectorAll('tbody tr')]; window.added = 0;"
                    "new MutationObserver((all) => { for (const it of all) window.added += it.addedNodes.length; })"
                    ".observe(document.getElementById('upstreams'), { childList: true, subtree: true });")
    before = await page.look("Number(document.body.dataset.received)")
    await page.until("a few seconds pass", f"Number(document.body.dataset.received) > {before} + 3")
    assert await page.look("window.first.every((row, place) => row === document.querySelectorAll('tbody tr')[place])")
    added = await page.look("window.added")
    assert added < 40, f"{added} nodes were built where a few words have changed"


async def drain(page, _):
    await page.look("document.activeElement.blur(); window.scrollTo(0, 0)")
    await page.press("j")
    name = await page.look("document.activeElement.closest('tbody tr').querySelector('.name').textContent")
    state = "document.activeElement.closest('tbody tr')?.querySelector('.word').textContent"
    for word in ("DRAINING", "HEALTHY"):
        await page.press("d")
        await page.until("it is asked back", "document.getElementById('confirm').open")
        assert name in await page.look("document.getElementById('confirm-title').textContent")
        await page.press("Enter")
        await page.until("the row says so by itself", state, word)
        await page.until("and so do the changes", "document.querySelector('#changes .word')?.textContent", word)
        await page.until("it is read out", f"document.getElementById('announcer').textContent.includes('{name} is {word}')")
    await page.press("d")
    await page.until("it is asked back", "document.getElementById('confirm').open")
    await page.press("Escape")
    await page.until("nothing is done then", state, "HEALTHY")


async def disk(page, most):
    rows = "[...document.querySelectorAll('#cache li')].map((it) => it.innerText.replace(/\\s+/g, ' '))"
    await page.until("the disk is on the card", f"{rows}.some((it) => it.startsWith('Disk ') && it.endsWith(' of {most}'))")
    await page.until("what it has done is too", f"{rows}.includes('Written to disk 1') && {rows}.includes('Found on disk 0 of 1')")


async def browse(url, steps):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
                 f"--user-data-dir={folder}", "--window-size=1600,1000", "about:blank"]
        browser = subprocess.Popen(["chromium", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            line = next(line for line in browser.stderr if "DevTools listening on" in line)
            port = line.split("127.0.0.1:")[1].split("/")[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                target = next(it for it in json.load(answer) if it["type"] == "page")["webSocketDebuggerUrl"]
            async with websockets.connect(target, max_size=None) as socket:
                page = Page(socket)
                for domain in ("Runtime", "Log", "Page"):
                    await page.call(f"{domain}.enable")
                await page.call("Emulation.setDeviceMetricsOverride", width=1600, height=1000, deviceScaleFactor=1, mobile=False)
                await page.media("light")
                await page.call("Page.navigate", url=url)
                await page.until("the page is there", "document.readyState", "complete")
                for step in steps:
                    name, _, value = step.partition("=")
                    await STEPS[name](page, value)
                await page.look("1")
                assert not page.wrong, page.wrong
        finally:
            browser.terminate()
            browser.wait()


STEPS = {"login": login, "rows": rows, "themes": themes, "keyboard": keyboard, "filter": filter, "patched": patched, "drain": drain, "disk": disk}
asyncio.run(browse(sys.argv[1], sys.argv[2:]))
