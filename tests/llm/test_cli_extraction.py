"""A model's facts from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memspan import Memory
from memspan.cli import main

from .chat import Server

SAID = "I moved to Lisbon in 2022."
FACT = {"fact": "Ana moved to Lisbon in 2022.", "sources": [1], "quote": SAID}


def test_sleep_has_a_model_write_facts_and_tells_what_they_cost(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    with Memory(store, encoder="hash") as memory:
        memory.add([{"role": "user", "name": "Ana", "content": SAID}], session="monday")
    server.model = lambda messages, most: json.dumps(FACT)
    with pytest.raises(SystemExit) as ended:
        main(["sleep", "--store", str(store), "--llm", f"http:m@{server.url}", "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)["extracted"]
    assert (len(told["ids"]), told["calls"]) == (1, 1)
    with Memory(store) as memory:
        assert {row.text for row in memory.get_all()} == {SAID, FACT["fact"]}
    with pytest.raises(SystemExit) as ended:
        main(["sleep", "--store", str(store), "--llm", "auto", "--dry-run"])
    assert ended.value.code == 2
