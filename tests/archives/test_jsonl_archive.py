"""JSON lines: all of a memory goes out and comes back, whatever is in it, and what cannot be read is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import InvalidInput, Memory, NewerStore, NotFound
from memspan.reports import Imported, Problem

from .conftest import lived_in, out

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300).filter(
    lambda text: not text.isspace()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def changed(file: Path, change: Any) -> Path:
    """The same archive with what ``change`` makes of each line's JSON; None leaves the line out."""
    kept = [change(json.loads(line)) for line in file.read_bytes().splitlines()]
    file.write_bytes(b"".join(json.dumps(each).encode() + b"\n" for each in kept if each is not None))
    return file


def test_everything_comes_back_byte_for_byte(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory, Memory(tmp_path / "b", encoder="hash") as other:
        first = out(memory, tmp_path / "a.jsonl")
        done = other.import_from(tmp_path / "a.jsonl")
        assert (done.failed, done.there, done.pending) == (0, 0, 0)
        assert done.added == done.read > len(other.get_all())
        assert out(other, tmp_path / "b.jsonl") == first
        assert other.verify()["ok"]
        for segment in memory.get_all():
            told = [[replace(event, operation=None) for event in each.history(segment.id)] for each in (other, memory)]
            assert told[0] == told[1]
            assert [near.id for near in other.neighbors(segment.id)] == [
                near.id for near in memory.neighbors(segment.id)
            ]
        found = [hit.id for hit in memory.search("the core logic", k=3)]
        assert [hit.id for hit in other.search("the core logic", k=3)] == found


def test_what_was_known_at_a_time_is_known_of_it_after_an_import(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder="hash") as memory, Memory(tmp_path / "b", encoder="hash") as other:
        id = memory.add("The meeting is on Monday.").ids[0]
        memory.update(id, "The meeting is on Friday.")
        before = memory.history(id)[0].at
        out(memory, tmp_path / "a.jsonl")
        other.import_from(tmp_path / "a.jsonl")
        assert [hit.text for hit in other.search("when is the meeting?", as_of=before)] == ["The meeting is on Monday."]
        assert other.update(id, "The meeting is off.").version == 3
        assert other.add("The meeting is off.").repeated == 1


def test_a_second_import_adds_nothing(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory, Memory(tmp_path / "b", encoder="hash") as other:
        first = out(memory, tmp_path / "a.jsonl")
        read = other.import_from(tmp_path / "a.jsonl").read
        again = other.import_from(tmp_path / "a.jsonl")
        assert (again.added, again.there, again.links) == (0, read, 0)
        assert memory.import_from(tmp_path / "a.jsonl").there == read
        assert out(other, tmp_path / "b.jsonl") == out(memory, tmp_path / "c.jsonl") == first


def test_it_can_go_into_another_namespace_of_the_same_store(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory:
        out(memory, tmp_path / "a.jsonl")
        done = memory.import_from(tmp_path / "a.jsonl", namespace="copy")
        assert done.added == done.read
        here, there = memory.get_all(), memory.get_all(namespace="copy")
        assert {each.id for each in here} == {each.id for each in there}
        memory.erase(namespace="copy")
        assert len(memory.get_all()) == len(here)
        assert memory.verify()["ok"]


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), metadata=st.dictionaries(TEXTS, JSON, max_size=3))
def test_any_text_and_any_metadata_come_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], metadata: dict[str, Any]
) -> None:
    place = tmp_path_factory.mktemp("any")
    with Memory(place / "a", encoder=None) as memory, Memory(place / "b", encoder=None) as other:
        for text in [*texts, *texts]:
            memory.add([{"role": "user", "content": text}, {"role": "user", "content": text}], metadata=metadata)
        memory.update(memory.get_all()[0].id, texts[-1] + " again")
        first = out(memory, place / "a.jsonl")
        assert other.import_from(place / "a.jsonl").failed == 0
        assert out(other, place / "b.jsonl") == first
        assert all(line.startswith(b'{"type": ') for line in first.splitlines())


