"""What fades goes into an archive and comes back from it as it was; what matters stays; nothing goes unasked."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memspan import InvalidInput, Memory, NotFound
from memspan.archives import cube
from memspan.cli import main
from memspan.errors import NotUndoable, StoreError
from memspan.records import Edge, Tombstone, Version
from memspan.reports import Pruned

AGED = ("recorded_at", "heard_at", "ended_at", "expires_at", "at")
NOW = datetime.now(UTC)


def ago(days: float) -> str:
    return (NOW - timedelta(days=days)).isoformat()


def contents(memory: Memory) -> bytes:
    """All that a namespace holds, but the tombstones of what was erased."""
    with tempfile.TemporaryDirectory() as place:
        written = Path(memory.export_to(Path(place) / "all.jsonl").path)
        return written.read_bytes()


def aged(path: Path, days: float, fill: Callable[[Memory], Any], changes: Mapping[str, Any] | None = None) -> Memory:
    """A store of which ``fill`` was done so many ``days`` ago; its segments with these ``changes``."""
    with Memory(":memory:", encoder="hash") as young:
        fill(young)
        lines = [json.loads(line) for line in contents(young).splitlines()]
    for line in lines:
        for name in AGED:
            if line.get(name):
                line[name] = (datetime.fromisoformat(line[name]) - timedelta(days=days)).isoformat()
        if line["type"] == "segment":
            line.update(changes or {})
    archive = path.with_suffix(".jsonl")
    archive.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    memory = Memory(path, encoder="hash")
    assert not memory.import_from(archive).failed
    archive.unlink()
    return memory


def tea(memory: Memory) -> list[str]:
    return [memory.add(f"Ana drank tea number {number}.", user_id="ana").ids[0] for number in range(4)]


@pytest.fixture
def old(path: Path) -> Iterator[Memory]:
    """Four turns of 100 days ago, which nobody asked for."""
    with aged(path, 100, tea) as memory:
        yield memory


def ids(memory: Memory) -> list[str]:
    return [segment.id for segment in memory.get_all()]


def about(pruned: Pruned) -> list[tuple[str, str]]:
    return [(each.id, each.reason) for each in pruned.fading]


# What goes and what stays


def test_unless_it_is_asked_to_prune_changes_nothing_and_tells_what_has_faded(old: Memory) -> None:
    before = contents(old)
    told = old.prune()
    assert (told.dry_run, told.archive, told.operation, told.segments, told.below) == (True, None, None, 4, 0.05)
    assert about(told) == [(id, "faded") for id in ids(old)]
    assert all(0 < each.strength < 0.05 and each.about.startswith("Ana drank tea") for each in told.fading)
    assert contents(old) == before
    assert not (Path(str(old.path)) / "pruned").exists()


def test_what_is_applied_is_found_nowhere_and_lies_whole_in_a_checked_archive(old: Memory) -> None:
    gone = ids(old)
    (fresh,) = old.add("Ben likes coffee.").ids
    done = old.prune(dry_run=False)
    assert [each.id for each in done.fading] == gone
    assert ids(old) == [fresh]
    assert [hit.id for hit in old.search("Ana drank tea", k=50, include_superseded=True)] == [fresh]
    archive = cube.verify(Path(str(done.archive)))
    assert (archive.counts["segments"], archive.bytes, archive.vectors is not None) == (4, done.bytes, True)
    assert Path(str(done.archive)).parent == Path(str(old.path)) / "pruned"
    (last,) = old.operations(limit=1)
    assert (last.id, last.verb, last.segments) == (done.operation, "prune", 4)
    assert last.detail == {"archive": f"pruned/{done.operation}.memspan"}
    assert old.verify()["ok"]


def test_what_was_recalled_is_important_or_was_of_use_stays(path: Path) -> None:
    with aged(path, 1_000, tea) as memory:
        recalled, important, useful, weak = ids(memory)
        memory.search("tea number 0", k=1, filters={"text": {"contains": "number 0"}})
        memory.update(important, importance=0.9)
        memory.feedback("which tea?", useful)
        memory.feedback("which tea?", weak, useful=False)
        told = memory.prune()
        assert about(told) == [(weak, "faded")]
        assert told.kept == {"important": 1, "useful": 1}
        assert recalled not in [each.id for each in memory.prune(below=0.9).fading]


@pytest.mark.parametrize("kind", ["core", "procedural"])
def test_core_memory_never_fades_and_procedural_memory_only_where_it_is_named(path: Path, kind: str) -> None:
    with aged(path, 30_000, tea, {"kind": kind}) as memory:
        assert not memory.prune().fading
        if kind == "core":
            with pytest.raises(InvalidInput, match="kinds"):
                memory.prune(kinds="core")
            assert not memory.prune(below=1.0).fading
        else:
            assert len(memory.prune(kinds=["procedural"]).fading) == 4


def test_what_has_expired_goes_first_however_strong_or_important(path: Path) -> None:
    def fill(memory: Memory) -> None:
        tea(memory)
        memory.add("The key is under the mat.", importance=1.0, expires_at=NOW + timedelta(days=1))
        memory.add("The user is Ana.", kind="core", expires_at=NOW + timedelta(days=1))

    with aged(path, 100, fill) as memory:
        *weak, expired, core = [segment.id for segment in memory.get_all(include_superseded=True)]
        memory.feedback("where is the key?", expired)
        assert about(memory.prune()) == [(expired, "expired"), *((id, "faded") for id in weak)]
        assert about(memory.prune(below=0.0)) == [(expired, "expired")]
        memory.prune(dry_run=False)
        assert [segment.id for segment in memory.get_all(include_superseded=True)] == [core]


def test_what_is_quarantined_waits_for_somebodys_word(path: Path) -> None:
    with aged(path, 1_000, tea, {"state": "quarantined", "expires_at": ago(10)}) as memory:
        assert not memory.prune().fading


def test_a_document_goes_whole_or_not_at_all(path: Path) -> None:
    text = "\n\n".join(f"# Part {number}\n\n" + f"Word {number} of the garden. " * 60 for number in range(6))

    with aged(path, 6_000, lambda memory: memory.add(text, source="document")) as memory:
        parts = memory.get_all()
        assert len(parts) > 1
        assert len(memory.prune().fading) == len(parts)
        memory.update(parts[0].id, importance=1.0)
        told = memory.prune()
        assert not told.fading
        assert told.kept == {"important": 1, "document": len(parts) - 1}


def test_only_what_is_in_scope_and_old_enough_goes(old: Memory) -> None:
    old.add("Ben drank tea.", user_id="ben")
    assert len(old.prune(below=1.0).fading) == 5
    assert len(old.prune(below=1.0, user_id="ana").fading) == 4
    assert len(old.prune(below=1.0, filters={"user_id": "ben"}).fading) == 1
    assert len(old.prune(below=1.0, older_than=timedelta(days=50)).fading) == 4
    assert len(old.prune(below=1.0, older_than=99.5).fading) == 4
    assert not old.prune(below=1.0, older_than=101).fading
    assert not old.prune(below=1.0, kinds="semantic").fading
    assert not old.prune(below=1.0, namespace="elsewhere").fading


def test_fsrs_has_a_line_of_its_own(old: Memory) -> None:
    told = old.prune(curve="fsrs")
    assert (told.curve, told.below, told.fading) == ("fsrs", 0.5, ())
    assert len(old.prune(curve="fsrs", below=0.6).fading) == 4


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("below", 1.5),
        ("below", "weak"),
        ("older_than", -1),
        ("older_than", timedelta(days=-1)),
        ("kinds", "dreams"),
        ("kinds", []),
        ("curve", "linear"),
        ("dry_run", "no"),
        ("archive", "pruned.txt"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_goes(old: Memory, argument: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        old.prune(**({"dry_run": False} | {argument: value}))  # type: ignore[arg-type]
    assert caught.value.argument == argument
    assert len(ids(old)) == 4


# Where it goes


def test_a_store_in_memory_needs_to_be_told_where_and_no_file_is_replaced(memory: Memory, tmp_path: Path) -> None:
    tea(memory)
    with pytest.raises(InvalidInput, match="archive"):
        memory.prune(below=1.0, dry_run=False)
    place = tmp_path / "faded.memspan"
    done = memory.prune(below=1.0, dry_run=False, archive=place)
    assert (len(done.fading), done.archive, ids(memory)) == (4, str(place), [])
    tea(memory)
    with pytest.raises(InvalidInput, match="is there already"):
        memory.prune(below=1.0, dry_run=False, archive=place)
    memory.erase(ids(memory))
    memory.undo(str(done.operation))
    assert len(ids(memory)) == 4


def test_an_encrypted_store_puts_nothing_in_clear_unless_it_is_told_where(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("sqlcipher3")
    with Memory(path, encoder="hash", key="a secret") as memory:
        tea(memory)
        with pytest.raises(InvalidInput, match="not encrypted"):
            memory.prune(below=1.0, dry_run=False)
        assert len(ids(memory)) == 4
        assert not (path / "pruned").exists()
        before = contents(memory)
        done = memory.prune(below=1.0, dry_run=False, archive=tmp_path / "clear.memspan")
        memory.undo(str(done.operation))
        assert contents(memory) == before
        assert Path(str(done.archive)).exists(), "it is not ours to remove"


def test_a_store_that_was_moved_brings_back_what_was_pruned(old: Memory, tmp_path: Path) -> None:
    before, place = contents(old), Path(str(old.path))
    done = old.prune(dry_run=False)
    old.close()
    place.rename(tmp_path / "moved")
    with Memory(tmp_path / "moved", encoder="hash") as moved:
        moved.undo(str(done.operation))
        assert contents(moved) == before
        assert list((tmp_path / "moved" / "pruned").iterdir()) == [], "what is here again needs no archive"


def test_where_nothing_has_faded_nothing_is_written(path: Path) -> None:
    with Memory(path, encoder="hash") as memory:
        tea(memory)
        done = memory.prune(dry_run=False)
        assert (done.dry_run, done.fading, done.archive, done.operation) == (False, (), None, None)
        assert list((path / "pruned").glob("*")) == []
        assert memory.operations(limit=1)[0].verb == "add"


def test_what_is_written_of_a_segment_meanwhile_keeps_it(path: Path) -> None:
    class Busy(Memory):
        """Somebody finds one of the segments useful while the archive is made."""

        times = 0

        def _put_away(self, *arguments: Any) -> Any:
            written = super()._put_away(*arguments)  # type: ignore[misc]
            if not self.times:
                self.feedback("which tea?", ids(self)[0])
            self.times += 1
            return written

    aged(path, 100, tea).close()
    with Busy(path, encoder="hash") as memory:
        kept, *others = ids(memory)
        done = memory.prune(dry_run=False)
        assert memory.times == 2
        assert [each.id for each in done.fading] == others
        assert ids(memory) == [kept]
        assert cube.inspect(Path(str(done.archive))).counts["segments"] == 3


def test_an_archive_of_what_was_not_removed_does_not_stay(old: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> bool:
        raise StoreError("no space left")

    monkeypatch.setattr(old._ledger, "prune", full)
    with pytest.raises(StoreError):
        old.prune(dry_run=False)
    assert len(ids(old)) == 4
    assert list((Path(str(old.path)) / "pruned").iterdir()) == []


def test_an_archive_of_what_was_removed_stays_whatever_fails_after(
    old: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise StoreError("the disk is gone")

    before = contents(old)
    with monkeypatch.context() as patch:
        patch.setattr(old._ledger, "erase_dead", fails)
        with pytest.raises(StoreError):
            old.prune(dry_run=False)
    assert ids(old) == []
    old.undo(old.operations(limit=1)[0].id)
    assert contents(old) == before


# And back


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """What happens to a memory: a verb and what it is about."""
    verbs = ("add", "update", "link", "judge", "use", "categorise", "delete", "expire", "procedure", "document")
    return draw(st.lists(st.tuples(st.sampled_from(verbs), st.integers(0, 30), st.integers(0, 30)), max_size=25))


def live(memory: Memory, life: list[tuple[str, int, int]]) -> None:
    for step, (verb, first, second) in enumerate(life):
        here = [segment.id for segment in memory.get_all(include_superseded=True)]
        one, other = (here[at % len(here)] if here else "" for at in (first, second))
        match verb:
            case "add":
                turns = [{"role": "user", "content": f"Tea number {first}."}] * (1 + second % 2)
                memory.add(turns, session=f"s{second % 3}", importance=first / 30)
            case "document":
                memory.add(f"# Garden {first}\n\n" + f"Word {second}. " * 400, source="document")
            case "update" if here:
                memory.update(one, f"Said otherwise at step {step}, of {one}.")
            case "categorise" if here:
                memory.update(one, category=f"C{second % 3}")
            case "procedure" if here:
                memory.update(one, kind="procedural")
            case "expire" if here:
                memory.update(one, expires_at=ago(second - 10))
            case "delete" if here:
                memory.delete(one)
            case "link" if one != other:
                memory.link(one, other, "reply", weight=(1 + first) / 31)
            case "judge" if here:
                memory.feedback(f"which {second}?", one, useful=second % 4 == 0)
            case "use" if here:
                memory.search(f"tea number {first}", k=3)


@settings(max_examples=10, deadline=None)
@given(lives(), lives(), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([None, 50.0]))
def test_pruning_and_taking_it_back_changes_nothing(
    early: list[tuple[str, int, int]], late: list[tuple[str, int, int]], below: float, older: float | None
) -> None:
    place = Path(tempfile.mkdtemp(prefix="memspan-pruned-"))
    try:
        with aged(place / "store", 100, lambda memory: live(memory, [("add", 1, 1), ("add", 2, 0), *early])) as memory:
            live(memory, late)
            memory.compact()
            memory.prune()  # writes down what was used until now
            before, seen = contents(memory), ids(memory)
            done = memory.prune(below=below, older_than=older, dry_run=False)
            gone = {each.id for each in done.fading}
            assert ids(memory) == [id for id in seen if id not in gone]
            assert memory.verify()["ok"]
            if done.operation is not None:
                undone = memory.undo(done.operation)
                assert (undone.verb, undone.undoes, undone.segments) == ("undo", done.operation, len(gone))
            assert contents(memory) == before
            assert memory.verify()["ok"]
            assert memory.stats()["namespaces"]["default"]["pending"] == 0
    finally:
        shutil.rmtree(place)


def test_what_came_back_is_found_again_and_what_it_was_before_too(old: Memory) -> None:
    first, *_ = ids(old)
    old.update(first, "Ana drank mate.")
    done = old.prune(below=1.0, dry_run=False)
    with pytest.raises(NotFound):
        old.get(first)
    old.undo(str(done.operation))
    assert old.search("mate", k=1)[0].id == first
    assert [event.text for event in old.history(first)] == ["Ana drank tea number 0.", "Ana drank mate."]


def test_what_came_back_can_go_again_and_come_back_again(old: Memory) -> None:
    before = ids(old)
    done = old.prune(dry_run=False)
    undone = old.undo(str(done.operation))
    with pytest.raises(NotUndoable, match="taken back already"):
        old.undo(str(done.operation))
    gone = old.undo(undone.id)
    assert ids(old) == []
    with pytest.raises(NotUndoable, match="taken back already"):
        old.undo(str(done.operation))
    old.undo(gone.id)
    assert ids(old) == before
    assert len(old.prune(dry_run=False).fading) == 4
    assert ids(old) == []


def test_what_was_pruned_here_is_not_brought_back_by_an_older_archive(old: Memory, tmp_path: Path) -> None:
    archive = old.export_to(tmp_path / "before.jsonl").path
    old.prune(dry_run=False)
    assert old.import_from(archive).deleted == 4
    assert ids(old) == []


def test_without_its_archive_it_cannot_come_back_and_with_a_damaged_one_nothing_changes(old: Memory) -> None:
    done = old.prune(dry_run=False)
    archive = Path(str(done.archive))
    raw = archive.read_bytes()
    archive.write_bytes(raw[:-200] + bytes(200))
    with pytest.raises(InvalidInput, match="path"):
        old.undo(str(done.operation))
    archive.unlink()
    with pytest.raises(NotUndoable, match="not at"):
        old.undo(str(done.operation))
    assert ids(old) == []
    archive.write_bytes(raw)
    old.undo(str(done.operation))
    assert len(ids(old)) == 4


def test_an_interrupted_return_is_run_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def many(memory: Memory) -> None:
        memory.add([{"role": "user", "content": f"Tea number {number}."} for number in range(700)], session="s")

    with aged(path, 100, many) as memory:
        before = contents(memory)
        done = memory.prune(dry_run=False)
        restore, calls = memory._ledger.restore, []

        def twice(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise StoreError("the power is gone")
            return restore(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(memory._ledger, "restore", twice)
            with pytest.raises(StoreError):
                memory.undo(str(done.operation))
        assert 0 < len(memory.get_all(limit=1_000)) < 700
        memory.undo(str(done.operation))
        assert contents(memory) == before


# Erasure reaches what was pruned


def pruned_with(memory: Memory, *texts: str) -> list[str]:
    """Records in the archives of a store that hold any of these texts."""
    archives = sorted((Path(str(memory.path)) / "pruned").iterdir())
    records = [str(record) for file in archives for record in cube.read(file, lambda problem: None)]
    return [record for record in records if any(text in record for text in texts)]


def test_an_erasure_takes_what_lies_pruned_too(old: Memory) -> None:
    first, second, third, fourth = ids(old)
    old.link(first, second, "reply")
    old.feedback("which?", first, useful=False)
    done = old.prune(dry_run=False)
    assert pruned_with(old, "tea number 0") != []
    assert old.erase(first.upper()).segments == 1
    assert pruned_with(old, "tea number 0", first) == []
    assert old.erase(first).segments == 0
    old.undo(str(done.operation))
    assert ids(old) == [second, third, fourth]
    assert old.verify()["ok"]
    done = old.prune(dry_run=False)
    assert old.erase([second, third, fourth]).segments == 3
    assert pruned_with(old, "Ana drank tea") == []
    with pytest.raises(NotUndoable):
        old.undo(str(done.operation))


def test_an_erasure_of_a_scope_takes_of_what_lies_pruned_what_is_in_it(path: Path) -> None:
    def fill(memory: Memory) -> None:
        tea(memory)
        memory.add("Ben drank milk.", user_id="ben", category="Drinks")
        memory.add("Ben ate bread.", user_id="ben")

    with aged(path, 100, fill) as memory:
        done = memory.prune(dry_run=False)
        assert memory.erase(user_id="ben", filters={"category": "Drinks"}).segments == 1
        assert pruned_with(memory, "milk") == []
        assert memory.erase(user_id="ana").segments == 4
        assert memory.erase(user_id="ana", namespace="elsewhere").segments == 0
        memory.undo(str(done.operation))
        assert [segment.text for segment in memory.get_all()] == ["Ben ate bread."]


# Elsewhere


def test_working_memory_ends_after_a_day_unless_it_says_when(memory: Memory) -> None:
    (usual,) = memory.add("The task is half done.", kind="working").ids
    (longer,) = memory.add("The task is long.", kind="working", expires_at="2999-01-01").ids
    (changed,) = memory.add("The task has changed.").ids
    memory.update(changed, kind="working")
    for id in (usual, changed):
        ends = memory.get(id).expires_at
        assert ends is not None
        assert timedelta(hours=23) < ends - datetime.now(UTC) <= timedelta(days=1)
    assert memory.get(longer).expires_at == datetime(2999, 1, 1, tzinfo=UTC)
    key = {"kind": "working", "idempotency_key": "once"}
    assert memory.add("Twice.", **key).ids == memory.add("Twice.", **key).ids  # type: ignore[arg-type]


def test_strength_is_a_feature_of_dsm_and_of_no_other_recipe(old: Memory) -> None:
    (fresh,) = old.add("Ana drank tea just now.", user_id="ana").ids
    parts = {hit.id: hit.channels or {} for hit in old.search("Ana drank tea", recipe="dsm", explain=True)}
    assert len(parts) == 5
    assert parts[fresh]["strength"] == pytest.approx(1, abs=1e-3)
    assert all(0 < part["strength"] < 0.05 for id, part in parts.items() if id != fresh)
    assert all("strength" not in (hit.channels or {}) for hit in old.search("Ana drank tea", explain=True))


def test_the_command_only_tells_until_it_is_told_to_apply(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--store", str(path)])
        assert ended.value.code == 0
        return capsys.readouterr().out

    aged(path, 100, tea).close()
    told = run("prune")
    assert "4 of 4 segments would go" in told
    assert "--apply" in told
    assert "tea number 3" in told
    document = json.loads(run("prune", "--apply", "--json"))
    assert len(document["fading"]) == 4
    assert Path(document["archive"]).is_file()
    assert "0 of 0 segments would go" in run("prune", "--kind", "episodic", "--older-than", "3", "--below", "1")
    with Memory(path) as memory:
        memory.undo(document["operation"])
        assert len(ids(memory)) == 4


def test_an_archive_holds_links_to_what_stays_and_no_tombstones(old: Memory) -> None:
    (fresh,) = old.add("Ben likes coffee.").ids
    old.link(ids(old)[0], fresh, "reply")
    old.erase(ids(old)[1])
    done = old.prune(dry_run=False)
    records = list(cube.read(Path(str(done.archive)), lambda problem: None))
    assert [record.target for record in records if isinstance(record, Edge)] == [fresh]
    assert not any(isinstance(record, Tombstone) for record in records)
    assert len([record for record in records if isinstance(record, Version)]) == 3
