"""The pictures of docs/page.md, and how the page does with many memories.

    python bench/page.py pictures                   writes docs/page.png and docs/page-dark.png
    python bench/page.py measure STORE              prints what a browser says of the page over a store

Needs Chromium and ``pip install "memspan[server]" playwright``. The page is served on a port of this machine alone.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, sync_playwright

from memspan import Memory
from memspan.server.app import create_app
from memspan.server.door import Settings

DOCS = Path(__file__).resolve().parent.parent / "docs"
SIZE = {"width": 1280, "height": 800}
PATIENCE = 120_000  # milliseconds
SCROLL = """async () => {
  const high = document.documentElement.scrollHeight, gaps = [];
  let last = performance.now(), y = 0;
  for (const end = last + 4000; last < end;) {
    scrollTo(0, y = (y + 9000) % high);
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    gaps.push(now - last);
    last = now;
  }
  gaps.sort((a, b) => a - b);
  const at = share => Math.round(gaps[Math.floor(share * (gaps.length - 1))]);
  return { "frame p50, ms": at(0.5), "frame p95, ms": at(0.95), "frame longest, ms": at(1) };
}"""
TOLD: tuple[dict[str, Any], ...] = (
    {"content": "Ben bought his boat at the Lisbon fair.", "category": "People / Ben", "occurred_at": "2026-04-20"},
    {"content": "Ben keeps the boat in Cascais in winter.", "category": "People / Ben", "occurred_at": "2026-09-20"},
    {"content": "Ana moved to Lisbon in May.", "category": "People / Ana", "occurred_at": "2026-05-30"},
    {"content": "Ana takes the early train to Porto.", "category": "People / Ana", "occurred_at": "2026-06-02"},
    {"content": "The fair at the river is every spring.", "category": "Places / Lisbon", "occurred_at": "2026-04-02"},
    {"content": "The café by the river closes on Mondays.", "category": "Places / Lisbon", "occurred_at": "2026-04-11"},
)
SAID = (
    ("Ana", "2026-05-02T10:00", "Where shall we meet Ben after the Lisbon fair?"),
    ("Ben", "2026-05-02T10:01", "In the café by the river, at noon. Bring the maps."),
    ("Ana", "2026-05-02T10:03", "I will, and the tickets for the boat too."),
)


@contextmanager
def served(memory: Memory) -> Iterator[str]:
    """The address of the page of a memory."""
    server = uvicorn.Server(uvicorn.Config(create_app(memory, Settings(logs=False)), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@contextmanager
def chromium() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def pictures() -> None:
    with Memory(":memory:") as memory, chromium() as browser:
        turns = [{"role": "user", "name": name, "time": time, "content": content} for name, time, content in SAID]
        memory.add(turns, session="plans")
        for each in TOLD:
            memory.add(**each)
        with served(memory) as address:
            for scheme, view, name in (
                ("light", "search?q=where do we meet Ben after the fair?", "page"),
                ("dark", f"segment/{memory.get_all(limit=1)[0].id}", "page-dark"),
            ):
                page = browser.new_page(viewport=SIZE, color_scheme=scheme)  # type: ignore[arg-type]
                page.goto(f"{address}/#/{view}")
                if scheme == "light":
                    page.get_by_text("Why it is here").first.click(timeout=PATIENCE)
                    page.locator(".bars").first.wait_for()
                else:
                    page.get_by_role("button", name="2 hops").click(timeout=PATIENCE)
                    page.locator("a.node").first.wait_for()
                page.wait_for_load_state("networkidle")
                page.screenshot(path=DOCS / f"{name}.png")


def measure(store: str) -> dict[str, Any]:
    """Milliseconds from nothing to what each view shows, and how smoothly the timeline scrolls."""
    told: dict[str, Any] = {}
    with Memory(store) as memory, chromium() as browser, served(memory) as address:
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(PATIENCE)
        for view, shown in (("", ".card"), ("timeline", ".line"), ("tree", ".within .line"), ("log", ".operations li")):
            page.goto("about:blank")
            page.goto(f"{address}/#/{view}")
            page.locator(shown).first.wait_for()
            told[f"{view or 'start'}, ms"] = round(page.evaluate("performance.now()"))
            if view == "timeline":
                told |= page.evaluate(SCROLL)
                told["elements"] = page.evaluate("document.querySelectorAll('*').length")
            if not view:
                told["first paint, ms"] = round(page.evaluate("performance.getEntriesByType('paint')[0].startTime"))
    return told


if __name__ == "__main__":
    if sys.argv[1:2] == ["pictures"]:
        pictures()
    elif sys.argv[1:2] == ["measure"] and len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[2]), indent=1))
    else:
        sys.exit(__doc__)