def test_a_part_goes_out_with_what_it_was_before_and_what_refers_to_it(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory:
        out(memory, tmp_path / "part.jsonl", user_id="ana")
        with Memory(tmp_path / "b", encoder="hash") as other:
            other.import_from(tmp_path / "part.jsonl")
            assert {each.user_id for each in other.get_all()} == {"ana"}
            assert len(other.get_all()) == len(memory.get_all(user_id="ana"))
            assert out(other, tmp_path / "b.jsonl") == (tmp_path / "part.jsonl").read_bytes()
        out(memory, tmp_path / "now.jsonl", filters={"category": "Software"}, history=False)
        kinds = [json.loads(line) for line in (tmp_path / "now.jsonl").read_bytes().splitlines()]
        said = [each for each in kinds if each["type"] == "segment"]
        assert {each["category"][0] for each in said} == {"Software"}
        assert len(said) == len({each["id"] for each in said})
        assert not [each for each in kinds if each["type"] == "tombstone"]


def test_two_memories_that_went_on_apart_become_one_with_both_histories(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder="hash") as one, Memory(tmp_path / "b", encoder="hash") as two:
        id = one.add("The code is 1.").ids[0]
        out(one, tmp_path / "a.jsonl")
        two.import_from(tmp_path / "a.jsonl")
        one.update(id, "The code is 2, says one.")
        two.update(id, "The code is 3, says two.")
        two.update(id, "The code is 4, says two.")
        one.update(id, "The code is 5, says one.")
        two.add("Only two knows this.")
        out(one, tmp_path / "a.jsonl")
        out(two, tmp_path / "b.jsonl")
        assert one.import_from(tmp_path / "b.jsonl").conflicts == (id,)
        assert two.import_from(tmp_path / "a.jsonl").conflicts == (id,)
        assert out(one, tmp_path / "c.jsonl") == out(two, tmp_path / "d.jsonl")
        told = [(event.version, event.text) for event in one.history(id)]
        assert told == [
            (1, "The code is 1."),
            (2, "The code is 2, says one."),
            (3, "The code is 3, says two."),
            (4, "The code is 4, says two."),
            (5, "The code is 5, says one."),
        ]
        assert one.get(id).text == two.get(id).text == "The code is 5, says one."
        assert one.verify()["ok"]
        assert two.verify()["ok"]
        assert one.import_from(tmp_path / "d.jsonl").conflicts == ()


def test_what_both_heard_is_kept_once_and_links_lead_to_it(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder="hash") as one, Memory(tmp_path / "b", encoder="hash") as two:
        mine = one.add("The door is blue.").ids[0]
        other = two.add("It was painted in May.").ids[0]
        theirs = two.add("The door is blue.").ids[0]
        two.link(other, theirs, "about")
        two.feedback("which colour?", theirs)
        out(two, tmp_path / "b.jsonl")
        done = one.import_from(tmp_path / "b.jsonl")
        assert (done.added, done.there, done.links) == (1, 1, 1)
        assert [near.id for near in one.neighbors(other, "about")] == [mine]
        assert one.stats()["judgements"] == 1


def test_what_was_deleted_here_stays_so_unless_it_is_asked_for(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder="hash") as memory:
        id = memory.add("A secret.").ids[0]
        memory.add("No secret.")
        out(memory, tmp_path / "a.jsonl")
        memory.erase(id)
        done = memory.import_from(tmp_path / "a.jsonl")
        assert (done.deleted, done.there, done.added) == (1, 1, 0)
        with pytest.raises(NotFound):
            memory.get(id)
        assert memory.import_from(tmp_path / "a.jsonl", restore_deleted=True).added == 1
        assert memory.get(id).text == "A secret."
        assert [event.event for event in memory.history(id)] == ["ADD"]


def test_a_file_read_again_elsewhere_replaces_what_it_said(tmp_path: Path) -> None:
    note = tmp_path / "note.md"
    with Memory(tmp_path / "a", encoder="hash") as one, Memory(tmp_path / "b", encoder="hash") as two:
        note.write_text("# Plan\n\nWe meet on Monday.")
        one.add_file(note)
        out(one, tmp_path / "old.jsonl")
        two.import_from(tmp_path / "old.jsonl")
        note.write_text("# Plan\n\nWe meet on Friday.")
        one.add_file(note)
        out(one, tmp_path / "new.jsonl")
        two.import_from(tmp_path / "new.jsonl")
        assert [each.text for each in two.get_all()] == [each.text for each in one.get_all()]
        assert "Friday" in two.get_all()[-1].text
        two.import_from(tmp_path / "old.jsonl")
        one.import_from(tmp_path / "old.jsonl")
        assert out(two, tmp_path / "b.jsonl") == out(one, tmp_path / "c.jsonl") == (tmp_path / "new.jsonl").read_bytes()
        assert two.add_file(note).added == 0


def test_a_dry_run_tells_and_writes_nothing(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory, Memory(tmp_path / "b", encoder="hash") as other:
        out(memory, tmp_path / "a.jsonl")
        told = other.import_from(tmp_path / "a.jsonl", dry_run=True)
        assert told.dry_run
        assert other.get_all() == []
        assert other.stats()["versions"] == other.stats()["documents"] == 0
        done = other.import_from(tmp_path / "a.jsonl")
        assert (told.read, told.added, told.there) == (done.read, done.added, done.there)
        assert other.import_from(tmp_path / "a.jsonl", dry_run=True).added == 0


def test_an_archive_that_is_replaced_stays_as_private_as_it_was(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder=None) as memory:
        file = tmp_path / "a.jsonl"
        out(memory, file)
        file.chmod(0o400)
        memory.add("A secret.")
        assert b"A secret." in out(memory, file)
        assert file.stat().st_mode & 0o777 == 0o400


def test_an_interrupted_import_goes_on_where_it_was(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder=None) as memory, Memory(tmp_path / "b", encoder=None) as other:
        memory.add([{"role": "user", "content": f"Turn {number}."} for number in range(1_000)], session="s")
        first = out(memory, tmp_path / "a.jsonl")

        def interrupt(done: int, total: int, what: str) -> None:
            if done >= 512:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            other.import_from(tmp_path / "a.jsonl", progress=interrupt)
        assert len(other.get_all(limit=2_000)) == 512
        done = other.import_from(tmp_path / "a.jsonl")
        assert (done.there, done.added) == (512, 488)
        assert out(other, tmp_path / "b.jsonl") == first


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"type": "segment", "id": "no"', "is not JSON"),
        (b'{"type": "segment"}', "recorded_at: is missing"),
        (b'{"type": "thing"}', "there is no 'thing'"),
        (b"[]", "is no JSON object"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"type": "link", "source": "a"}', "is no UUID"),
    ],
)
def test_a_line_that_cannot_be_read_is_told_with_its_place_and_stops_nothing(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    with Memory(tmp_path / "a", encoder=None) as memory, Memory(tmp_path / "b", encoder=None) as other:
        memory.add("One.")
        memory.add("Two.")
        head, one, two = out(memory, tmp_path / "a.jsonl").splitlines(keepends=True)
        (tmp_path / "bad.jsonl").write_bytes(head + one + line + b"\n" + two)
        with pytest.raises(InvalidInput, match=r"bad\.jsonl:3"):
            other.import_from(tmp_path / "bad.jsonl", strict=True)
        assert other.get_all() == []
        done = other.import_from(tmp_path / "bad.jsonl")
        assert (done.added, done.failed) == (2, 1)
        assert done.problems[0].where == "bad.jsonl:3"
        assert reason in done.problems[0].problem


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 7),
        ("version", 0),
        ("version", True),
        ("text", ""),
        ("text", "a\0b"),
        ("text", None),
        ("session", ["a"]),
        ("user_id", "x" * 300),
        ("document_id", "no"),
        ("position", 2**60),
        ("heading", "no list"),
        ("heading", ["a\x1fb"]),
        ("category", 5),
        ("importance", 2),
        ("source", "stranger"),
        ("recorded_at", "yesterday"),
        ("occurred_at", 1e300),
        ("repeats", -1),
        ("metadata", {"a": float("nan")}),
        ("gap", "words"),
        ("identity", "zz"),
        ("identity", "00"),
    ],
)
def test_a_segment_with_a_wrong_field_is_left_out_and_the_field_is_named(
    tmp_path: Path, field: str, value: object
) -> None:
    with Memory(tmp_path / "a", encoder=None) as memory, Memory(tmp_path / "b", encoder=None) as other:
        memory.add([{"role": "user", "content": "Something said."}], session="s")
        out(memory, tmp_path / "a.jsonl")
        changed(tmp_path / "a.jsonl", lambda each: each | ({field: value} if each["type"] == "segment" else {}))
        done = other.import_from(tmp_path / "a.jsonl")
        assert (done.added, done.failed) == (0, 1)
        assert field in done.problems[0].problem


