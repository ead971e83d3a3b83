"""A copy of a whole store answers like its source, whatever happened there before and while it was made."""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import database
from running import started

from memspan import EncoderError, InvalidInput, KeyNeeded, Memory, NotAStore, StoreBusy
from memspan.cli import main
from memspan.encoders.base import Encoded
from memspan.testing import WordEncoder
from memspan.transfer import copy

SPACES = ("default", "other")
TEXTS = ("The spare key hangs behind the blue door.", "Ana moved to Lisbon.", "Ben sold his boat at the fair.")
WAYS = (
    "add", "add", "add", "again", "talk", "update", "category", "delete", "erase", "link", "unlink", "judge", "use",
    "supersede", "read", "quarantine", "undo", "key", "tell",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _small(words: WordEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token activations by an encoder without a model, and many small pages."""
    monkeypatch.setattr("memspan.transfer.PAGE", 4)
    monkeypatch.setattr("memspan.transfer.SHORT", 2)


class Deaf(WordEncoder):
    """The same encoder, where it must not be asked to encode what is stored."""

    def encode(self, texts: Any) -> Encoded:
        raise AssertionError("it was asked")


def opened(path: object, encoder: type[WordEncoder] = WordEncoder) -> Memory:
    return Memory(str(path), encoder=encoder())


class Life:
    """What happens to a memory, by numbers that choose what and to which segment."""

    def __init__(self, memory: Memory, folder: Path) -> None:
        self.memory = memory
        self.folder = folder
        self.said = 0

    def lead(self, steps: list[tuple[str, int, int]]) -> None:
        for way, pick, space in steps:
            self.step(way, pick, SPACES[space])

    def step(self, way: str, pick: int, space: str) -> None:
        memory, self.said = self.memory, self.said + 1
        words = f"{TEXTS[pick % len(TEXTS)]} It is number {self.said}."
        if way == "add":
            memory.add(words, namespace=space, user_id=("ana", None)[pick % 2], importance=pick % 5 / 4)
        elif way == "again":
            memory.add(TEXTS[pick % len(TEXTS)], namespace=space)
        elif way == "talk":
            turns = [{"role": "user", "name": "Ana", "content": text} for text in (words, "yes", "yes")]
            memory.add(turns, namespace=space, session="talk", occurred_at="2024-05-01")
        elif way == "key":
            memory.add(words, namespace=space, idempotency_key=f"key {self.said}")
        elif way == "read":
            file = self.folder / f"{pick % 2}.md"
            file.write_text(f"# Title\n\n{words}\n\n## Part\n\nMore of it.")
            memory.add_file(file, namespace=space)
        elif way == "tell":
            memory.create_api_key(f"key {self.said}", namespaces=[space], rights=["read"])
        elif way == "undo":
            undoable = [
                each for each in memory.operations(namespace=space) if each.verb == "delete" and not each.undone_by
            ]
            for each in undoable[:1]:
                memory.undo(each.id, namespace=space)
        elif rows := memory.get_all(namespace=space, limit=1_000):
            one, other = rows[pick % len(rows)].id, rows[pick // 7 % len(rows)].id
            self.on(way, one, other, words, space)

    def on(self, way: str, one: str, other: str, words: str, space: str) -> None:
        memory = self.memory
        if way == "update":
            memory.update(one, words, namespace=space)
        elif way == "category":
            memory.update(one, category=f"C{self.said} / D", metadata={"n": [self.said, 1.5, None]}, namespace=space)
        elif way == "delete":
            memory.delete(one, namespace=space)
        elif way == "erase":
            memory.erase(one, namespace=space)
        elif way == "judge":
            memory.feedback(f"what is {self.said}?", one, self.said % 3 > 0, namespace=space)
        elif way == "use":
            memory.search("key", namespace=space)
        elif way == "quarantine":
            memory.quarantine(one, "doubtful", namespace=space)
        elif one != other:
            if way == "link":
                memory.link(one, other, "reply", 0.5, namespace=space)
            elif way == "unlink":
                memory.unlink(one, other, namespace=space)
            elif way == "supersede":
                memory.supersede(one, other, namespace=space)


def everything(memory: Memory, folder: Path, *, searched: bool = True) -> dict[str, Any]:
    """What a memory answers, to be compared with another one's."""
    told: dict[str, Any] = {"keys": [(key.id, key.namespaces) for key in memory.api_keys()]}
    for space in memory.stats()["namespaces"]:
        memory.export_to(folder / "all.jsonl", namespace=space)
        rows = memory.get_all(namespace=space, limit=1_000)
        documents = {row.document_id for row in rows} - {None}
        told[space] = {
            "archive": (folder / "all.jsonl").read_bytes(),
            "rows": [(row.id, row.version, row.position, row.repeats, row.text) for row in rows],
            "history": [memory.history(row.id, namespace=space) for row in rows],
            "operations": memory.operations(namespace=space, limit=1_000),
            "documents": sorted((memory.document(id, namespace=space) for id in documents), key=lambda each: each.id),
            "vectors": memory.embeddings(namespace=space)[1].tobytes(),
        }
    for space in SPACES if searched else ():  # a search is counted, so these come last, and in both
        for query in ("where is the spare key?", "Lisbon", "boat"):
            hits = memory.search(query, namespace=space, explain=True)
            told[f"{space}: {query}"] = [(hit.id, hit.score, dict(hit.channels)) for hit in hits]
    return told


def same(source: object, target: object, folder: Path, *, searched: bool = True) -> None:
    with opened(source) as memory:
        wanted = everything(memory, folder, searched=searched)
    with opened(target) as memory:
        found = everything(memory, folder, searched=searched)
        assert memory.verify()["ok"]
    assert found == wanted


STEPS = st.lists(st.tuples(st.sampled_from(WAYS), st.integers(0, 1_000), st.integers(0, 1)), min_size=1, max_size=25)
Steps = list[tuple[str, int, int]]


def lived(path: Path, folder: Path, seed: int = 1, many: int = 60) -> None:
    """A store in which much has happened."""
    choose = random.Random(seed)
    with opened(path) as memory:
        Life(memory, folder).lead(
            [(choose.choice(WAYS), choose.randrange(1_000), choose.randrange(2)) for _ in range(many)]
        )


SLOW = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


@settings(suppress_health_check=SLOW)
@given(before=STEPS, after=STEPS)
def test_a_copy_answers_like_its_source_and_again_after_more_has_happened(
    before: Steps, after: Steps, words: WordEncoder
) -> None:
    with tempfile.TemporaryDirectory(prefix="memspan-copy-") as place:
        source, target = Path(place, "source"), Path(place, "target")
        follow(before, after, [source, target], Path(place))
        same(source, target, Path(place))


@settings(suppress_health_check=SLOW, max_examples=settings.default.max_examples // 5)
@given(before=STEPS, after=STEPS)
def test_so_does_the_copy_of_a_copy_of_a_copy_from_a_database_to_a_directory_and_back_and_again(
    before: Steps, after: Steps, words: WordEncoder, postgres_server: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="memspan-copy-") as place, ExitStack() as made:
        first, second = (made.enter_context(database(postgres_server)) for _ in range(2))
        one, other = Path(place, "one"), Path(place, "other")
        follow(before, after, [first, one, second, other], Path(place))
        same(first, other, Path(place), searched=False)
        same(one, other, Path(place))


def follow(before: Steps, after: Steps, chain: list[Any], folder: Path) -> None:
    """Copy a store from place to place, twice while it lives and once in the end."""
    ways = list(pairwise(chain))
    with opened(chain[0]) as memory:
        life = Life(memory, folder)
        for steps in (before, after):
            life.lead(steps)
            assert [copy(*way).differences for way in ways] == [()] * len(ways)
    # what was searched for was written down when it was closed
    told = [copy(*way) for way in ways]
    assert [(done.differences, done.behind) for done in told] == [((), 0)] * len(ways)


def test_nothing_is_encoded_again(tmp_path: Path) -> None:
    lived(tmp_path / "source", tmp_path)
    copy(tmp_path / "source", tmp_path / "target")
    with opened(tmp_path / "source") as memory, opened(tmp_path / "target", Deaf) as other:
        assert other.stats()["pending"] == 0
        wanted, found = (each.stats()["activations"] for each in (memory, other))
        assert wanted["tensors"] > 0
        assert [found[name] for name in ("tensors", "references", "lost")] == [
            wanted[name] for name in ("tensors", "references", "lost")
        ]
        assert np.array_equal(memory.embeddings()[1], other.embeddings()[1])
        assert [row.id for row in other.get_all()] == [row.id for row in memory.get_all()]
        other.compact()


def test_what_waits_for_its_vector_waits_in_the_copy_too(tmp_path: Path) -> None:
    with Memory(tmp_path / "source", encoder=WordEncoder()):
        pass
    with Memory(tmp_path / "source", encoder=None) as memory:
        memory.add(["One waits."][0])
    copy(tmp_path / "source", tmp_path / "target")
    with Memory(tmp_path / "target", encoder=None) as other:
        assert other.stats()["pending"] == 1
    with opened(tmp_path / "target") as other:
        other.compact()
        assert (other.stats()["pending"], other.search("waits")[0].text) == (0, "One waits.")


def test_the_log_between_directories_has_the_same_head(tmp_path: Path) -> None:
    lived(tmp_path / "source", tmp_path)
    copy(tmp_path / "source", tmp_path / "target")
    with opened(tmp_path / "source") as memory, opened(tmp_path / "target") as other:
        one, two = memory.stats(), other.stats()
        assert one["log"] == two["log"]
        assert one["log"]["entries"] > 20
        assert one["store_id"] != two["store_id"]


@pytest.mark.parametrize("into", ["a directory", "a database"])
def test_one_that_is_killed_again_and_again_cannot_be_opened_and_goes_on(
    into: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lived(tmp_path / "source", tmp_path, many=150)
    source = tmp_path / "source"
    target = tmp_path / "target" if into == "a directory" else request.getfixturevalue("postgres")
    choose, kills, steps = random.Random(3), 0, 0
    while True:
        steps += choose.randint(1, 6)
        with started("copy", source, target) as process:
            for said, told in enumerate(process.lines(), 1):
                if "brought" in told:
                    assert told["differences"] == []
                    break
                if said == steps:
                    process.kill()
            if "brought" in told:
                break
            assert process.ended() == -9
        kills += 1
        with pytest.raises(StoreBusy, match="not whole yet"):
            opened(target)
    assert kills > 1
    same(source, target, tmp_path, searched=into == "a directory")  # a database finds by other indexes


@pytest.mark.parametrize("out_of", ["a directory", "a database"])
def test_others_write_on_while_it_is_made_and_it_is_of_one_moment(
    out_of: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lived(tmp_path / "source", tmp_path)
    source, target = str(tmp_path / "source"), tmp_path / "target"
    if out_of == "a database":
        source = request.getfixturevalue("postgres")
        copy(tmp_path / "source", source)
    with started("churn", source, "1", "7") as writer:
        writes = writer.lines()
        for _ in range(20):
            next(writes)
        done = copy(source, target)
        assert done.differences == ()
        assert sum("added" in next(writes) for _ in range(200)) > 0
    again = copy(source, target)
    assert (again.differences, again.behind) == ((), 0)
    assert again.brought + again.removed > 0
    same(source, target, tmp_path, searched=False)  # what was compacted is found by indexes that are approximate


def test_what_is_erased_meanwhile_is_nowhere_in_the_copy(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with opened(source) as memory:
        ids = memory.add([{"role": "user", "content": f"The zebulon{n} treaty number {n}."} for n in range(30)]).ids
        memory.link(ids[0], ids[1], "reply")
        memory.feedback("which zebulon0?", ids[0])
        texts = [memory.get(id).text for id in ids]
        gone = iter([ids[0], ids[4], ids[29]])

        def erasing(done: int, total: int, what: str) -> None:
            if what == "copying" and (id := next(gone, None)) is not None:
                memory.erase(id)

        done = copy(source, target, progress=erasing)
        assert (done.differences, done.segments) == ((), 27)
        with opened(target) as other:
            erased = [texts[0], texts[4], texts[29]]
            assert not other.verify_erasure(erased).found
            assert [event.event for event in other.history(ids[0])] == ["ERASE"]
            other.compact()
        memory.erase(ids[7])
        assert copy(source, target).removed == 1
        with opened(target) as other:
            assert not other.verify_erasure(texts[7]).found
            memory.export_to(tmp_path / "all.jsonl")
            assert other.import_from(tmp_path / "all.jsonl").added == 0


def test_what_was_erased_before_is_refused_by_the_copy_as_by_its_source(tmp_path: Path) -> None:
    with opened(tmp_path / "source") as memory:
        id = memory.add("A secret.").ids[0]
        memory.export_to(tmp_path / "before.jsonl")
        memory.erase(id)
    copy(tmp_path / "source", tmp_path / "target")
    with opened(tmp_path / "target") as other:
        taken = other.import_from(tmp_path / "before.jsonl")
        assert (taken.added, taken.deleted) == (0, 1)


def test_a_retry_with_a_key_that_was_used_before_the_copy_adds_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "source") as memory:
        id = memory.add("Once.", idempotency_key="k").ids[0]
    copy(tmp_path / "source", tmp_path / "target")
    with opened(tmp_path / "target") as other:
        assert other.add("Once.", idempotency_key="k").ids == (id,)
        assert other.get(id).repeats == 0


def test_a_source_that_is_encoded_anew_between_two_runs_is_copied_with_its_new_vectors(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    lived(source, tmp_path)
    copy(source, target)
    with opened(source) as memory:
        memory.reencode(tokens="int8")
    assert copy(source, target).differences == ()
    same(source, target, tmp_path)


def test_texts_that_a_new_encoder_of_the_source_refused_wait_in_the_copy_too(tmp_path: Path) -> None:
    class Picky(WordEncoder):
        def __init__(self) -> None:
            super().__init__(64)

        def encode(self, texts: Sequence[str]) -> Encoded:
            if any("Lisbon" in text for text in texts):
                raise EncoderError("no towns", mend="name none")
            return super().encode(texts)

    with opened(tmp_path / "source") as memory:
        for text in TEXTS:
            memory.add(text)
        copy(tmp_path / "source", tmp_path / "target")
        memory.reencode(encoder=Picky())
        assert memory.stats()["pending"] == 1
        assert copy(tmp_path / "source", tmp_path / "target").differences == ()
    with Memory(tmp_path / "target", encoder=None) as other:
        assert other.stats()["pending"] == 1


def test_versions_that_are_counted_anew_between_two_runs_are_in_the_copy(tmp_path: Path) -> None:
    with opened(tmp_path / "source") as memory, opened(tmp_path / "elsewhere") as elsewhere:
        id = memory.add("Said first.").ids[0]
        memory.export_to(tmp_path / "first.jsonl")
        elsewhere.import_from(tmp_path / "first.jsonl")
        elsewhere.update(id, "Said elsewhere.")
        for text in ("Said second.", "Said third.", "Said fourth."):
            memory.update(id, text)
        copy(tmp_path / "source", tmp_path / "target")
        elsewhere.export_to(tmp_path / "elsewhere.jsonl")
        assert memory.import_from(tmp_path / "elsewhere.jsonl").added == 1
        assert copy(tmp_path / "source", tmp_path / "target").differences == ()
        told = [(event.version, event.text) for event in memory.history(id)]
    assert [text for _, text in told] == [
        "Said first.", "Said elsewhere.", "Said second.", "Said third.", "Said fourth.",
    ]  # fmt: skip
    with opened(tmp_path / "target") as other:
        assert [(event.version, event.text) for event in other.history(id)] == told
        assert other.verify()["ok"]


def test_a_token_matrix_that_is_damaged_in_the_source_is_made_again_in_the_copy(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    lived(source, tmp_path)
    for arena in (source / "activations").iterdir():
        raw = bytearray(arena.read_bytes())
        raw[200:260] = bytes(60)
        arena.write_bytes(raw)
    assert copy(source, target).differences == ()
    with opened(target) as other:
        assert other.stats()["activations"]["lost"] > 0
        other.compact()
        assert other.stats()["activations"]["lost"] == 0
        assert other.verify()["ok"]


def test_a_copy_goes_on_as_a_memory_of_its_own(tmp_path: Path, postgres: str) -> None:
    lived(tmp_path / "source", tmp_path)
    with opened(tmp_path / "source") as memory:
        id = memory.add("Taken back.").ids[0]
        memory.delete(id)
        (deleted,) = memory.operations(id, limit=1)
    chain: list[Any] = [tmp_path / "source", postgres, tmp_path / "target"]
    for number, (source, target) in enumerate(pairwise(chain)):
        copy(source, target)
        with opened(target) as other:
            for space in SPACES:
                added = other.add(f"Said at place {number}.", namespace=space).ids[0]
                assert other.get_all(namespace=space, limit=1_000)[-1].id == added
                assert other.search(f"said at place {number}", namespace=space)[0].id == added
            if number == 0:
                other.undo(deleted.id)
            assert other.get(id).text == "Taken back."
            assert other.verify()["problems"] == []


# What is refused


def test_a_place_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    lived(tmp_path / "source", tmp_path)
    lived(tmp_path / "other", tmp_path, seed=2)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "note.txt").write_text("mine")
    before = (tmp_path / "other" / "ledger.db").read_bytes()
    with pytest.raises(InvalidInput, match="is no copy of a store") as caught:
        copy(tmp_path / "source", tmp_path / "other")
    assert caught.value.argument == "target"
    assert (tmp_path / "other" / "ledger.db").read_bytes() == before
    copy(tmp_path / "source", tmp_path / "target")
    with pytest.raises(InvalidInput, match="is a copy of another store"):
        copy(tmp_path / "other", tmp_path / "target")
    with pytest.raises(NotAStore, match="holds other files"):
        copy(tmp_path / "source", tmp_path / "files")
    with pytest.raises(NotAStore, match="there is no memory"):
        copy(tmp_path / "nowhere", tmp_path / "new")
    for place in (":memory:", "http://localhost:8767"):
        with pytest.raises(InvalidInput, match="no place to copy"):
            copy(tmp_path / "source", place)
    with pytest.raises(InvalidInput, match="is the source"):
        copy(tmp_path / "source", tmp_path / "files" / ".." / "source")
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "nowhere").exists()


def test_a_copy_that_was_written_to_is_not_written_over_but_one_that_was_searched_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    lived(source, tmp_path)
    copy(source, target)
    with opened(target) as other:
        other.search("key")
        other.compact()
    assert copy(source, target).differences == ()
    with opened(target) as other:
        id = other.add("Said here.").ids[0]
    with pytest.raises(InvalidInput, match="was written to"):
        copy(source, target)
    with opened(target) as other:
        assert other.get(id).text == "Said here."


def test_a_copy_that_is_not_whole_is_no_source(tmp_path: Path) -> None:
    lived(tmp_path / "source", tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(tmp_path / "source", tmp_path / "target", progress=stop)
    with pytest.raises(StoreBusy, match="not whole yet"):
        copy(tmp_path / "target", tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_an_encrypted_store_stays_encrypted_unless_it_is_said_that_it_may_stand_in_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.keys._SCRYPT", {"n": 1 << 8, "r": 8, "p": 1})
    text = "The zebulon treaty."
    source = tmp_path / "source"
    with Memory(source, encoder=WordEncoder(), key="one") as memory:
        memory.add(text)
    with pytest.raises(KeyNeeded):
        copy(source, tmp_path / "no key")
    copy(source, tmp_path / "sealed", key="one")
    copy(source, tmp_path / "other key", key="one", target_key="two")
    copy(source, tmp_path / "clear", key="one", plaintext=True)
    for name, key in (("sealed", "one"), ("other key", "two"), ("clear", None)):
        raws = [file.read_bytes() for file in (tmp_path / name).rglob("*") if file.is_file()]
        assert any(b"zebulon" in raw for raw in raws) == (key is None)
        with Memory(tmp_path / name, encoder=WordEncoder(), key=key) as other:
            assert other.search("treaty")[0].text == text
    copy(tmp_path / "clear", tmp_path / "sealed again", target_key="three")
    assert copy(source, tmp_path / "sealed", key="one").differences == ()


def test_an_encrypted_store_goes_to_a_database_only_in_clear(tmp_path: Path, postgres: str) -> None:
    with Memory(tmp_path / "source", encoder=WordEncoder(), key=bytes(32)) as memory:
        memory.add("Ana.")
    with pytest.raises(InvalidInput, match="in clear") as caught:
        copy(tmp_path / "source", postgres, key=bytes(32))
    assert caught.value.argument == "plaintext"
    assert copy(tmp_path / "source", postgres, key=bytes(32), plaintext=True).differences == ()
    with pytest.raises(InvalidInput) as caught:
        copy(tmp_path / "source", postgres, key=bytes(32), plaintext=True, target_key="another")
    assert caught.value.argument == "target_key"


def test_two_at_once_are_refused(tmp_path: Path, postgres: str) -> None:
    source = tmp_path / "source"
    lived(source, tmp_path)
    for target in (str(tmp_path / "target"), postgres):

        def another(*_: object, target: str = target) -> None:
            with pytest.raises(StoreBusy, match="by another process"):
                copy(source, target)

        assert copy(source, target, progress=another).differences == ()


# The command


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_the_command_copies_compares_and_says_so(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    lived(source, tmp_path)
    code, out, _ = run("copy", source, target, "--json")
    done = json.loads(out)
    assert (code, done["differences"], done["removed"], done["behind"]) == (0, [], 0, 0)
    assert done["brought"] == done["versions"] > 10
    code, out, _ = run("copy", source, target, "--verify-only")
    assert (code, out.startswith(f"{target} is the same as {source} was at ")) == (0, True)
    assert run("copy", source, tmp_path / "nowhere", "--verify-only")[0] == 3


def test_what_is_not_the_same_is_named_and_the_exit_code_says_so(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with opened(source) as memory:
        first, second = (memory.add(text).ids[0] for text in TEXTS[:2])
        memory.link(first, second, "reply")
    run("copy", source, target)
    with closing(sqlite3.connect(target / "ledger.db")) as raw, raw:
        raw.execute("UPDATE segments SET text = 'The spare key hangs elsewhere.' WHERE seq = 1")
        raw.execute("DELETE FROM edges")
    code, _, err = run("copy", source, target, "--verify-only")
    assert code == 1
    assert "default: edges: 1 in the source, 0 in the copy" in err
    assert f"segment {first} (seq 1) is not what was written" in err
    with opened(source) as memory:
        memory.add("Later.")
    code, _, err = run("copy", source, target, "--verify-only", "--json")
    assert code == 1
