"""A headless Chromium, driven over its own debugging pipe: no driver, no package, no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",  # containers run tests as root; the page under test is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
LIMIT_S = 60.0


class Browser:
    """One process with a profile of its own, in ``directory``. Use it in ``with``."""

    def __init__(self, path: str, directory: Path) -> None:
        there, self._out = _high_pipe()
        self._in, back = _high_pipe()
        command = [path, *FLAGS, f"--user-data-dir={directory}", "--remote-debugging-pipe"]
        move = (
            f"import os, sys; os.dup2({there}, 3); os.dup2({back}, 4)\n"
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        environment = {**os.environ, "HOME": str(directory)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", move, *command, "about:blank"],
            pass_fds=(there, back),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(back)
        self._buffer = bytearray()
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(timeout=20)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._in)
            os.close(self._out)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its result; events on the way are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._read(method)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _read(self, what: str) -> dict[str, Any]:
        until = time.monotonic() + LIMIT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{what}: no answer from the browser in {LIMIT_S} s"
            data = os.read(self._in, 1 << 20)
            assert data, f"{what}: the browser is gone (exit code {self._process.poll()})"
            self._buffer += data
        message, _, rest = bytes(self._buffer).partition(b"\0")
        self._buffer = bytearray(rest)
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Tab:
        """A new window of this size; below 600 pixels it is a phone, with touch."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, session["sessionId"], context)
        for domain in ("Page", "Runtime", "Log", "DOM", "Accessibility"):
            tab.call(f"{domain}.enable")
        phone = width < 600
        tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        tab.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        tab.call("Page.navigate", url=url)
        return tab


def _high_pipe() -> tuple[int, int]:
    """A pipe whose numbers are not 3 and 4, which the browser's ends become."""
    low = os.pipe()
    read, write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in low)
    for end in low:
        os.close(end)
    return read, write


class Tab:
    """A window of the browser, in a profile of its own."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to this window."""
        return self._browser.call(method, self._session, **params)

    def close(self) -> None:
        """Close it with its profile."""
        self._browser.call("Target.disposeBrowserContext", browserContextId=self._context)

    def eval(self, expression: str) -> Any:
        """What a JavaScript expression gives, awaited."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true."""
        look = (
            f"const look = () => ({condition}) ? done(true) : now() < end ? again(look) : done(0)"
        )
        clock = f"const now = () => performance.now(), end = now() + {LIMIT_S * 500}"
        code = (
            f"new Promise(done => {{ {clock}, again = f => setTimeout(f, 10); {look}; look(); }})"
        )
        if not self.eval(code):
            raise AssertionError(f"never true: {condition}; the page says: {self.text('main')!r}")

    def shown(self, selector: str) -> bool:
        """Whether the element takes room."""
        found: bool = self.eval(f"!!document.querySelector({json.dumps(selector)})?.offsetParent")
        return found

    def wait_shown(self, selector: str) -> None:
        """Until the element takes room."""
        self.wait(f"document.querySelector({json.dumps(selector)})?.offsetParent")

    def text(self, selector: str) -> str:
        """The text that is seen in an element."""
        found: str = self.eval(f"document.querySelector({json.dumps(selector)}).innerText")
        return found

    def click(self, selector: str) -> None:
        """A real click with the mouse into the middle of the element."""
        quoted = json.dumps(selector)
        x, y = self.eval(
            f"(e => {{ e.scrollIntoView({{block: 'center', behavior: 'instant'}}); const r = "
            "e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })"
            f"(document.querySelector({quoted}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, text: str = "") -> None:
        """A key, down and up."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowRight": 39, "ArrowLeft": 37}
        code = codes.get(key, 0)
        down = {"windowsVirtualKeyCode": code, "key": key, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", windowsVirtualKeyCode=code, key=key)

    def type(self, text: str) -> None:
        """Text into the focused element."""
        self.call("Input.insertText", text=text)

    def pick(self, selector: str, paths: Sequence[Path]) -> None:
        """Files chosen in a file input."""
        found = self.call(
            "Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})"
        )
        self.call(
            "DOM.setFileInputFiles",
            files=[str(path) for path in paths],
            objectId=found["result"]["objectId"],
        )

    def drop(self, path: Path, x: float = 300, y: float = 200) -> None:
        """A file dragged from the desktop and let go."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def complaints(self) -> list[str]:
        """What stands in the console: errors, warnings, refused content, uncaught exceptions."""
        self.eval("1")  # events before it have arrived
        found = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif event["method"] == "Log.entryAdded":
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            elif event["method"] == "Runtime.consoleAPICalled":
                found.append(str(params["args"]))
        return found
