"""Bad input: each with a typed error that names the argument and the mend, and with nothing written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from memspan import (
    BudgetTooSmall,
    InvalidInput,
    Memory,
    MemspanError,
    NewerStore,
    NotAStore,
    StoreCorrupt,
    StoreError,
    StoreFull,
)

Open = Callable[..., Memory]

HUGE = 10**5000  # more digits than Python is willing to write
LONE = "\ud83d"
NESTED: Any = "the ground"
for _ in range(10_000):
    NESTED = {"in": NESTED}
LOOP: dict[str, Any] = {}
LOOP.update(itself=LOOP)
CIRCULAR: dict[str, Any] = {}
CIRCULAR.update(one=CIRCULAR, two=[CIRCULAR])
LAUGHS: Any = ["ha"] * 10
for _ in range(20):  # small in memory, 10**21 values when written out
    LAUGHS = [LAUGHS] * 10


@pytest.fixture(scope="module")
def kept() -> Iterator[Memory]:
    """A memory that holds something, which no test here changes."""
    with Memory(":memory:", encoder="hash") as memory:
        memory.add("Ana lives in Lisbon.", user_id="ana", metadata={"a": 1})
        memory.add([{"role": "user", "content": "Hello."}], session="s")
        yield memory


def refused(memory: Memory, call: Callable[[], object], argument: str, kind: type[InvalidInput] = InvalidInput) -> str:
    """The call is refused by this argument, its error is complete, and the memory is as it was."""

    def state() -> list[Any]:
        stats = {name: memory.stats()[name] for name in ("segments", "versions", "repeats", "tombstones", "namespaces")}
        return [memory.get_all(), memory.get_all(user_id="ana"), stats]

    before = state()
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert error.argument == argument
    assert str(error) == f"{error.problem}; {error.mend}"
    assert error.problem.startswith(f"{argument}: ")
    assert 5 < len(error.mend) < 300
    assert len(error.problem) < 400
    assert state() == before
    return error.problem


# Texts

TEXTS = {
    "": "is empty",
    "  \n\t \u2003\u3000": "is only white space",
    "a\0b": "NUL character at position 1",
    f"half {LONE} a pair": "half of a surrogate pair (U+D83D) at position 5",
}


@pytest.mark.parametrize(("text", "words"), TEXTS.items(), ids=count())
def test_a_text_that_cannot_be_kept_is_refused_everywhere(kept: Memory, text: str, words: str) -> None:
    id = kept.get_all()[0].id
    calls: dict[str, list[Callable[[], object]]] = {
        "content": [lambda: kept.add(text)],
        "messages[1].content": [
            lambda: kept.add([{"role": "user", "content": "Fine."}, {"role": "user", "content": text}]),
        ],
        "text": [lambda: kept.update(id, text)],
        "query": [lambda: kept.search(text), lambda: kept.context(text)],
    }
    for argument, several in calls.items():
        for call in several:
            assert words in refused(kept, call, argument)


@pytest.mark.parametrize(
    "content", [None, b"bytes", bytearray(b"b"), 7, 1.5, {"role": "user"}, object(), {"a"}, iter("ab")]
)
def test_what_is_no_text_is_refused(kept: Memory, content: Any) -> None:
    assert type(content).__name__ in refused(kept, lambda: kept.add(content), "content")
    assert type(content).__name__ in refused(kept, lambda: kept.search(content), "query")
    if content is not None:
        id = kept.get_all()[0].id
        assert type(content).__name__ in refused(kept, lambda: kept.update(id, content), "text")


def test_fifty_megabytes_in_one_line_are_refused_at_once(kept: Memory, tmp_path: Path) -> None:
    line = "x" * 50_000_000
    assert "50,000,000" in refused(kept, lambda: kept.add(line), "content")
    assert "50,000,000" in refused(kept, lambda: kept.add([{"role": "user", "content": line}]), "messages[0].content")
    assert "50,000,000" in refused(kept, lambda: kept.search(line), "query")
    file = tmp_path / "line.txt"
    file.write_text(line)
    refused(kept, lambda: kept.add_file(file), "path")


def test_a_megabyte_in_one_line_without_a_border_is_kept_and_put_back(memory: Memory) -> None:
    line = "x" * 1_000_000
    added = memory.add(line)
    assert added.document_id is not None
    assert memory.document(added.document_id).text == line


MESSAGES: list[tuple[Any, str]] = [
    ([], "content"),
    (["Hello."], "messages[0]"),
    ([None], "messages[0]"),
    ([{"role": "user", "content": "a"}, 5], "messages[1]"),
    ([{"content": "a"}], "messages[0].role"),
    ([{"role": "robot", "content": "a"}], "messages[0].role"),
    ([{"role": None, "content": "a"}], "messages[0].role"),
    ([{"role": HUGE, "content": "a"}], "messages[0].role"),
    ([{"role": ["user"], "content": "a"}], "messages[0].role"),
    ([{"role": "user"}], "messages[0].content"),
    ([{"role": "user", "content": None}], "messages[0].content"),
    ([{"role": "user", "content": 5}], "messages[0].content"),
    ([{"role": "user", "content": [5]}], "messages[0].content[0]"),
    ([{"role": "user", "content": [{"type": "video"}]}], "messages[0].content[0]"),
    ([{"role": "user", "content": [{"type": HUGE}]}], "messages[0].content[0]"),
    ([{"role": "user", "content": "a", "name": 5}], "messages[0].name"),
    ([{"role": "user", "content": "a", "name": HUGE}], "messages[0].name"),
    ([{"role": "user", "content": "a", "name": " "}], "messages[0].name"),
    ([{"role": "user", "content": "a", "name": "n" * 257}], "messages[0].name"),
    ([{"role": "user", "content": "a", "name": LONE}], "messages[0].name"),
    ([{"role": "user", "content": "a", "time": "soon"}], "messages[0].time"),
    ([{"role": "user", "content": "a", "timestamp": HUGE}], "messages[0].timestamp"),
    ([{"role": "user", "content": "a", "metadata": [1]}], "messages[0].metadata"),
    ([{"role": "user", "content": "a", "metadata": {"a": {1, 2}}}], "messages[0].metadata"),
    ([{"role": "user", "content": "a", "metadata": CIRCULAR}], "messages[0].metadata"),
]


@pytest.mark.parametrize(("messages", "argument"), MESSAGES, ids=count())
def test_a_message_that_cannot_be_kept_is_refused_by_its_place(kept: Memory, messages: Any, argument: str) -> None:
    refused(kept, lambda: kept.add(messages), argument)


def test_one_bad_message_among_many_writes_none_of_them(kept: Memory) -> None:
    many = [{"role": "user", "content": f"Message {i}."} for i in range(50)]
    refused(kept, lambda: kept.add([*many, {"role": "user", "content": "\0"}]), "messages[50].content")


# Arguments

NOT_NUMBERS = [float("nan"), float("inf"), -float("inf"), True, "0.5", [0.5], b"1", 1j]
OUTSIDE = [-0.001, 1.001, 2, -1, 1e308, HUGE, -HUGE]


@pytest.mark.parametrize("importance", [*NOT_NUMBERS, *OUTSIDE], ids=count())
def test_an_importance_is_a_finite_number_from_0_to_1(kept: Memory, importance: Any) -> None:
    refused(kept, lambda: kept.add("New.", importance=importance), "importance")
    id = kept.get_all()[0].id
    refused(kept, lambda: kept.update(id, importance=importance), "importance")


@pytest.mark.parametrize("threshold", [*NOT_NUMBERS, *OUTSIDE, None], ids=count())
def test_a_threshold_is_a_number_from_0_to_1(kept: Memory, threshold: Any) -> None:
    refused(kept, lambda: kept.search("Ana", threshold=threshold), "threshold")
    refused(kept, lambda: kept.context("Ana", threshold=threshold), "threshold")


@pytest.mark.parametrize("k", [0, -1, True, False, 1.0, 5.5, "5", None, float("nan"), HUGE, 10**9], ids=count())
def test_a_count_is_a_whole_number_of_at_least_1(kept: Memory, k: Any) -> None:
    refused(kept, lambda: kept.search("Ana", k=k), "k")
    refused(kept, lambda: kept.get_all(limit=k), "limit")
    refused(kept, lambda: kept.context("Ana", budget=k), "budget")


@pytest.mark.parametrize("budget", range(1, 20, 6))
def test_a_budget_too_small_says_the_least_that_works(kept: Memory, budget: int) -> None:
    problem = refused(kept, lambda: kept.context("Ana", budget=budget), "budget", BudgetTooSmall)
    assert f"{budget} tokens" in problem


NAMES = ["", " \t", 5, b"ana", ["ana"], True, HUGE, "n" * 257, "a\0b", LONE]


@pytest.mark.parametrize("name", NAMES, ids=count())
@pytest.mark.parametrize("part", ["namespace", "user_id", "agent_id", "run_id", "session"])
def test_a_part_of_a_scope_is_a_short_text(kept: Memory, part: str, name: Any) -> None:
    scope = {part: name}
    refused(kept, lambda: kept.add("New.", **scope), part)
    refused(kept, lambda: kept.search("Ana", **scope), part)
    refused(kept, lambda: kept.context("Ana", **scope), part)
    refused(kept, lambda: kept.get_all(**scope), part)
    refused(kept, lambda: kept.erase(**scope), part)
    if part == "namespace":
        refused(kept, lambda: kept.get("id", **scope), part)
        refused(kept, lambda: Memory(":memory:", encoder=None, **scope), part)


@pytest.mark.parametrize("key", NAMES, ids=count())
def test_an_idempotency_key_is_a_short_text(kept: Memory, key: Any) -> None:
    refused(kept, lambda: kept.add("New.", idempotency_key=key), "idempotency_key")


METADATA: list[tuple[Any, str]] = [
    ([("a", 1)], "list"),
    ("text", "str"),
    (5, "int"),
    ({1: "a"}, "key that is not a string"),
    ({"a": [{"b": {None: 1}}]}, "key that is not a string"),
    ({"a": float("nan")}, "not JSON"),
    ({"a": [float("inf")]}, "not JSON"),
    ({"a": b"bytes"}, "not JSON"),
    ({"a": {1, 2}}, "not JSON"),
    ({"a": object()}, "not JSON"),
    ({"a": HUGE}, "not JSON"),
    ({"a": LONE}, "surrogate"),
    ({LONE: "a"}, "surrogate"),
    ({"a": "x\0y"}, "NUL"),
    ({"x\0y": "a"}, "NUL"),
    (NESTED, "nested deeper than 32 levels"),
    (LOOP, "nested deeper than 32 levels"),
    (CIRCULAR, "values"),
    ({"a": LAUGHS}, "values"),
    ({"a": "x" * (1 << 20)}, "bytes as JSON"),
    ({"a": [0] * (1 << 20)}, "values"),
]


@pytest.mark.parametrize(("metadata", "words"), METADATA, ids=count())
def test_metadata_is_a_small_dict_of_json_values(kept: Memory, metadata: Any, words: str) -> None:
    assert words in refused(kept, lambda: kept.add("New.", metadata=metadata), "metadata")
    id = kept.get_all()[0].id
    assert words in refused(kept, lambda: kept.update(id, metadata=metadata), "metadata")


def test_metadata_up_to_its_limits_comes_back_as_it_was(memory: Memory) -> None:
    deep: Any = 1
    for _ in range(31):
        deep = {"in": deep}
    given = {
        "deep": deep,
        "": "",
        'é\n"\\': "🙂",
        "large": 2**70,
        "small": 5e-324,
        "none": None,
        "list": [1, "a", [True]],
    }
    assert memory.get(memory.add("New.", metadata=given).ids[0]).metadata == given
    assert memory.verify()["ok"]


TIMES = ["soon", "", "2026-13-01", float("nan"), float("inf"), HUGE, -HUGE, 1e300, True, b"2026", [2026], "10000-01-01"]


@pytest.mark.parametrize("time", TIMES, ids=count())
def test_a_time_is_a_moment_between_the_years_1_and_9999(kept: Memory, time: Any) -> None:
    refused(kept, lambda: kept.add("New.", occurred_at=time), "occurred_at")
    refused(kept, lambda: kept.update(kept.get_all()[0].id, occurred_at=time), "occurred_at")
    refused(kept, lambda: kept.search("Ana", as_of=time), "as_of")
    refused(kept, lambda: kept.context("Ana", as_of=time), "as_of")


OTHERS: list[tuple[Callable[[Memory], object], str]] = [
    (lambda m: m.add("New.", category=5), "category"),
    (lambda m: m.add("New.", category=[5]), "category"),
    (lambda m: m.add("New.", category=f"A / {LONE}"), "category"),
    (lambda m: m.add("New.", category="a\0b"), "category"),
    (lambda m: m.add("New.", category="a" * 257), "category"),
    (lambda m: m.add("New.", category="a/" * 1_000), "category"),
    (lambda m: m.add("New.", source="rumour"), "source"),
    (lambda m: m.add("New.", source=["user"]), "source"),
    (lambda m: m.search("Ana", recipe="best"), "recipe"),
    (lambda m: m.search("Ana", recipe=["default"]), "recipe"),
    (lambda m: m.search("Ana", recipe=HUGE), "recipe"),
    (lambda m: m.context("Ana", recipe=None), "recipe"),
    (lambda m: m.context("Ana", order="random"), "order"),
    (lambda m: m.context("Ana", order=HUGE), "order"),
    (lambda m: m.context("Ana", tokenizer=5), "tokenizer"),
    (lambda m: m.context("Ana", tokenizer="/no/such/tokenizer.json"), "tokenizer"),
    (lambda m: m.context("Ana", tokenizer=lambda text: -1), "tokenizer"),
    (lambda m: m.context("Ana", tokenizer=lambda text: "many"), "tokenizer"),
    (lambda m: m.delete(None), "id"),
    (lambda m: m.erase(None), "scope"),
    (lambda m: m.erase(5), "id"),
    (lambda m: m.erase(b"id"), "id"),
    (lambda m: m.erase([m.get_all()[0].id, None]), "id"),
    (lambda m: m.rebuild(encoder="nonsense"), "encoder"),
    (lambda m: m.add_file(5), "path"),
    (lambda m: m.add_file("a\0b"), "path"),
    (lambda m: m.add_file(f"{LONE}.txt"), "path"),
    (lambda m: m.add_file("/no/such/file.txt"), "path"),
]


@pytest.mark.parametrize(("call", "argument"), OTHERS, ids=count())
def test_what_an_argument_cannot_be_is_refused_by_its_name(
    kept: Memory, call: Callable[[Memory], object], argument: str
) -> None:
    refused(kept, lambda: call(kept), argument)


# Places that are no store


@pytest.mark.parametrize(
    "place", ["", "  ", "a\0b", LONE, 5, b"store", ["store"], "~nobody-of-that-name/store"], ids=count()
)
def test_a_path_that_is_none_is_refused_and_nothing_is_made(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput) as caught:
        Memory(place, encoder="hash")
    assert caught.value.argument == "path"
    assert caught.value.mend
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_tokenizer_or_namespace_leaves_no_store_behind(path: Path) -> None:
    for wrong in ({"tokenizer": 5}, {"namespace": ""}, {"encoder": "nonsense"}):
        with pytest.raises(InvalidInput):
            Memory(path, **{"encoder": "hash", **wrong})  # type: ignore[arg-type]
        assert not path.exists()


def untouched(place: Path, kind: type[MemspanError], **options: Any) -> str:
    """Opening ``place`` is refused, and every file in it is byte for byte what it was (but for the lock)."""

    def files() -> dict[str, bytes | None]:
        here = [place] if place.is_file() else place.rglob("*")
        return {str(f): f.read_bytes() if f.is_file() else None for f in here if f.name != "open.lock"}

    before = files()
    with pytest.raises(kind) as caught:
        Memory(place, **{"encoder": "hash", **options})
    assert caught.value.mend
    assert files() == before
    return caught.value.problem


def test_a_file_is_no_store(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert str(file) in untouched(file, NotAStore)
    with pytest.raises(NotAStore):
        Memory(file / "below", encoder="hash")


def test_a_directory_with_other_things_in_it_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "other files" in untouched(tmp_path, NotAStore)
    (tmp_path / "ledger.db").mkdir()
    (tmp_path / "thesis.txt").unlink()
    untouched(tmp_path, StoreError)


def test_the_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "ledger.db")
    other.execute("CREATE TABLE segments (seq INTEGER PRIMARY KEY, text TEXT)")
    other.execute("INSERT INTO segments VALUES (1, 'theirs')")
    other.commit()
    other.close()
    assert "another program" in untouched(tmp_path, NotAStore)


def test_a_file_that_is_no_database_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"Dear diary, today I wrote a ledger of my own. " * 200)
    untouched(tmp_path, StoreCorrupt)


@pytest.mark.embedded("takes away a file of it")
def test_a_store_without_its_ledger_is_not_begun_anew(opened: Open, path: Path) -> None:
    opened().add("Words.")
    opened().close()
    (path / "views").mkdir(exist_ok=True)
    ledger = path / "ledger.db"
    raw = ledger.read_bytes()
    for damage in (ledger.unlink, lambda: ledger.write_bytes(b"")):
        for memory_file in path.glob("ledger.db-*"):
            memory_file.unlink()
        damage()
        assert "ledger.db is gone" in untouched(path, NotAStore)
        ledger.write_bytes(raw)


def store_with(path: Path, **options: Any) -> list[str]:
    with Memory(path, **{"encoder": "hash", **options}) as memory:
        return [memory.add(f"Fact number {i} about the world of {i * 7}.").ids[0] for i in range(60)]


def test_a_newer_store_is_refused_and_unchanged(path: Path) -> None:
    store_with(path)
    ledger = sqlite3.connect(path / "ledger.db")
    (version,) = ledger.execute("PRAGMA user_version").fetchone()
    ledger.execute(f"PRAGMA user_version = {version + 1}")
    ledger.close()
    assert f"schema {version + 1}" in untouched(path, NewerStore)


def test_a_store_made_by_other_migrations_is_refused_and_unchanged(path: Path) -> None:
    store_with(path)
    ledger = sqlite3.connect(path / "ledger.db")
    ledger.execute("UPDATE migrations SET sha256 = 'other' WHERE number = 1")
    ledger.commit()
    ledger.close()
    assert "migrations" in untouched(path, StoreCorrupt)


# Damage


@pytest.mark.parametrize("keep", [1, 99, 100, 4_095, 4_096, 5_000, 0.3, 0.7, 0.95], ids=str)
def test_a_truncated_ledger_gives_a_typed_error(path: Path, keep: float) -> None:
    store_with(path)
    ledger = path / "ledger.db"
    raw = ledger.read_bytes()
    ledger.write_bytes(raw[: int(keep if keep >= 1 else keep * len(raw))])
    damaged(path)


@pytest.mark.parametrize(
    "at", [at if at % 3 == 0 else pytest.param(at, marks=pytest.mark.soak) for at in range(20)], ids=str
)
def test_a_ledger_overwritten_somewhere_gives_a_typed_error_or_is_named_by_verify(path: Path, at: int) -> None:
    store_with(path)
    ledger = path / "ledger.db"
    raw = bytearray(ledger.read_bytes())
    start = len(raw) * at // 20 // 4096 * 4096
    raw[start : start + 4096] = bytes(range(256)) * 16
    ledger.write_bytes(raw)
    damaged(path)


def damaged(path: Path) -> None:
    """Whatever is asked of the store, no error but a StoreError comes out, and the damage does not stay unseen."""
    seen: list[object] = []
    calls: list[Callable[[Memory], object]] = [
        lambda m: m.get_all(),
        lambda m: m.search("fact number 7"),
        lambda m: m.context("fact number 7"),
        lambda m: m.add("One more fact."),
        lambda m: m.stats(),
        lambda m: m.verify(),
    ]
    for call in calls:
        try:
            with Memory(path, encoder="hash") as memory:
                report = call(memory)
                seen += report["problems"] if isinstance(report, dict) and "problems" in report else []
        except StoreError as error:
            seen.append(error.mend)
    assert all(seen)
    assert seen


def test_one_changed_letter_is_named_by_verify(path: Path) -> None:
    ids = store_with(path)
    ledger = path / "ledger.db"
    raw = ledger.read_bytes()
    assert raw.count(b"Fact number 7 about") == 1
    ledger.write_bytes(raw.replace(b"Fact number 7 about", b"Fact number 8 about"))
    with Memory(path, encoder="hash") as memory:
        report = memory.verify()
    assert not report["ok"]
    assert any(ids[7] in problem for problem in report["problems"])


# No permission, no space

CHILD = """
import os, sys
from memspan import Memory, MemspanError
with Memory(":memory:", encoder="hash") as warm:  # imports everything while that is still allowed
    warm.add("Words.")
    warm.search("words")
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for place in sys.argv[1:]:
    try:
        with Memory(place, encoder="hash") as memory:
            memory.add("New words.")
        print("ok")
    except MemspanError as error:
        print(type(error).__name__, bool(error.mend), place in str(error))
