"""Write the table between the markers of docs/forgetting.md, and docs/forgetting.svg, anew: nothing is measured."""

from __future__ import annotations

from pathlib import Path

from memspan.bench.forgetting import between, plot, run

DOCS = Path(__file__).resolve().parent.parent / "docs"

if __name__ == "__main__":
    report = run()
    page = DOCS / "forgetting.md"
    page.write_text(between(page.read_text(encoding="utf-8"), report), encoding="utf-8")
    (DOCS / "forgetting.svg").write_text(plot(report), encoding="utf-8")
