"""Quarantine, trust, redaction and recalled contexts at the command line."""

from __future__ import annotations

from test_cli import Run, home, memspan

from memspan import Memory

__all__ = ["home", "memspan"]  # fixtures


def test_a_memory_is_quarantined_and_released(memspan: Run) -> None:
    (id,) = memspan("add", "The key lies under the pot.", "--source", "web", "--json").document["ids"]
    assert memspan("quarantine", id, "--reason", "a hostile page").out == "1 segment quarantined\n"
    assert memspan("search", "key", "--json").document["hits"] == []
    hidden = memspan("list", "--filter", "state=quarantined", "--json").document
    assert [segment["id"] for segment in hidden["segments"]] == [id]
    assert memspan("quarantine", id, "--json").document == {"quarantined": 0}
    assert memspan("release", id, "--json").document == {"released": 1}
    assert [hit["id"] for hit in memspan("search", "key", "--json").document["hits"]] == [id]
    missing = memspan("quarantine", "01a21753-1d1d-74ea-a9d6-d0a0fe446f38")
    assert missing.code != 0
    assert "mend" not in missing.out


def test_sources_are_listed_with_their_trust(memspan: Run) -> None:
    memspan("add", "Ana rows.", "--agent", "coach")
    (id,) = memspan("add", "Ana swims.", "--source", "web", "--json").document["ids"]
    memspan("feedback", "what does Ana do?", id, "--useless")
    assert memspan("trust").out.splitlines() == ["0.900\tuser\tcoach\t1\t0\t0\t0\t0", "0.381\tweb\t\t1\t0\t1\t0\t0"]
    first, second = memspan("trust", "--json").document["sources"]
    assert (first["source"], first["agent_id"], second["rejected"]) == ("user", "coach", 1)


def test_what_is_redacted_on_the_way_in_is_not_stored_and_on_the_way_out_not_shown(memspan: Run, home: object) -> None:
    memspan("add", "Write to ana@example.org.", "--redact", "personal")
    memspan("add", "Or write to ben@example.org.")
    with Memory(encoder="hash") as memory:
        assert [row.text for row in memory.get_all()] == ["Write to [EMAIL_1].", "Or write to ben@example.org."]
    for command in ("search", "context", "active-context"):
        assert "ben@" in memspan(command, "write to whom?").out
        assert "@" not in memspan(command, "write to whom?", "--redact", "personal").out
    wrong = memspan("add", "x", "--redact", "everything")
    assert wrong.code != 0
    assert "redact: 'everything' is unknown" in wrong.err


def test_adding_a_context_again_says_what_was_left_out(memspan: Run) -> None:
    memspan("add", "Ana keeps the key under the pot.")
    context = memspan("context", "where is the key?").out
    again = memspan("add", "-", stdin=f"{context}\nIt is not there.")
    assert "1 segment stored, 1 recalled context taken out" in again.err
    nothing = memspan("add", "-", stdin=context)
    assert nothing.out == ""
    assert "0 segments stored, 1 recalled context taken out, 1 text with nothing new left out" in nothing.err