"""


def child(code: str, *arguments: object, wrapper: tuple[str, ...] = ()) -> str:
    command = [*wrapper, sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    environment = {**os.environ, "XDG_CONFIG_HOME": "/nowhere"}  # another user cannot read this one's
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="has no users")
def test_a_place_that_cannot_be_read_or_written_is_refused_by_its_name(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents):  # the other user must come as far as here
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    empty, store, hidden = (tmp_path / name for name in ("empty", "store", "hidden"))
    empty.mkdir()
    store_with(store)
    before = {file.name: file.read_bytes() for file in store.iterdir()}
    (hidden / "store").mkdir(parents=True)
    modes = {empty: 0o555, store: 0o555, hidden: 0o000}
    for file in store.iterdir():
        file.chmod(0o444)
    try:
        for place, mode in modes.items():
            place.chmod(mode)
        told = child(CHILD, empty, empty / "below", store, hidden, hidden / "store").splitlines()
    finally:
        for place in modes:
            place.chmod(0o755)
    assert told == ["NotWritable True True"] * 5
    assert {file.name: file.read_bytes() for file in store.iterdir()} == before
    assert list(empty.iterdir()) == []


def writes_until_full(memory: Memory, free: Callable[[], None]) -> None:
    """Adds until there is no space: what was acknowledged is there, the rest is not; with space it goes on."""
    ids: list[str] = []
    with pytest.raises(StoreFull) as caught:  # noqa: PT012 - how many it takes is not known
        for i in range(2_000):
            ids += memory.add(f"Fact {i}: " + f"{i} " * 150, metadata={"i": i}).ids
    assert "space" in caught.value.mend
    assert [segment.id for segment in memory.get_all(limit=10_000)] == ids
    assert memory.search("fact 1")
    assert memory.verify()["ok"]
    free()
    added = memory.add("There is space again.")
    assert [segment.id for segment in memory.get_all(limit=10_000)] == [*ids, *added.ids]
    assert memory.search("space again")[0].id == added.ids[0]
    assert memory.verify()["ok"]


def test_a_file_at_the_users_limit_leaves_nothing_half_written(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Memory(path, encoder="hash") as memory:
        memory.add("The first fact.")
        memory.erase(namespace="default")
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
            writes_until_full(memory, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_database_leaves_nothing_half_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memspan.ledger.connections.PRAGMAS", ("foreign_keys = ON", "max_page_count = 150"))
    with Memory(path, encoder="hash") as memory:

        def free() -> None:
            with memory._ledger.exclusive() as connection:
                connection.execute("PRAGMA max_page_count = 1000000")

        writes_until_full(memory, free)


FULL = """
import sys
from pathlib import Path
from memspan import Memory, StoreFull
place = Path(sys.argv[1])
ballast = place / "ballast"
ballast.write_bytes(bytes(200_000))
memory = Memory(place / "store", encoder="hash")
ids = []
try:
    for i in range(5_000):
        ids += memory.add(f"Fact {i}: " + f"{i} " * 150).ids
