"""What falls between the parts: forgetting, merging, taking back and erasing, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from memspan import Memory
from memspan.errors import NotUndoable
from memspan.testing import WordEncoder

TOLD = "Anna lives in the city of Paris near the river"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "store", encoder=WordEncoder()) as opened:
        yield opened
        assert opened.verify()["problems"] == []


def _merged(memory: Memory) -> tuple[str, str]:
    """Two tellings of the same, the first merged into the second."""
    (first,), (second,) = memory.add(TOLD).ids, memory.add(TOLD + ".").ids
    assert memory.sleep(dry_run=False).duplicates == ((first, second),)
    return first, second


def test_what_was_merged_is_counted_as_a_repeat_as_long_as_another_says_it(memory: Memory) -> None:
    first, second = _merged(memory)
    again = memory.add(TOLD)
    assert (again.ids, again.repeated) == ((first,), 1)
    assert [row.id for row in memory.get_all()] == [second]


@pytest.mark.parametrize("gone", ["deleted", "superseded", "expired", "erased"])
def test_what_was_merged_is_a_memory_anew_where_the_other_is_not_in_sight(memory: Memory, gone: str) -> None:
    _, second = _merged(memory)
    if gone == "deleted":
        memory.delete(second)
    elif gone == "superseded":
        memory.supersede(second, memory.add("Anna lives in Rome now").ids[0], at=time.time() - 60)
    elif gone == "expired":
        memory.update(second, expires_at=time.time() - 60)
    else:
        memory.erase(second)
    again = memory.add(TOLD)
    assert (again.added, again.repeated) == (1, 0)
    assert TOLD in [hit.text for hit in memory.search("Anna Paris river")]


def test_what_was_merged_into_something_quarantined_stays_out_of_sight_when_said_again(memory: Memory) -> None:
    _, second = _merged(memory)
    memory.quarantine(second)
    assert memory.add(TOLD).repeated == 1
    assert memory.get_all() == []


def test_a_link_made_before_its_segment_was_pruned_is_not_taken_back_in_silence(memory: Memory) -> None:
    (a,), (b,) = memory.add("alpha one two", user_id="u").ids, memory.add("beta three four").ids
    memory.link(a, b, "mine")
    linked = memory.operations(limit=1)[0]
    pruned = memory.prune(below=1.0, user_id="u", dry_run=False)
    assert pruned.operation is not None
    memory.undo(pruned.operation)
    with pytest.raises(NotUndoable, match="pruned or erased since"):
        memory.undo(linked.id)
    assert [each.id for each in memory.neighbors(a, "mine")] == [b]
    assert memory.operations(limit=1)[0].verb == "undo"  # that of the pruning


def test_a_link_of_what_was_erased_is_taken_back_with_nothing_to_do(memory: Memory) -> None:
    (a,), (b,) = memory.add("alpha one two").ids, memory.add("beta three four").ids
    memory.link(a, b, "mine")
    linked = memory.operations(limit=1)[0]
    memory.erase(a)
    assert memory.undo(linked.id).undoes == linked.id


def test_neighbors_and_embeddings_pass_over_what_is_not_to_be_found(memory: Memory) -> None:
    (seed,), (bad,) = memory.add("the first of all").ids, memory.add("what is not believed").ids
    (late,), (last,) = memory.add("what has expired").ids, memory.add("what is so").ids
    for other in (bad, late, last):
        memory.link(seed, other, "mine")
    memory.quarantine(bad)
    memory.update(late, expires_at=time.time() - 60)
    assert [each.id for each in memory.neighbors(seed, "mine")] == [last]
    assert {row.id for row in memory.embeddings()[0]} == {seed, last}
    assert [row.id for row in memory.embeddings(filters={"state": "quarantined"})[0]] == [bad]


def test_what_was_derived_from_something_pruned_goes_when_that_is_erased_by_its_scope(memory: Memory) -> None:
    (said,) = memory.add("alpha one two", user_id="u", session="s").ids
    memory.prune(below=1.0, user_id="u", dry_run=False)
    cites = {"cites": [{"id": said, "start": 0, "end": 5, "version": 1}]}
    (fact,) = memory.add("A derived word.", user_id="u", source="derived", metadata=cites).ids
    done = memory.erase(session="s")
    assert (done.archived, done.derived) == (1, 1)
    assert memory.history(fact)[-1].event == "ERASE"


def test_erasing_in_another_namespace_than_the_usual_one_is_verified_there(memory: Memory) -> None:
    (said,) = memory.add("alpha one two", namespace="other").ids
    done = memory.erase(said, namespace="other", verify=True)
    assert done.receipt is not None
    assert done.receipt.operation is not None
    assert (done.receipt.operation.id, done.receipt.found) == (done.operation, ())


def test_operations_page_by_where_each_began(memory: Memory) -> None:
    ids = [memory.add(f"{TOLD}{'.' * number}").ids[0] for number in range(3)]
    memory.sleep(dry_run=False)
    memory.delete(ids[0])
    every = [each.id for each in memory.operations()]
    first = memory.operations(limit=2)
    assert [each.id for each in (*first, *memory.operations(before=first[-1].id))] == every
    of_one = memory.operations(ids[0])
    assert [each.verb for each in of_one] == ["delete", "sleep", "add"]
    assert memory.operations(ids[0], before=of_one[0].id) == of_one[1:]


def test_the_ids_that_something_derived_cites_are_no_traces_of_it(memory: Memory) -> None:
    (said,) = memory.add("alpha one two").ids
    (fact,) = memory.add("A derived word.", source="derived", metadata={"cites": [{"id": said}]}).ids
    assert memory.path is not None
    operation = memory.operations(limit=1)[0].id  # ids that were made together begin alike
    (memory.path / "left.json").write_text(operation, encoding="utf-8")
    done = memory.erase(fact, verify=True)
    assert done.receipt is not None
    assert done.receipt.found == ()


def test_what_was_derived_is_looked_for_too_when_erasing_is_verified(memory: Memory) -> None:
    (said,) = memory.add("alpha one two").ids
    memory.add("A derivedword.", source="derived", metadata={"cites": [{"id": said}]})
    assert memory.path is not None
    (memory.path / "left.json").write_text("derivedword", encoding="utf-8")
    done = memory.erase(said, verify=True)
    assert done.derived == 1
    assert done.receipt is not None
    assert {trace.file for trace in done.receipt.found} == {"left.json"}


@pytest.mark.parametrize("format", ["jsonl", "cube"])
def test_what_comes_in_from_an_archive_is_redacted_as_what_is_added_is(tmp_path: Path, format: str) -> None:
    secret, archive = "carla.bruni@example.org", tmp_path / "archive"
    page = tmp_path / "page.html"
    page.write_text(f"<title>To {secret}</title><h1>Of {secret}</h1><p>She is {secret}</p>", encoding="utf-8")
    with Memory(":memory:", encoder=WordEncoder()) as plain:
        (said,) = plain.add(f"write to {secret}").ids
        plain.add([{"role": "user", "content": f"It is {secret}"}] * 2)
        plain.update(said, f"write again to {secret}")
        plain.feedback(f"where is {secret}", said)
        plain.add_file(page)
        plain.export_to(archive, format)
        count = len(plain.get_all())
    with Memory(
        tmp_path / "store", encoder=WordEncoder(), redact=lambda text: text.replace(secret, "[EMAIL]")
    ) as memory:
        memory.import_from(archive, format)
        assert memory.import_from(archive, format).added == 0
        assert len(memory.get_all()) == count
        assert [event.text for event in memory.history(said)] == ["write to [EMAIL]", "write again to [EMAIL]"]
        assert memory.verify()["problems"] == []
    files = [file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert not any(secret.encode() in raw for raw in files)
