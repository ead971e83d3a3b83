"""Versions, history, deletion: what stays, what goes, and that nothing touches another scope."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from memspan import InvalidInput, Memory, NotFound

Open = Callable[..., Memory]


def found(memory: Memory, query: str, **scope: str) -> list[str]:
    """The texts in which any word of the query stands."""
    return [hit.text for hit in memory.search(query, recipe="keyword", **scope)]


# Update


def test_an_update_is_a_new_version_under_the_same_id(memory: Memory) -> None:
    id = memory.add("Ana lives in Berlin.", importance=0.9, metadata={"a": 1}, category="People").ids[0]
    new = memory.update(id, "Ana lives in Lisbon.")
    assert (new.id, new.version, new.text) == (id, 2, "Ana lives in Lisbon.")
    assert (new.importance, new.metadata, new.category) == (0.9, {"a": 1}, ("People",))
    assert memory.get(id) == new
    assert memory.get_all() == [new]


def test_what_was_replaced_is_found_no_more_by_words_nor_by_meaning(memory: Memory) -> None:
    id = memory.add("Ana lives in Berlin.").ids[0]
    memory.update(id, "Ana lives in Lisbon.")
    assert found(memory, "Berlin") == []
    assert found(memory, "Lisbon") == ["Ana lives in Lisbon."]
    assert [hit.text for hit in memory.search("Ana lives in Berlin", recipe="semantic")] == ["Ana lives in Lisbon."]


def test_only_what_is_given_changes(memory: Memory) -> None:
    id = memory.add(
        [{"role": "user", "name": "Ana", "content": "Hello there."}], session="s", importance=0.2, occurred_at=5
    ).ids[0]
    old = memory.get(id)
    new = memory.update(id, importance=0.7, metadata={"seen": True}, category=["A", "B"], occurred_at="2026-01-01")
    assert (new.text, new.session, new.speaker, new.role, new.position) == ("Hello there.", "s", "Ana", "user", 0)
    assert (new.importance, new.metadata, new.category) == (0.7, {"seen": True}, ("A", "B"))
    assert new.occurred_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert (new.version, old.version) == (2, 1)
    cleared = memory.update(id, metadata={}, category=[])
    assert (cleared.metadata, cleared.category, cleared.importance) == ({}, (), 0.7)


def test_history_shows_every_version_oldest_first(memory: Memory) -> None:
    id = memory.add("One.", metadata={"v": 1}).ids[0]
    memory.update(id, "Two.", metadata={"v": 2})
    memory.update(id, "Three.")
    events = memory.history(id)
    assert [(e.event, e.version, e.text, e.metadata) for e in events] == [
        ("ADD", 1, "One.", {"v": 1}),
        ("UPDATE", 2, "Two.", {"v": 2}),
        ("UPDATE", 3, "Three.", {"v": 2}),
    ]
    assert {event.id for event in events} == {id}
    assert [event.at for event in events] == sorted(event.at for event in events)


def test_after_an_update_the_old_words_can_be_added_as_something_new(memory: Memory) -> None:
    id = memory.add("Ana lives in Berlin.").ids[0]
    memory.update(id, "Ana lives in Lisbon.")
    again = memory.add("Ana lives in Berlin.")
    assert again.added == 1
    assert again.ids[0] != id
    assert memory.add("Ana lives in Lisbon.").ids == (id,)


def test_an_update_to_what_another_segment_says_is_refused_and_names_it(memory: Memory) -> None:
    one, two = memory.add("One.").ids[0], memory.add("Two.").ids[0]
    before = memory.get_all()
    with pytest.raises(InvalidInput, match=one) as caught:
        memory.update(two, "One.")
    assert caught.value.argument == "text"
    assert memory.get_all() == before
    assert memory.stats()["versions"] == 2


def test_an_update_too_long_for_one_segment_is_refused(memory: Memory) -> None:
    id = memory.add("Short.").ids[0]
    with pytest.raises(InvalidInput, match=r"^text: is too long for one segment") as caught:
        memory.update(id, "A sentence of some words. " * 500)
    assert caught.value.mend == "delete it and add the new text instead"
    assert memory.get(id).text == "Short."


@pytest.mark.parametrize("id", ["no-such-id", "", "01890000-0000-7000-8000-000000000000", "💥", None, 7, b"x"])
def test_an_id_that_is_not_there_is_not_found(memory: Memory, id: str) -> None:
    memory.add("Something.")
    for call in (memory.get, memory.history, memory.document, lambda i: memory.update(i, "New.")):
        with pytest.raises(NotFound) as caught:
            call(id)
        assert caught.value.mend
    with pytest.raises(NotFound):
        memory.get_all(after=id or "nothing")


def test_an_id_of_another_namespace_is_not_found(memory: Memory) -> None:
    id = memory.add("Theirs.", namespace="theirs").ids[0]
    for call in (memory.get, memory.history, lambda i: memory.update(i, "Mine.")):
        with pytest.raises(NotFound):
            call(id)
    assert memory.erase(id).segments == 0
    assert memory.get(id, namespace="theirs").text == "Theirs."
    assert memory.update(id, "Changed.", namespace="theirs").version == 2
    assert [event.version for event in memory.history(id, namespace="theirs")] == [1, 2]
    assert memory.erase(id, namespace="theirs").segments == 1


# Erase


def test_erasing_leaves_a_tombstone_without_content(memory: Memory) -> None:
    id = memory.add("A secret about zanzibar.", metadata={"secret": True}).ids[0]
    memory.update(id, "A bigger secret about zanzibar.")
    assert memory.erase(id).segments == 1
    assert memory.get_all() == []
    assert found(memory, "zanzibar") == []
    assert memory.search("zanzibar", recipe="semantic") == []
    with pytest.raises(NotFound):
        memory.get(id)
    (event,) = memory.history(id)
    assert (event.event, event.id, event.version, event.text, event.metadata) == ("ERASE", id, 2, None, None)
    assert abs((datetime.now(UTC) - event.at).total_seconds()) < 5
    stats = memory.stats()
    assert (stats["segments"], stats["versions"], stats["tombstones"]) == (0, 0, 1)
    assert memory.verify() == {"ok": True, "segments": 0, "problems": []}


def test_erasing_counts_what_was_there_once(memory: Memory) -> None:
    ids = [memory.add(text).ids[0] for text in ("One.", "Two.", "Three.")]
    memory.update(ids[0], "Uno.")
    assert memory.erase([*ids[:2], ids[0], "no-such-id"]).segments == 2
    assert memory.erase(ids[0]).segments == 0
    assert [segment.text for segment in memory.get_all()] == ["Three."]
    assert memory.erase([]).segments == 0


def test_what_was_erased_can_be_said_again_under_a_new_id(memory: Memory) -> None:
    id = memory.add("Again and again.").ids[0]
    memory.erase(id)
    again = memory.add("Again and again.")
    assert (again.added, again.ids[0] != id) == (1, True)
    assert memory.history(id)[0].event == "ERASE"
    assert found(memory, "again") == ["Again and again."]


def test_a_vector_shared_by_two_segments_stays_until_the_last_is_gone(memory: Memory) -> None:
    one = memory.add("The quick brown fox.", user_id="one").ids[0]
    memory.add("The quick brown fox.", user_id="two")
    memory.erase(one)
    (hit,) = memory.search("quick brown fox", recipe="semantic")
    assert hit.user_id == "two"
    assert memory.verify()["ok"]


def test_nothing_erased_can_be_read_out_of_the_files(opened: Open, path: Path) -> None:
    memory = opened()
    secret = "Quetzalcoatlus"
    for i in range(30):
        memory.add(f"Ordinary sentence number {i}.")
    ids = [memory.add(f"{secret} is secret number {i}.", metadata={"who": secret}).ids[0] for i in range(30)]
    memory.update(ids[0], f"{secret} was updated.")
    assert memory.erase(ids).segments == 30
    memory.compact()
    memory.close()
    for file in path.rglob("*"):
        if file.is_file():
            raw = file.read_bytes().lower()
            assert secret.lower().encode() not in raw, file
            assert secret[:8].lower().encode() not in raw, file


# Erase a scope


def fill(memory: Memory) -> None:
    for namespace in ("default", "other"):
        for user in ("ana", "bob"):
            for session in ("s1", "s2"):
                for i in range(2):
                    memory.add(
                        f"{user} says thing {i}.", namespace=namespace, user_id=user, session=session, metadata={"i": i}
                    )


def test_erase_removes_a_scope_and_counts_it_and_touches_no_other(memory: Memory) -> None:
    fill(memory)
    others = [memory.get_all(user_id="bob"), memory.get_all(namespace="other")]
    hits = memory.search("what does bob say?", user_id="bob", explain=True)
    assert memory.erase(user_id="ana").segments == 4
    assert memory.get_all(user_id="ana") == []
    assert [memory.get_all(user_id="bob"), memory.get_all(namespace="other")] == others
    assert memory.search("what does bob say?", user_id="bob", explain=True) == hits
    assert memory.erase(user_id="ana").segments == 0


def test_every_part_of_a_scope_must_match(memory: Memory) -> None:
    fill(memory)
    assert memory.erase(user_id="ana", session="s1", filters={"i": 0}).segments == 1
    assert memory.erase(user_id="nobody", session="s1").segments == 0
    assert memory.erase(session="s1").segments == 3
    assert memory.erase(filters={"i": {"gte": 1}}).segments == 2
    assert memory.erase(namespace="default").segments == 2
    assert memory.erase(namespace="no such place").segments == 0
    assert len(memory.get_all(namespace="other")) == 8


def test_erase_removes_every_version_of_what_it_removes_and_of_nothing_else(memory: Memory) -> None:
    id = memory.add("Old words.", user_id="ana", metadata={"stage": "open"}).ids[0]
    memory.update(id, "New words.", metadata={"stage": "done"})
    assert memory.erase(user_id="ana", filters={"stage": "open"}).segments == 0  # it was open once, it is done now
    assert memory.get(id).text == "New words."
    assert memory.erase(user_id="ana", filters={"stage": "done"}).segments == 1
    assert memory.stats()["versions"] == 0
    assert memory.history(id)[0].event == "ERASE"


@pytest.mark.parametrize("arguments", [{}, {"filters": {}}, {"filters": None}, {"user_id": None}])
def test_erase_wants_its_scope_said(memory: Memory, arguments: dict[str, object]) -> None:
    fill(memory)
    with pytest.raises(InvalidInput) as caught:
        memory.erase(**arguments)  # type: ignore[arg-type]
    assert "namespace=" in caught.value.mend
    assert len(memory.get_all()) == 8


@pytest.mark.parametrize("part", ["namespace", "user_id", "agent_id", "run_id", "session"])
def test_an_empty_name_is_no_scope_that_holds_everything(memory: Memory, part: str) -> None:
    fill(memory)
    with pytest.raises(InvalidInput) as caught:
        memory.erase(**{part: ""})
    assert caught.value.argument == part
    assert len(memory.get_all()) == 8
