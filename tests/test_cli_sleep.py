"""The commands that put a memory in order and sum it up, through the door a user takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memspan import Memory
from memspan.bench import consolidation
from memspan.bench.sets import Collection, Item, Set
from memspan.cli import main

TEXT = "Ana moved to Lisbon in May 2024."


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    monkeypatch.setenv("MEMSPAN_STORE", str(tmp_path / "store"))
    with Memory(tmp_path / "store", encoder="hash") as memory:
        memory.add(TEXT, session="a")
        memory.add(TEXT.upper(), session="b")
    return tmp_path / "store"


def test_sleep_tells_what_made_way_and_how_to_take_it_back(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in ((["--dry-run"], "1 segments would make way"), ([], "memspan undo ")):
        with pytest.raises(SystemExit) as ended:
            main(["sleep", *arguments])
        assert ended.value.code == 0
        assert told in capsys.readouterr().out
    with Memory(store) as memory:
        assert [segment.text for segment in memory.get_all()] == [TEXT.upper()]


def test_summary_prints_exactly_its_text(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["summary", "--session", "a"])
    assert capsys.readouterr().out == f"{TEXT}\n"
    with pytest.raises(SystemExit):
        main(["summary", "--json"])
    assert json.loads(capsys.readouterr().out)["segments"] == 2


def test_the_bench_counts_what_is_merged_of_each_kind_of_edit() -> None:
    items = tuple(
        Item(str(at), f"Yesterday my sister {name} bought {at} red apples, pears and plums in Lisbon. She was glad.")
        for at, name in enumerate(("Carla", "Dora", "Emma", "Fiona"), start=10)
    )
    report = consolidation.duplicates([Set("made", "", (Collection("one", items, ()),))], None)
    assert report["methods"]["memspan"] == {"precision": 1.0, "recall": pytest.approx(0.8, abs=0.2)}
    assert all(told["merged"]["memspan"] == 0.0 for told in report["kinds"].values() if not told["same"])
    rates = consolidation.throughput([1_000])
    assert all(rate > 0 for each in rates.values() for rate in each.values())
