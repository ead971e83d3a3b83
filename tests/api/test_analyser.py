"""A store whose words were analysed by another version of the analyser says so, and compact mends it."""

from __future__ import annotations

from pathlib import Path

from memspan import Memory
from memspan.analysis import VERSION
from memspan.ledger.sqlite import SqliteLedger


def test_words_of_an_older_analyser_are_reported_and_analysed_again_by_compact(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        memory.add("The ferry to Lisbon leaves at noon.")
    ledger = SqliteLedger(tmp_path / "store" / "ledger.db")
    ledger.put_values({"analyser": "0"}, replace=True)
    with ledger.writing() as connection:  # what an analyser without stems would have left
        connection.execute("UPDATE lexical_tail SET terms = '1_leaves'")
    ledger.close()
    with Memory(tmp_path / "store") as memory:
        assert "version 0" in memory.stats()["views"]["lexical"]["failure"]
        assert any("version 0" in problem for problem in memory.verify()["problems"])
        assert memory.search("leaving ferries", explain=True)[0].channels["keyword"] == 0
        memory.compact()
        assert memory.stats()["views"]["lexical"]["failure"] is None
        assert memory.verify()["ok"]
        assert memory.search("leaving ferries", explain=True)[0].channels["keyword"] > 0
    assert VERSION != "0"
