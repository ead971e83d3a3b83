"""What a browser would make of a page, read without one; and texts that would like to act in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- <script> \u2028 & &lt; {data} 'script-hash'",
    "quotes \" and ' and `${alert(1)}` and $\\frac{1}{2}$",
)


class Page(HTMLParser):
    """What a browser would make of a page: its elements, with their attributes and their text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        self.inside.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[self._open][-1] += data

    @property
    def data(self) -> Any:
        return json.loads(self.inside["script"][0])

    def policy(self) -> str:
        return next(a["content"] or "" for _, a in self.elements if a.get("http-equiv") == "Content-Security-Policy")

    def array(self, name: str, kind: str) -> np.ndarray:
        """A packed array of the data, such as ``x`` or ``sessions.start``."""
        return np.frombuffer(zlib.decompress(base64.b64decode(self._at(name))), kind)

    def lines(self, name: str) -> list[str]:
        return zlib.decompress(base64.b64decode(self._at(name))).decode().split("\n")

    def _at(self, name: str) -> Any:
        value = self.data
        for step in name.split("."):
            value = value[int(step) if step.isdigit() else step]
        return value


def read(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def assert_it_keeps_to_itself(page: Page) -> None:
    """It runs its own script and style, nothing else, and asks nothing of any network."""
    policy = dict(part.strip().split(" ", 1) for part in page.policy().split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    for tag in ("style", "script"):
        digest = hashlib.sha256(page.inside[tag][-1].encode()).digest()
        assert policy[f"{tag}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "base", "form", "img")
        assert not {name for name in attributes if name in ("src", "href", "style") or name.startswith("on")}
    assert [tag for tag, _ in page.elements].count("script") == 2
    own = page.inside["style"][0] + page.inside["script"][-1]
    assert not re.search(r"https?:|url\(|@import|fetch\(|innerHTML|insertAdjacent|document\.write|eval\(", own)
    assert not re.search(r"\{(?:page\.\w+|data)\}", own)
