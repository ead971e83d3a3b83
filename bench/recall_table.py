"""Write the tables between README's markers anew, from bench/recall.json: ``make recall-table``.

That file is what ``memspan bench recall all --data DIR --json`` printed: numbers only.
"""

from __future__ import annotations

import json
from pathlib import Path

from memspan.bench.tables import between

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    readme = ROOT / "README.md"
    report = json.loads((ROOT / "bench" / "recall.json").read_text(encoding="utf-8"))
    readme.write_text(between(readme.read_text(encoding="utf-8"), report), encoding="utf-8")
