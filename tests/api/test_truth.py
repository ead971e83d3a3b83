"""What is true, since when, what took its place, and how all of it is taken back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memspan import InvalidFilter, InvalidInput, Memory, NotFound, NotUndoable
from memspan.testing import WordEncoder


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory(":memory:", encoder=WordEncoder()) as opened:
        yield opened


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "store", encoder=WordEncoder()) as opened:
        yield opened


def texts(memory: Memory, query: str = "Ana lives in", **asked: object) -> set[str]:
    return {hit.text for hit in memory.search(query, k=50, **asked)}  # type: ignore[arg-type]


def now() -> datetime:
    return datetime.now(UTC)


OLD, NEW = "Ana lives in Rome.", "Ana lives in Lisbon."


def moved(memory: Memory) -> tuple[str, str]:
    """Ana lived in Rome since 2020, and in Lisbon since May 2024, which we heard only now."""
    (old,) = memory.add(OLD, occurred_at="2020-01-01").ids
    (new,) = memory.add(NEW, occurred_at="2024-05-01").ids
    memory.supersede(old, new)
    return old, new


# Valid time


def test_what_was_superseded_is_found_for_its_own_time_and_on_request(memory: Memory) -> None:
    before = memory.add(OLD, occurred_at="2020-01-01").ids[0]
    heard = now()
    after = memory.add(NEW, occurred_at="2024-05-01").ids[0]
    memory.supersede(before, after)
    assert texts(memory) == {NEW}
    assert texts(memory, include_superseded=True) == {OLD, NEW}
    assert texts(memory, valid_at="2022-06-01") == {OLD}
    assert texts(memory, valid_at="2024-05-01") == {NEW}  # from that moment on
    assert texts(memory, as_of=heard) == {OLD}
    assert [segment.text for segment in memory.get_all()] == [NEW]
    assert {segment.text for segment in memory.get_all(include_superseded=True)} == {OLD, NEW}
    assert "Rome" not in memory.context("Where does Ana live?").text
    assert "Rome" in memory.context("Where does Ana live?", valid_at="2022-06-01").text
    assert memory.get(before).valid_to == memory.get(after).valid_from == datetime(2024, 5, 1, tzinfo=UTC)
    assert [neighbor.id for neighbor in memory.neighbors(after, "supersedes")] == [before]


def test_what_was_known_and_what_was_true_are_asked_apart(memory: Memory) -> None:
    (old,) = memory.add(OLD, occurred_at="2020-01-01").ids
    knew_only_rome = now()
    (new,) = memory.add(NEW, occurred_at="2024-05-01").ids
    memory.supersede(old, new)
    # in that moment we believed that she lived in Rome, also in June 2024
    assert texts(memory, as_of=knew_only_rome, valid_at="2024-06-01") == {OLD}
    assert texts(memory, valid_at="2024-06-01") == {NEW}


def test_validity_begins_and_ends_by_itself(memory: Memory) -> None:
    tomorrow, yesterday = now() + timedelta(days=1), now() - timedelta(days=1)
    memory.add("The office opens at nine.", valid_to=yesterday)
    memory.add("The office opens at ten.", valid_from=yesterday)
    memory.add("The office opens at eleven.", valid_from=tomorrow)
    memory.add("The office is being painted.", expires_at=yesterday)
    assert texts(memory, "office") == {"The office opens at ten."}
    assert texts(memory, "office", valid_at=tomorrow) == {"The office opens at ten.", "The office opens at eleven."}
    assert len(texts(memory, "office", include_superseded=True)) == 4


def test_a_search_that_is_repeated_sees_that_something_has_expired_meanwhile(memory: Memory) -> None:
    soon = now() + timedelta(milliseconds=300)
    memory.add("The kettle is on.", expires_at=soon)
    memory.add("The kettle is new.")
    found = texts(memory, "kettle")
    while now() < soon:
        found = texts(memory, "kettle")
    assert found <= {"The kettle is on.", "The kettle is new."}
    assert texts(memory, "kettle") == {"The kettle is new."}


def test_an_interval_that_ends_before_it_begins_is_refused(memory: Memory) -> None:
    with pytest.raises(InvalidInput, match="valid_to"):
        memory.add("Never.", valid_from="2024-01-02", valid_to="2024-01-01")
    (id,) = memory.add("Now.", valid_from="2024-01-02").ids
    with pytest.raises(InvalidInput, match="valid_to"):
        memory.update(id, valid_to="2024-01-01")
    assert memory.get(id).version == 1


def test_a_superseded_segment_is_true_again_when_its_end_is_taken_away(memory: Memory) -> None:
    old, _ = moved(memory)
    memory.update(old, valid_to=None)
    assert texts(memory) == {OLD, NEW}


def test_superseding_is_refused_where_it_makes_no_sense(memory: Memory) -> None:
    (old,) = memory.add(OLD, valid_from="2024-05-01").ids
    (new,) = memory.add(NEW, occurred_at="2023-01-01").ids
    with pytest.raises(InvalidInput, match="new"):
        memory.supersede(old, old)
    with pytest.raises(InvalidInput, match="at"):
        memory.supersede(old, new)
    with pytest.raises(NotFound):
        memory.supersede(old, "00000000-0000-7000-8000-000000000000")
    assert [segment.version for segment in memory.get_all()] == [1, 1]


def test_a_filter_on_the_state_sees_every_state_and_a_wrong_one_is_told(memory: Memory) -> None:
    memory.add("Plain.", metadata={"state": "open"})
    assert [s.text for s in memory.get_all(filters={"state": None})] == ["Plain."]
    assert [s.text for s in memory.get_all(filters={"metadata.state": "open"})] == ["Plain."]
    for wrong in ({"state": "open"}, {"kind": {"in": ["note"]}}):
        with pytest.raises(InvalidFilter, match="metadata"):
            memory.get_all(filters=wrong)


# Kinds


@pytest.mark.parametrize("kind", ["episodic", "semantic", "procedural", "core", "working"])
def test_a_kind_is_kept_found_by_and_carried_by_archives(memory: Memory, tmp_path: Path, kind: str) -> None:
    memory.add("Water the ficus on Mondays.", kind=kind)  # type: ignore[arg-type]
    assert [segment.kind for segment in memory.get_all(filters={"kind": kind})] == [kind]
    memory.export_to(tmp_path / "out.jsonl")
    with Memory(":memory:", encoder=WordEncoder()) as other:
        other.import_from(tmp_path / "out.jsonl")
        assert [segment.kind for segment in other.get_all()] == [kind]
        other.export_to(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


# Deletion


def test_what_is_deleted_is_found_nowhere_and_its_history_stays(memory: Memory) -> None:
    (id,) = memory.add(OLD).ids
    then = now()
    assert memory.delete([id, id, "no id"]) == 1
    assert memory.delete(id) == 0
    assert texts(memory) == set()
    assert memory.get_all() == []
    with pytest.raises(NotFound):
        memory.get(id)
    with pytest.raises(NotFound):
        memory.update(id, NEW)
    assert [(event.event, event.text) for event in memory.history(id)] == [("ADD", OLD), ("DELETE", None)]
    assert texts(memory, as_of=then) == {OLD}
    assert memory.add(OLD).added == 1  # said again it is a new memory
    assert memory.verify()["ok"]


def test_delete_all_takes_a_scope_away_and_undo_brings_all_of_it_back(memory: Memory) -> None:
    for user in ("ana", "ben"):
        memory.add([{"role": "user", "content": f"{user} says {n}"} for n in range(20)], user_id=user)
    assert memory.delete_all(user_id="ana") == 20
    assert {segment.user_id for segment in memory.get_all()} == {"ben"}
    (last,) = memory.operations(limit=1)
    assert (last.verb, last.segments) == ("delete", 20)
    memory.undo(last.id)
    assert len(memory.get_all(user_id="ana")) == 20
    assert memory.verify()["ok"]


def test_a_document_that_was_deleted_and_brought_back_is_whole(disk: Memory, tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_text("# Bees\n\nBees dance.\n\n# Ants\n\nAnts march.\n")
    added = disk.add_file(file)
    disk.delete_all(filters={"document_id": added.document_id})
    with pytest.raises(NotFound):
        disk.document(added.document_id or "")
    assert disk.stats()["documents"] == 0
    disk.undo(disk.operations(limit=1)[0].id)
    assert disk.document(added.document_id or "").text == file.read_text()
    assert disk.stats()["documents"] == 1


def test_undoing_that_a_file_was_read_again_has_it_say_what_it_said_before(disk: Memory, tmp_path: Path) -> None:
    file = tmp_path / "menu.md"
    file.write_text("On the menu: lobster.")
    first = disk.add_file(file)
    file.write_text("On the menu: soup.")
    second = disk.add_file(file)
    assert texts(disk, "menu") == {"On the menu: soup."}
    disk.undo(second.operation or "")
    assert texts(disk, "menu") == {"On the menu: lobster."}
    assert disk.document(first.document_id or "").text == "On the menu: lobster."
    with pytest.raises(NotFound):
        disk.document(second.document_id or "")
    assert disk.verify()["ok"]


# Undo


def one_change(memory: Memory, id: str, other: str) -> dict[str, Callable[[], object]]:
    return {
        "update": lambda: memory.update(id, "Ana lives in Oslo.", importance=0.9, metadata={"a": 1}),
        "move_category": lambda: memory.move_category("people", "friends"),
        "delete": lambda: memory.delete(id),
        "supersede": lambda: memory.supersede(id, other),
        "link": lambda: memory.link(id, other, "reply", 0.9),
        "unlink": lambda: memory.unlink(id, other, "knows"),
        "add": lambda: memory.add("Something else."),
        "restore": lambda: memory.restore(now() - timedelta(days=1)),
    }


def said(memory: Memory) -> list[object]:
    """All that a memory says, but for how often it was said so."""
    rows = memory.get_all(include_superseded=True, limit=1000)
    told = [
        (row.id, row.text, row.category, row.importance, dict(row.metadata), row.valid_from, row.valid_to, row.kind)
        for row in sorted(rows, key=lambda row: row.id)
    ]
    links = sorted(
        (row.id, near.id, near.strength, tuple(step.kind for step in near.path))
        for row in rows
        for near in memory.neighbors(row.id, ["reply", "knows", "supersedes"])
    )
    return [told, links]


@pytest.mark.parametrize("verb", ["update", "move_category", "delete", "supersede", "link", "unlink", "add", "restore"])
def test_every_operation_is_taken_back_and_done_again(memory: Memory, verb: str) -> None:
    (id,) = memory.add(OLD, category="people", occurred_at="2020-01-01").ids
    (other,) = memory.add(NEW, category="people", occurred_at="2024-05-01").ids
    memory.link(id, other, "knows", 0.7)
    before = said(memory)
    one_change(memory, id, other)[verb]()
    after = said(memory)
    assert after != before
    done = memory.operations(limit=1)[0]
    assert done.verb == verb
    undone = memory.undo(done.id)
    assert (undone.verb, undone.undoes) == ("undo", done.id)
    assert said(memory) == before
    assert memory.operations(limit=2)[1].undone_by == undone.id
    with pytest.raises(NotUndoable, match=undone.id):
        memory.undo(done.id)
    memory.undo(undone.id)
    assert said(memory) == after
    assert memory.operations(limit=3)[2].undone_by is None
    assert memory.verify() == {"ok": True, "segments": memory.stats()["versions"], "problems": []}


def test_what_changed_since_is_not_overwritten_by_an_undo(memory: Memory) -> None:
    (id,) = memory.add(OLD).ids
    memory.update(id, NEW)
    update = memory.operations(limit=1)[0]
    memory.update(id, importance=0.9)
    later = memory.operations(limit=1)[0]
    with pytest.raises(NotUndoable, match=later.id):
        memory.undo(update.id)
    assert memory.get(id).text == NEW
    memory.undo(later.id)
    with pytest.raises(NotUndoable):  # the undo is a change too: it is what comes off first
        memory.undo(update.id)


def test_what_says_the_same_by_now_stays_beside_what_an_undo_brings_back(memory: Memory) -> None:
    (id,) = memory.add(OLD).ids
    memory.delete(id)
    gone = memory.operations(limit=1)[0]
    (again,) = memory.add(OLD).ids
    memory.undo(gone.id)
    assert {segment.id for segment in memory.get_all()} == {id, again}
    assert memory.verify()["ok"]


def test_what_was_erased_stays_so_and_its_operations_tell_nothing_of_it(disk: Memory) -> None:
    added = disk.add("The secret word is xylograph.")
    disk.link(added.ids[0], disk.add("Other.").ids[0], "whispered-by-zoe")
    disk.erase(added.ids)
    erased = disk.operations(limit=1)[0]
    for operation in (added.operation or "", erased.id):
        with pytest.raises(NotUndoable):
            disk.undo(operation)
    assert [event.event for event in disk.history(added.ids[0])] == ["ERASE"]
    assert disk.verify()["ok"]
    with sqlite3.connect(disk.path / "ledger.db") as connection:  # type: ignore[operator]
        rows = (
            connection.execute("SELECT * FROM log").fetchall() + connection.execute("SELECT * FROM changes").fetchall()
        )
    connection.close()
    assert not any(word in str(rows) for word in ("xylograph", "whispered"))


def test_an_undo_in_another_namespace_finds_nothing(memory: Memory) -> None:
    added = memory.add(OLD, namespace="mine")
    with pytest.raises(NotFound):
        memory.undo(added.operation or "", namespace="theirs")
    assert memory.operations(namespace="theirs") == []
    memory.undo(added.operation or "", namespace="mine")


def test_an_idempotent_retry_says_which_operation_it_was(memory: Memory) -> None:
    first = memory.add(OLD, idempotency_key="k")
    assert memory.add(OLD, idempotency_key="k").operation == first.operation
    assert first.operation == memory.history(first.ids[0])[0].operation == memory.operations()[0].id


def test_an_import_is_taken_back_as_one(memory: Memory, tmp_path: Path) -> None:
    for n in range(30):
        memory.add(f"Fact number {n}.")
    memory.export_to(tmp_path / "out.jsonl")
    with Memory(":memory:", encoder=WordEncoder()) as other:
        other.add("Own.")
        done = other.import_from(tmp_path / "out.jsonl")
        assert len(other.get_all()) == 31
        other.undo(done.operation or "")
        assert [segment.text for segment in other.get_all()] == ["Own."]
        assert other.verify()["ok"]


# Going back


def test_restore_goes_back_to_a_moment_and_can_be_taken_back(memory: Memory) -> None:
    (kept,) = memory.add("Kept.").ids
    (changed,) = memory.add(OLD, user_id="ana").ids
    memory.link(kept, changed, "about")
    then, before = now(), said(memory)
    memory.update(changed, NEW)
    memory.delete(kept)
    memory.add("Later.")
    after = said(memory)
    done = memory.restore(then)
    assert said(memory) == before
    memory.undo(done.id)
    assert said(memory) == after
    memory.restore(then, user_id="ana")
    assert sorted(segment.text for segment in memory.get_all()) == sorted([OLD, "Later."])
    with pytest.raises(InvalidInput, match="as_of"):
        memory.restore(now() + timedelta(days=1))


def test_going_back_in_a_namespace_that_was_never_written_to_changes_nothing(memory: Memory) -> None:
    done = memory.restore(now() - timedelta(days=1), namespace="new")
    assert (done.segments, memory.get_all(namespace="new")) == (0, [])
    assert memory.operations(namespace="new") == [done]


# The log


def entries(memory: Memory, *statements: str) -> list[str]:
    """The problems that ``verify`` finds after somebody wrote into the file by hand."""
    with sqlite3.connect(memory.path / "ledger.db") as connection:  # type: ignore[operator]
        for statement in statements:
            connection.execute(statement)
    connection.close()
    problems: list[str] = memory.verify()["problems"]
    return problems


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log SET at = at + 1 WHERE entry = 2",
        "UPDATE log SET verb = 'update' WHERE entry = 2",
        "UPDATE log SET actor = 'somebody' WHERE entry = 2",
        "DELETE FROM log WHERE entry = 2",
        "UPDATE changes SET after = 7 WHERE entry = 2",
        "DELETE FROM changes WHERE entry = 2",
        "DELETE FROM changes WHERE entry = 3; ",
        "UPDATE changes SET leaf = zeroblob(16) WHERE entry = 2",
        "UPDATE store SET value = '99' WHERE key = 'unlogged'",
        "DELETE FROM segments WHERE seq = 2",
    ],
)
def test_verify_finds_what_somebody_changed_in_the_log_or_behind_its_back(disk: Memory, statement: str) -> None:
    for n in range(4):
        disk.add(f"Fact {n}.")
    assert disk.verify()["ok"]
    assert entries(disk, statement)


def test_a_row_that_was_rewritten_with_a_fitting_checksum_is_found_by_the_log(disk: Memory) -> None:
    from memspan.ledger.rows import PROVEN, checksum

    disk.add("Ana owes Ben 10 euros.")
    with sqlite3.connect(disk.path / "ledger.db") as connection:  # type: ignore[operator]
        names = [name.strip() for name in PROVEN.split(",")]
        row = dict(zip(names, connection.execute(f"SELECT {PROVEN} FROM segments").fetchone(), strict=True))
        row["text"] = "Ana owes Ben 99 euros."
        connection.execute("UPDATE segments SET text = ?, checksum = ?", (row["text"], checksum(list(row.values()))))
    connection.close()
    assert any("log" in problem for problem in disk.verify()["problems"])


def test_operations_say_who_did_what_page_by_page(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder=None, actor="nightly job") as memory:
        ids = [memory.add(f"Fact {n}.").ids[0] for n in range(5)]
        memory.update(ids[0], importance=0.9)
        first = memory.operations(limit=3)
        rest = memory.operations(limit=10, before=first[-1].id)
        assert [each.verb for each in (*first, *rest)] == ["update", *["add"] * 5]
        assert {each.actor for each in first} == {"nightly job"}
        assert [each.verb for each in memory.operations(ids[0])] == ["update", "add"]
        assert memory.stats()["log"]["entries"] == 6


# Said again, and always said


def test_what_is_said_again_after_it_ended_is_a_memory_anew(memory: Memory) -> None:
    (once,) = memory.add("The kettle is on.", expires_at=now() - timedelta(days=1)).ids
    again = memory.add("The kettle is on.")
    assert (again.added, again.ids[0] != once) == (1, True)
    assert [hit.id for hit in memory.search("kettle")] == list(again.ids)
    assert memory.add("The kettle is on.").repeated == 1
    old, _ = moved(memory)
    anew = memory.add(OLD, occurred_at="2020-01-01")
    assert (anew.added, memory.get(old).repeats) == (1, 0)
    assert texts(memory) >= {OLD, NEW}
    assert memory.verify()["problems"] == []
    memory.undo(anew.operation or "")
    assert OLD not in texts(memory)


def test_core_memory_is_in_every_context_of_its_user_first_and_up_to_its_share(memory: Memory) -> None:
    memory.add("Ana must not eat nuts.", user_id="ana", kind="core", importance=0.9)
    memory.add("Ben is vegan.", user_id="ben", kind="core")
    memory.add("Now: the sauce simmers.", user_id="ana", kind="working", session="kitchen")
    for n in range(200):
        memory.add(f"The shop on corner {n} sells bread.", user_id="ana", session="walk")
    for session in (None, "walk"):
        text = memory.context("Which shop sells bread?", budget=300, user_id="ana", session=session).text
        assert text.index("nuts") < text.index("bread")
        assert "vegan" not in text
    for n in range(50):
        memory.add(f"Rule number {n} for Ana.", user_id="ana", kind="core", importance=0.1)
    context = memory.context("Which shop sells bread?", budget=400, user_id="ana")
    assert "nuts" in context.text
    assert "bread" in context.text
    assert 0 < context.text.count("Rule number") < 20
    assert context.tokens <= 400
    assert "nuts" in memory.context("simmers", budget=100_000, user_id="ana", session="kitchen").text
    assert memory.context("sauce", budget=100_000, user_id="ana").text.rstrip().count("simmers") == 1


def test_an_operation_is_undone_as_often_as_it_was_taken_back_and_done_again(memory: Memory) -> None:
    added = memory.add(OLD)
    last = added.operation or ""
    for undone in (True, False, True, False):
        last = memory.undo(last).id
        assert (memory.get_all() == []) is undone
        first = memory.operations(limit=10)[-1]
        assert (first.id, first.undone_by is not None) == (added.operation, undone)
