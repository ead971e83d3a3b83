"""What PostgreSQL refuses is told in memspan's terms, with a mend, and without the password."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest

from memspan import Memory
from memspan.errors import InvalidInput, MemspanError, NotAStore, NotWritable, StoreBusy, StoreError, StoreFull

psycopg = pytest.importorskip("psycopg")

SECRET = "hunterzwei"
KINDS = sorted(
    (kind for kind in vars(psycopg.errors).values() if isinstance(kind, type) and issubclass(kind, psycopg.Error)),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_of_the_driver_is_one_of_ours_with_a_mend(kind: type[Exception]) -> None:
    from memspan.ledger.postgres.connections import mapped

    with pytest.raises(MemspanError) as raised, mapped(f"postgresql://ana:{SECRET}@server/memories"):
        raise kind("it does not work\nDETAIL: at all")
    assert raised.value.mend
    assert "it does not work" in str(raised.value) or isinstance(raised.value, InvalidInput)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "ours"),
    [
        ("SerializationFailure", StoreBusy),
        ("DeadlockDetected", StoreBusy),
        ("LockNotAvailable", StoreBusy),
        ("QueryCanceled", StoreBusy),
        ("AdminShutdown", StoreBusy),
        ("CannotConnectNow", StoreBusy),
        ("TooManyConnections", StoreBusy),
        ("DiskFull", StoreFull),
        ("OutOfMemory", StoreFull),
        ("InvalidPassword", NotWritable),
        ("InsufficientPrivilege", NotWritable),
        ("ReadOnlySqlTransaction", NotWritable),
        ("InvalidCatalogName", NotAStore),
        ("UniqueViolation", StoreError),
    ],
)
def test_what_can_be_expected_of_a_server_has_its_own_kind(kind: str, ours: type[MemspanError]) -> None:
    from memspan.ledger.postgres.connections import mapped

    with pytest.raises(ours), mapped("postgresql://server/memories"):
        raise getattr(psycopg.errors, kind)("said")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ana:{}@127.0.0.1:1/memories",
        "postgresql://ana@127.0.0.1:1/memories?password={}",
        "postgresql://ana:{}@127.0.0.1:port/memories",
        "postgresql://ana:{}@nowhere.invalid/memories?connect_timeout=2",
        "postgresql://ana:{}@127.0.0.1:1/memories?unknown=1",
        "postgresql://ana:{}@127.0.0.1:1/memories?sslmode=sometimes",
        "postgresql://ana:x{}@y@127.0.0.1:1/memories",
        "postgresql://ana:x@{}@127.0.0.1:1/memories",
        "postgresql://ana:{}/x@127.0.0.1:1/memories",
        "postgresql://ana:x/{}@127.0.0.1:1/memories",
        "postgresql://ana:{}#x@127.0.0.1:1/memories",
        "postgresql://ana:x#{}@127.0.0.1:1/memories",
        "postgresql://ana:x?{}@127.0.0.1:1/memories",
        "postgresql://ana:{}:x@127.0.0.1:1/memories",
        "postgresql://ana:%zz{}@127.0.0.1:1/memories",
        "postgresql://ana:{} x@127.0.0.1:1/memories",
    ],
)
def test_no_message_log_or_name_has_the_password(address: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(MemspanError) as raised:
        Memory(address.format(SECRET), encoder="hash")
    said = [f"{each} {each!r}" for each in (raised.value, raised.value.__cause__, raised.value.__context__)]
    assert SECRET not in "".join(said) + caplog.text
    assert raised.value.mend


def test_what_a_memory_says_of_itself_has_no_password(postgres: str) -> None:
    url = re.sub("//[^@]*@", f"//postgres:{SECRET}@", postgres)
    assert SECRET in url
    with Memory(url, encoder="hash") as memory:
        memory.add("the kettle sings")
        said = [repr(memory), memory.where, str(memory.stats()), str(memory.verify())]
        assert SECRET not in "".join(said)


NUL, LONE = "the ket\0tle sings", "half of one: \ud83d"
WRITES: tuple[Callable[[Memory, str], object], ...] = (
    lambda memory, text: memory.add(text),
    lambda memory, text: memory.add("the kettle", user_id=text),
    lambda memory, text: memory.add("the kettle", namespace=text),
    lambda memory, text: memory.add("the kettle", metadata={"said": text}),
    lambda memory, text: memory.add("the kettle", metadata={text: "said"}),
    lambda memory, text: memory.add("the kettle", category=text),
    lambda memory, text: memory.feedback(text, memory.get_all()[0].id),
    lambda memory, text: memory.search(text),
    lambda memory, text: memory.get_all(filters={"session": text}),
)


@pytest.mark.parametrize("text", [NUL, LONE], ids=["nul", "lone"])
def test_what_no_text_may_hold_is_refused_as_in_a_directory(postgres: str, text: str) -> None:
    with Memory(":memory:", encoder="hash") as embedded, Memory(postgres, encoder="hash") as memory:
        for each in (embedded, memory):
            each.add("rain on tuesday")
        for write in WRITES:
            said = []
            for each in (embedded, memory):
                with pytest.raises(InvalidInput) as raised:
                    write(each, text)
                said.append(str(raised.value))
            assert said[0] == said[1]
        assert [segment.text for segment in memory.get_all()] == ["rain on tuesday"]
