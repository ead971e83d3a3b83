"""Write the tables between README's markers, and docs/recall.md with its plot, anew: ``make recall-table``.

bench/recall.json is what ``memspan bench recall all --data DIR --json`` printed: numbers only.
"""

from __future__ import annotations

import json
from pathlib import Path

from memspan.bench.tables import between, markdown, plot

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    readme = ROOT / "README.md"
    report = json.loads((ROOT / "bench" / "recall.json").read_text(encoding="utf-8"))
    readme.write_text(between(readme.read_text(encoding="utf-8"), report), encoding="utf-8")
    (ROOT / "docs" / "recall.svg").write_text(plot(report), encoding="utf-8")
    told = f"# Recall, measured\n\n![quality against latency](recall.svg)\n\n{markdown(report)}"
    (ROOT / "docs" / "recall.md").write_text(told, encoding="utf-8")