def test_links_and_words_about_what_is_not_there_are_passed_over(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory, Memory(tmp_path / "b", encoder=None) as other:
        out(memory, tmp_path / "a.jsonl")
        changed(tmp_path / "a.jsonl", lambda each: None if each["type"] == "segment" else each)
        done = other.import_from(tmp_path / "a.jsonl")
        assert (done.added, done.links, done.failed) == (0, 0, 0)
        assert other.stats()["judgements"] == 0
        assert other.verify()["ok"]


def test_a_newer_format_is_refused_and_nothing_is_read(tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    file.write_text('{"type": "memspan", "format": 2, "namespace": "default"}\n')
    with Memory(tmp_path / "a", encoder=None) as memory, pytest.raises(NewerStore, match="format 2"):
        memory.import_from(file)


def test_a_line_without_an_end_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memspan.archives.base.LONGEST_ITEM", 1_000)
    file = tmp_path / "long.jsonl"
    with Memory(tmp_path / "a", encoder=None) as memory, Memory(tmp_path / "b", encoder=None) as other:
        memory.add("Short.")
        head, line = out(memory, file).splitlines(keepends=True)
        file.write_bytes(head + b'{"type": "segment", "text": "' + b"x" * 5_000_000 + b'"}\n' + line)
        done = other.import_from(file)
        assert (done.added, done.failed) == (1, 1)
        assert done.problems == (Problem(where="long.jsonl:2", problem="is over 0 MiB long"),)


def test_an_archive_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder=None) as memory:
        memory.add([{"role": "user", "content": f"Turn {number}."} for number in range(600)], session="s")
        (tmp_path / "a.jsonl").write_text("what was here")

        def interrupt(done: int, total: int, what: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            memory.export_to(tmp_path / "a.jsonl", progress=interrupt)
        assert (tmp_path / "a.jsonl").read_text() == "what was here"
        assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "a.jsonl"]


def test_what_stands_at_the_path_is_recognised_or_the_formats_are_told(tmp_path: Path) -> None:
    (tmp_path / "thing.bin").write_bytes(b"\x00\x01\x02")
    with Memory(tmp_path / "a", encoder=None) as memory:
        with pytest.raises(NotFound):
            memory.import_from(tmp_path / "nothing.jsonl")
        with pytest.raises(InvalidInput, match="jsonl"):
            memory.import_from(tmp_path / "thing.bin")
        with pytest.raises(InvalidInput, match="there is no 'xml'"):
            memory.import_from(tmp_path / "thing.bin", "xml")
        with pytest.raises(InvalidInput, match="can only be read"):
            memory.export_to(tmp_path / "x.json", "mem0")
        with pytest.raises(InvalidInput, match="says no format"):
            memory.export_to(tmp_path / "x.docx")
        assert isinstance(memory.export_to(tmp_path / "empty.jsonl").segments, int)
        assert memory.import_from(tmp_path / "empty.jsonl") == Imported(
            path=str(tmp_path / "empty.jsonl"), format="jsonl"
        )
