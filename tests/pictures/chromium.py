"""A real browser to open a page in: headless Chromium, spoken to over a pipe in its own protocol, without a network.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# A page uses WebGL where there is a graphics card. There is none here, and what it does with one is to be tested.
CARD = """{
  const own = WebGLRenderingContext.prototype.getParameter;
  WebGLRenderingContext.prototype.getParameter = function (name) {
    return [this.RENDERER, 37446].includes(name) ? "A graphics card" : own.call(this, name);
  };
}"""
PATIENCE = 120.0  # seconds for one answer: only a browser that hangs needs them
# The browser reads what is asked at its descriptor 3 and answers at 4.
LAUNCH = "import os, sys; os.dup2({0}, 3); os.dup2({1}, 4); os.execvp(sys.argv[1], sys.argv[1:])"


def find() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One page at a time. ``profile`` is an empty directory; ``flags`` are added to the command line."""

    def __init__(self, program: str, profile: Path, flags: Sequence[str] = ()) -> None:
        asks, self._asks = os.pipe()
        self._answers, answers = os.pipe()
        high = [os.dup(asks), os.dup(answers)]  # surely above 4
        for descriptor in (asks, answers):
            os.close(descriptor)
        while min(high) <= 4:
            high = [os.dup(each) for each in high]
        for descriptor in high:
            os.set_inheritable(descriptor, True)
        command = [program, "--headless", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        command += ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL without a graphics card
        command += ["--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars", *flags]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH.format(*high), *command],
            pass_fds=high,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for descriptor in high:
            os.close(descriptor)
        self._number = 0
        self._rest = b""
        self.said: list[str] = []
        """Errors of the page: exceptions, what its policy refused, what it logged."""
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Page.addScriptToEvaluateOnNewDocument", source=CARD)

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("Browser.close", {})
        finally:
            os.close(self._asks)
            os.close(self._answers)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def ask(self, method: str, **values: Any) -> Any:
        """The answer of the page to one call of the protocol."""
        return self._ask(method, values, self._session)

    def open(self, file: Path, *, size: tuple[int, int] = (1280, 800), dark: bool = False) -> None:
        """Open a page that says it is ready in ``document.body.dataset.ready``."""
        self.ask("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.said.clear()
        self.ask("Page.navigate", url=file.as_uri())
        self.until("document.body && document.body.dataset.ready === 'yes'")
        self.settle()

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        told = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            raise AssertionError(told["exceptionDetails"])
        return told["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until a condition of the page holds."""
        end = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise AssertionError(f"never came true: {condition}; the page said {self.said}")
            self.settle()

    def settle(self) -> None:
        """Wait until what was asked for has been painted."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float, count: int = 1) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": count}
            self.mouse(kind, x, y, **button)
        self.settle()

    def press(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Escape": 27}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)
        self.settle()

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)
        self.settle()

    def picture(self, file: Path | None = None) -> bytes:
        """What is seen, as PNG."""
        raw = base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])
        if file is not None:
            file.write_bytes(raw)
        return raw

    def _ask(self, method: str, values: dict[str, Any], session: str | None = None) -> Any:
        self._number += 1
        call: dict[str, Any] = {"id": self._number, "method": method, "params": values}
        if session is not None:
            call["sessionId"] = session
        os.write(self._asks, json.dumps(call).encode() + b"\0")
        while True:
            told = self._next()
            self._hear(told)
            if told.get("id") == self._number:
                if "error" in told:
                    raise AssertionError(f"{method}: {told['error']}")
                return told["result"]

    def _hear(self, told: dict[str, Any]) -> None:
        method, about = told.get("method"), told.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.said.append(str(about["exceptionDetails"].get("exception", about["exceptionDetails"])))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.said.append(about["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.said.append(str(about["args"]))
        elif method == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("file:", "blob:")):
            self.said.append(f"asked for {about['request']['url']}")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], PATIENCE)[0]:
                raise AssertionError("the browser does not answer")
            if not (more := os.read(self._answers, 1 << 20)):
                raise AssertionError("the browser is gone")
            self._rest += more
        raw, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(raw)
        return told
