"""What was erased is in no file any more, and everything else is as it was, to the byte."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from running import started

from memspan import Memory, NotUndoable
from memspan.analysis import key_of as term_key
from memspan.analysis import terms
from memspan.archives.base import Contents, Header
from memspan.archives.cube import write
from memspan.drafting import content_key
from memspan.entities import key_of as name_key
from memspan.records import Segment, Version
from memspan.testing import WordEncoder

COMMON = [
    "the",
    "kettle",
    "stands",
    "on",
    "a",
    "shelf",
    "beside",
    "the",
    "window",
    "and",
    "whistles",
    "when",
    "water",
    "boils",
]


def word(choose: random.Random) -> str:
    """A word that nobody else will say: consonants, so that it has no stem but itself."""
    return "Zq" + "".join(choose.choices("bcdfghkmnpvwxz", k=10))


def text(choose: random.Random, *, parts: int = 12) -> str:
    said = [choose.choice((word(choose), *choose.choices(COMMON, k=3))) for _ in range(parts)]
    return " ".join([word(choose), *said]) + choose.choice((".", "?", "…", " – жизнь!"))


def filled(memory: Memory, choose: random.Random, count: int, folder: Path) -> None:
    """A store with everything in it that may say something of a segment."""
    while (held := memory.stats()["segments"]) < count:
        way, user = choose.random(), f"user{choose.randrange(4)}"
        if way < 0.2:
            file = folder / f"{word(choose)}.md"
            body = "\n\n".join(f"# {word(choose)}\n\n{text(choose, parts=40)}" for _ in range(choose.randint(1, 4)))
            file.write_text(body)
            memory.add_file(file, user_id=user)
        elif way < 0.5:
            turns = [
                {"role": "user", "name": word(choose), "content": text(choose)} for _ in range(choose.randint(1, 6))
            ]
            memory.add(turns, user_id=user, session=word(choose), idempotency_key=word(choose))
        else:
            told = {"note": word(choose), "deep": [{"er": word(choose)}]}
            memory.add(text(choose, parts=choose.choice((8, 30, 900))), user_id=user, metadata=told,
                       category=[choose.choice(("Home", word(choose))), "Kitchen"])  # fmt: skip
        ids = [segment.id for segment in memory.get_all(limit=100_000)]
        one, other = choose.choice(ids), choose.choice(ids)
        if choose.random() < 0.2:
            memory.update(one, text(choose))
        if choose.random() < 0.2 and one != other:
            memory.link(one, other, word(choose).lower())
        if choose.random() < 0.2:
            memory.feedback(f"where is {word(choose)}?", one)
        if choose.random() < 0.1:
            memory.delete(other)
        if held and choose.random() < 0.08:
            memory.compact()


def everything(memory: Memory, file: Path, but: set[str]) -> dict[str, set[str]]:
    """Every record of the store by the segment it is of, without those of segments ``but``."""
    memory.export_to(file)
    found: dict[str, set[str]] = {}
    for line in file.read_text("utf-8").splitlines()[1:]:
        record = json.loads(line)
        named = {str(record.get(name)) for name in ("id", "source", "target")}
        if not named & but and record["type"] not in ("document", "tombstone"):
            found.setdefault(record["type"], set()).add(line)
    file.unlink()
    return found


def raw(store: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file()).lower()


def only(memory: Memory, gone: list[Segment]) -> set[str]:
    """The made-up words that only these say."""
    words = {each for row in gone for each in json.dumps([row.text, row.speaker, row.category, *row.metadata.items()])
             .replace('"', " ").replace("\\", " ").split() if each.strip(".,?[]{}").startswith("Zq")}  # fmt: skip
    words = {each.strip(".,?[]{}#:") for each in words}
    return {each for each in words if len(each) == 12}


def campaign(folder: Path, erasures: int, seed: int, encoder: WordEncoder) -> None:
    choose = random.Random(seed)
    store, documents = folder / "store", folder / "documents"
    documents.mkdir(parents=True)
    with Memory(store, encoder=encoder) as memory, Memory(store, encoder=encoder) as beside:
        filled(memory, choose, 120, documents)
        (store / "ledger.db.before-0006").write_bytes(raw(store))
        for number in range(erasures):
            if memory.stats()["segments"] < 60:
                filled(memory, choose, 120, documents)
            current = memory.get_all(limit=100_000)
            beside.search(choose.choice(current).text, k=3)
            chosen = choose.sample(current, choose.choice((1, 1, 1, 5)))
            if choose.random() < 0.15 and (whole := choose.choice(current)).session:
                chosen = memory.get_all(session=whole.session, limit=100_000)
            ids = {row.id for row in chosen}
            gone = [row for rows in memory._ledger.versions("default", sorted(ids)).values() for row in rows]
            stays = everything(memory, folder / "all.jsonl", ids)
            erased = memory.erase(sorted(ids), vacuum=True, verify=True)
            assert (erased.segments, erased.versions) == (len(ids), len(gone)), (seed, number)
            assert (erased.due, erased.vacuumed) == ((), True), (seed, number)
            assert erased.receipt is not None
            assert erased.receipt.found == (), (seed, number, erased.receipt.found)
            held = raw(store)
            left = [each for each in only(memory, gone) if each.lower().encode() in held]
            memory.export_to(folder / "all.jsonl")
            said = (folder / "all.jsonl").read_text("utf-8").lower()
            assert [each for each in left if each.lower() not in said] == [], (seed, number)
            assert everything(memory, folder / "all.jsonl", ids) == stays, (seed, number)
            assert not {hit.id for hit in beside.search(chosen[0].text, k=50)} & ids
            if number % 10 == 0:
                assert memory.verify()["ok"], (seed, number, memory.verify()["problems"])
        assert memory.verify()["ok"]
        assert beside.verify()["ok"]


def test_random_erasures_leave_no_trace_in_any_file(tmp_path: Path, words: WordEncoder, small_snapshots: None) -> None:
    campaign(tmp_path, 3, 7, words)


@pytest.mark.soak
def test_two_hundred_random_erasures_leave_no_trace_in_any_file(
    tmp_path: Path, words: WordEncoder, small_snapshots: None
) -> None:
    campaign(tmp_path, 200, random.SystemRandom().randrange(1 << 30), words)


# Each kind of trace is looked for


SECRET = "Dr. Zqvbnmkhgfd keeps the Wqzyxkjhgf ledger in Größenwahnstadt"


@pytest.fixture
def clean(tmp_path: Path, words: WordEncoder) -> Iterator[Memory]:
    with Memory(tmp_path / "store", encoder=words) as memory:
        memory.add([{"role": "user", "content": f"The kettle number {number} boils."} for number in range(30)])
        memory.compact()
        yield memory


def kept(encoder: WordEncoder) -> tuple[bytes, bytes]:
    with Memory(":memory:", encoder=encoder) as memory:
        (activation,) = memory._projection.activate([SECRET])
    return activation.pooled.tobytes(), activation.tokens or b""


PLANTED: dict[str, tuple[str, Callable[[WordEncoder], bytes]]] = {
    "a part of the text": ("text", lambda encoder: b"\0\x01K" + SECRET[:50].encode() + b"\xff"),
    "a word in other case": ("word", lambda encoder: b"..." + b"wQZYXKJHGF" + b"\x07"),
    "a word beyond ASCII": ("word", lambda encoder: "GRÖSSENWAHNSTADT".casefold().encode()),
    "UTF-16": ("word", lambda encoder: b"\x01" + "Wqzyxkjhgf".encode("utf-16-le")),
    "UTF-16, the other way": ("word", lambda encoder: b"\x01" + "Wqzyxkjhgf".encode("utf-16-be")),
    "JSON": ("word", lambda encoder: json.dumps("Größenwahnstadt").encode()),
    "an indexed term": ("term", lambda encoder: b"1_" + b"grossenwahnstadt"),
    "the hash of a term": ("term", lambda encoder: np.array([7, term_key("wqzyxkjhgf"), 9], np.uint64).tobytes()),
    "the hash of a name": ("name", lambda encoder: np.array([name_key("zqvbnmkhgfd")], np.uint64).tobytes()),
    "the hash of the text": ("hash", lambda encoder: b"\0" + content_key(SECRET)),
    "a vector": ("vector", lambda encoder: b"\0" * 3 + kept(encoder)[0]),
    "a token matrix": ("tokens", lambda encoder: b"\0" * 5 + kept(encoder)[1]),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_trace_is_found_where_it_is(
    clean: Memory, words: WordEncoder, planted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.traces.BLOCK", 1 << 16)
    what, made = PLANTED[planted]
    assert clean.verify_erasure(SECRET).ok
    file = Path(str(clean.path)) / "views" / "forgotten.bin"
    before = b"\0" * ((1 << 16) - 20)  # it lies across what is read at once
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(before + made(words))
    found = clean.verify_erasure(SECRET).found
    assert what in {trace.what for trace in found}
    assert {trace.file for trace in found} == {"views/forgotten.bin"}
    assert all(len(before) <= trace.offset < len(before) + 600 for trace in found)


def test_what_lies_packed_in_an_archive_is_found(clean: Memory, tmp_path: Path) -> None:
    with Memory(":memory:", encoder=None) as other:
        other.add(SECRET)
        other.export_to(Path(str(clean.path)) / "left.memspan")
    found = clean.verify_erasure(SECRET).found
    assert {trace.file for trace in found} >= {"left.memspan!memory.jsonl"}


def test_a_row_that_an_index_still_holds_is_found(tmp_path: Path, words: WordEncoder, small_snapshots: None) -> None:
    with Memory(tmp_path / "store", encoder=words) as memory:
        ids = memory.add(
            [{"role": "user", "content": f"The kettle number {number} boils."} for number in range(30)]
        ).ids
        memory.compact()
        memory._ledger.erase("default", ids[:1])
        found = memory.verify_erasure("nothing of this was ever said").found
        assert {trace.file.split("-")[0] for trace in found if trace.what == "index"} == {
            "views/lexical", "views/vectors", "views/tree", "views/graph"}  # fmt: skip
        assert memory.compact()
        assert memory.verify_erasure("nothing of this was ever said").ok


def test_what_others_say_as_well_is_no_trace(clean: Memory) -> None:
    (one,) = clean.add("The kettle of Frobnicator boils.").ids
    clean.add("Frobnicator has another kettle.")
    erased = clean.erase(one, vacuum=True, verify=True)
    assert erased.receipt is not None
    assert erased.receipt.ok
    assert clean.verify_erasure("Frobnicator").ok
    assert b"frobnicator" in raw(Path(str(clean.path)))


def test_a_receipt_says_what_was_looked_at_and_holds_nothing_of_it(clean: Memory) -> None:
    (id,) = clean.add(SECRET, metadata={"note": "Xkcdhgfqzw"}).ids
    erased = clean.erase(id, verify=True)
    receipt = erased.receipt
    assert receipt is not None
    assert receipt.operation is not None
    assert (receipt.operation.id, receipt.operation.verb) == (erased.operation, "erase")
    assert receipt.log_hash == clean.stats()["log"]["hash"]
    assert "ledger.db" in receipt.files
    assert receipt.bytes > 0
    assert receipt.vectors
    told = repr(receipt).lower()
    assert not [each for each in (*terms(SECRET), "xkcdhgfqzw") if len(each) > 6 and each in told]


# What hangs on what is erased


def test_what_was_derived_from_it_goes_with_it(clean: Memory) -> None:
    (source,) = clean.add("Anton said that Zqfacts are blue.").ids
    (fact,) = clean.add("Zqfacts are blue.", source="derived").ids
    (summary,) = clean.add("All about Zqfacts.", source="derived").ids
    (own,) = clean.add("I once linked to Zqthings.").ids
    clean.link(fact, source, "derived_from")
    clean.link(summary, fact, "summarises")
    clean.link(own, source, "derived_from")
    erased = clean.erase(source, vacuum=True, verify=True)
    assert (erased.segments, erased.derived) == (3, 2)
    assert erased.receipt is not None
    assert erased.receipt.ok
    assert clean.get(own).text.startswith("I once")  # it is no model's word


def test_a_late_retry_does_not_bring_back_what_was_erased(clean: Memory) -> None:
    turns = [{"role": "user", "content": f"Zqturn{name} is here."} for name in ("one", "two")]
    added = clean.add(turns, idempotency_key="call 7")
    clean.erase(added.ids[0])
    assert clean.add(turns, idempotency_key="call 7").ids == added.ids
    assert [row.text for row in clean.get_all(limit=100) if "Zqturn" in row.text] == ["Zqturntwo is here."]
    clean.erase(added.ids[1])
    assert clean.add("Zqother.", idempotency_key="call 7").added == 1  # nothing is left of it: the key is free again


def test_an_archive_of_what_was_pruned_loses_it_and_keeps_the_rest(clean: Memory) -> None:
    store = Path(str(clean.path))
    ids = clean.add([{"role": "user", "content": f"Zqpruned{name}x."} for name in ("anna", "bert", "carl")]).ids
    rows = [clean.get(id) for id in ids]
    target = store / "pruned" / "one.memspan"
    write(target, Contents(header=Header(namespace="default", vectors=None),
                           records=lambda: iter([Version(segment=row) for row in rows])))  # fmt: skip
    erased = clean.erase(ids[0], vacuum=True, verify=True)
    assert "pruned/one.memspan" in erased.rewritten
    assert erased.receipt is not None
    assert erased.receipt.ok, erased.receipt.found
    with Memory(":memory:", encoder=None) as other:
        other.import_from(target)
        assert {row.text for row in other.get_all()} == {"Zqprunedbertx.", "Zqprunedcarlx."}
    clean.erase(ids[1:])
    assert not target.exists()


def test_what_lies_only_in_an_archive_is_erased_there(clean: Memory) -> None:
    store = Path(str(clean.path))
    with Memory(":memory:", encoder=None) as other:
        ids = other.add("Zqawayanna.", user_id="anna").ids + other.add("Zqawaybert.", user_id="bert").ids
        rows = [other.get(id) for id in ids]
    write(store / "pruned" / "one.memspan", Contents(header=Header(namespace="default", vectors=None),
          records=lambda: iter([Version(segment=row) for row in rows])))  # fmt: skip
    erased = clean.erase(user_id="anna", verify=True)
    assert (erased.segments, erased.versions, erased.archived) == (1, 0, 1)
    assert erased.receipt is not None
    assert erased.receipt.ok
    assert clean.verify()["ok"]
    assert not clean.verify_erasure("Zqawaybert.").found  # it lies in the archive still, and is no trace
    assert clean.erase(ids[1]).archived == 1
    assert not list((store / "pruned").iterdir())


def test_backups_that_migrations_made_go_too(clean: Memory) -> None:
    store = Path(str(clean.path))
    (id,) = clean.add(SECRET).ids
    shutil.copy(store / "ledger.db", store / "ledger.db.before-0003")
    erased = clean.erase(id)
    assert "ledger.db.before-0003" in erased.rewritten
    assert not list(store.glob("*.before-*"))


def test_an_erasure_cannot_be_undone_and_its_entries_tell_nothing(clean: Memory) -> None:
    (id,) = clean.add(SECRET).ids
    erased = clean.erase(id)
    with pytest.raises(NotUndoable):
        clean.undo(str(erased.operation))
    assert clean.operations(limit=1)[0].id == erased.operation


# What is in the way


def test_what_a_reader_holds_back_is_told_and_done_later(clean: Memory) -> None:
    store = Path(str(clean.path))
    (id,) = clean.add(SECRET).ids
    reader = sqlite3.connect(store / "ledger.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM segments").fetchone()
    erased = clean.erase(id, vacuum=True, verify=True)
    assert any("log" in each for each in erased.due)
    assert not erased.vacuumed
    assert erased.receipt is not None
    assert {trace.file for trace in erased.receipt.found} >= {"ledger.db-wal"}
    reader.close()
    with Memory(store, encoder=WordEncoder()) as again:
        assert again.verify_erasure(SECRET).ok
        assert again._ledger.due() is None


def test_an_erasure_without_the_encoder_reaches_the_index_of_vectors(tmp_path: Path, small_snapshots: None) -> None:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        ids = memory.add(
            [{"role": "user", "content": f"The kettle number {number} boils."} for number in range(30)]
        ).ids
        memory.compact()
    with Memory(tmp_path / "store", encoder=None) as memory:
        assert "views/vectors" in memory.erase(ids[3]).rewritten
        assert memory.verify_erasure("The kettle number 3 boils.").ok


@pytest.mark.parametrize("moment", [0, *(pytest.param(each, marks=pytest.mark.soak) for each in (1, 2, 3))])
def test_what_a_killed_process_left_to_do_is_done_at_the_next_open(tmp_path: Path, moment: int) -> None:
    store = tmp_path / "store"
    with started("erase", store, moment) as process:
        lines = list(process.lines())
        assert process.ended() == -9
    with Memory(store, encoder="hash") as memory:
        assert memory.verify()["ok"]
        assert memory.verify_erasure(lines[0]["texts"]).ok
        assert memory.stats()["segments"] == lines[0]["left"]


def test_a_scope_is_erased_in_one_transaction_of_few_statements_a_row(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        memory.add([{"role": "user", "content": f"Turn {number}."} for number in range(300)], user_id="ana")
        memory.add("Ben stays.", user_id="ben")
        entries = memory.stats()["log"]["entries"]
        assert memory.erase(user_id="ana").segments == 300
        assert memory.stats()["log"]["entries"] == entries + 1
        assert [row.text for row in memory.get_all()] == ["Ben stays."]