except StoreFull as error:
    assert "space" in error.mend
else:
    raise AssertionError("it never filled up")
assert [segment.id for segment in memory.get_all(limit=10_000)] == ids
assert memory.search("fact 1")
try:
    memory.compact()
except StoreFull:
    pass
ballast.unlink()
ids += memory.add("There is space again.").ids
memory.close()
memory = Memory(place / "store", encoder="hash")
assert [segment.id for segment in memory.get_all(limit=10_000)] == ids
assert memory.verify()["ok"], memory.verify()
print("ok")
"""


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=2m tmpfs '{tmp_path}' && exec \"$@\""
    wrapper = ("unshare", "-m", "sh", "-c", mount, "sh")
    allowed = shutil.which("unshare") and subprocess.run([*wrapper, "true"], capture_output=True).returncode == 0
    if not allowed:
        pytest.skip("this user may not mount a small disk")
    assert child(FULL, tmp_path, wrapper=wrapper) == "ok\n"


def test_an_error_as_a_dict_would_be_seen_by_a_program(kept: Memory) -> None:
    with pytest.raises(InvalidInput) as caught:
        kept.search("Ana", k=0)
    about = {"type": type(caught.value).__name__, "argument": caught.value.argument, "mend": caught.value.mend}
    assert json.loads(json.dumps(about)) == {
        "type": "InvalidInput",
        "argument": "k",
        "mend": "give a number from 1 to 10,000",
    }


def test_an_index_that_does_not_fit_the_disk_is_a_typed_error_and_searches_go_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for view in ("lexical", "vectors", "tree", "graph"):
        monkeypatch.setattr(f"memspan.views.{view}.SNAPSHOT_ROWS", 8)
    ids = store_with(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Memory(path, encoder="hash") as memory:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
            for call in (memory.compact, memory.rebuild):
                with pytest.raises(StoreFull) as caught:
                    call()
                assert "space" in caught.value.mend
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert memory.search("fact number 58", k=1)[0].id == ids[58]
        assert memory.compact()["rewritten"]
        assert memory.search("fact number 58", k=1)[0].id == ids[58]
        assert memory.verify()["ok"]
        assert list((path / "views").glob("*.part")) == []
