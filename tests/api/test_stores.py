"""Where a memory lives, who may open it with which encoder, and what closing and rebuilding mean."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from memspan import Config, EncoderMismatch, InvalidInput, Memory, StoreClosed
from memspan.encoders.base import Encoded
from memspan.segmenting import WordTokenizer

Open = Callable[..., Memory]

CALLS: dict[str, Callable[[Memory], object]] = {
    "export_to": lambda memory: memory.export_to("closed.jsonl"),
    "backup": lambda memory: memory.backup("closed"),
    "import_from": lambda memory: memory.import_from("closed.jsonl"),
    "embeddings": lambda memory: memory.embeddings(),
    "add": lambda m: m.add("Words."),
    "add_file": lambda m: m.add_file(__file__),
    "add_document": lambda m: m.add_document("Words."),
    "create_api_key": lambda m: m.create_api_key("laptop", namespaces="*"),
    "api_keys": lambda m: m.api_keys(),
    "api_key": lambda m: m.api_key("secret"),
    "revoke_api_key": lambda m: m.revoke_api_key("id"),
    "search": lambda m: m.search("words"),
    "context": lambda m: m.context("words"),
    "get": lambda m: m.get("id"),
    "get_all": lambda m: m.get_all(),
    "update": lambda m: m.update("id", "Words."),
    "delete": lambda m: m.delete("id"),
    "delete_all": lambda m: m.delete_all(user_id="ana"),
    "erase": lambda m: m.erase("id"),
    "supersede": lambda m: m.supersede("id", "other"),
    "operations": lambda m: m.operations(),
    "undo": lambda m: m.undo("id"),
    "conflicts": lambda m: m.conflicts(),
    "accept": lambda m: m.accept("id", "other"),
    "reject": lambda m: m.reject("id", "other"),
    "resolve": lambda m: m.resolve(),
    "prune": lambda m: m.prune(),
    "sleep": lambda m: m.sleep(),
    "summary": lambda m: m.summary(),
    "repetitions": lambda m: m.repetitions("id"),
    "extract": lambda m: m.extract(None),
    "quarantine": lambda m: m.quarantine("id"),
    "release": lambda m: m.release("id"),
    "trust": lambda m: m.trust(),
    "verify_erasure": lambda m: m.verify_erasure("words"),
    "restore": lambda m: m.restore("2020-01-01"),
    "link": lambda m: m.link("id", "other"),
    "unlink": lambda m: m.unlink("id", "other"),
    "feedback": lambda m: m.feedback("Ana", "id"),
    "tune": lambda m: m.tune(),
    "untune": lambda m: m.untune(),
    "move_category": lambda m: m.move_category("old", "new"),
    "active_context": lambda m: m.active_context("words"),
    "neighbors": lambda m: m.neighbors("id"),
    "tree": lambda m: m.tree(),
    "timeline": lambda m: m.timeline(),
    "themes": lambda m: m.themes(),
    "history": lambda m: m.history("id"),
    "document": lambda m: m.document("id"),
    "stats": lambda m: m.stats(),
    "compact": lambda m: m.compact(),
    "verify": lambda m: m.verify(),
    "rebuild": lambda m: m.rebuild(),
    "reencode": lambda m: m.reencode(),
    "fit_tokens": lambda m: m.fit_tokens(),
}


class Letters:
    """An encoder of the user's own: how often each letter comes. It has no name to be found by."""

    id = "letters-1"
    dim = 26
    window = 128
    tokenizer = WordTokenizer()

    def encode(self, texts: Sequence[str]) -> Encoded:
        rows = np.array([[t.lower().count(chr(97 + i)) for i in range(26)] for t in texts], np.float32) + 1e-6
        return Encoded(rows / np.linalg.norm(rows, axis=1, keepdims=True))


# Where


def test_a_path_is_a_directory_that_is_made_with_all_above_it(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "ü" / "store"
    with Memory(path, encoder="hash") as memory:
        memory.add("Kept.")
        assert memory.path == path
        assert memory.stats()["path"] == str(path)
    with Memory(str(path), encoder="hash") as memory:
        assert [segment.text for segment in memory.get_all()] == ["Kept."]


def test_a_memory_in_memory_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Memory(":memory:", encoder="hash") as memory, Memory(":memory:", encoder="hash") as other:
        memory.add("Fleeting.")
        memory.compact()
        assert memory.verify()["ok"]
        assert (memory.path, memory.stats()["path"]) == (None, ":memory:")
        assert other.get_all() == []
    assert list(tmp_path.iterdir()) == []


def test_without_a_path_it_is_the_users_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with Memory(encoder="hash") as memory:
        assert memory.path == Config.load().store
        assert tmp_path in memory.path.parents or sys.platform != "linux"
        assert memory.stats()["path"] == str(memory.path)


def test_without_a_path_the_environment_says_where_and_with_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSPAN_STORE", str(tmp_path / "named"))
    monkeypatch.setenv("MEMSPAN_NAMESPACE", "work")
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash:64")
    with Memory() as memory:
        assert (memory.path, memory.namespace) == (tmp_path / "named", "work")
        assert memory.stats()["encoder"]["dim"] == 64
        assert memory.get(memory.add("Kept.").ids[0]).namespace == "work"


def test_a_path_is_meant_from_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Memory("here", encoder="hash") as memory:
        monkeypatch.chdir("/")
        memory.add("Kept.")
        memory.compact()
    assert (tmp_path / "here" / "ledger.db").is_file()


@pytest.mark.embedded("says what its directory is called")
def test_what_a_memory_is_can_be_seen(opened: Open, path: Path) -> None:
    memory = opened(namespace="work")
    assert repr(memory) == f"<Memory {str(path)!r} namespace='work' encoder='hash-256'>"
    memory.close()
    assert str(path) in repr(memory)
    assert repr(Memory(":memory:", encoder=None)) == "<Memory ':memory:' namespace='default' encoder=None>"


# Reopening and closing


def test_everything_is_as_it_was_after_reopening(opened: Open) -> None:
    first = opened()
    ids = [first.add(f"Fact {i} about Ana.", user_id="ana", occurred_at=i, metadata={"i": i}).ids[0] for i in range(20)]
    first.update(ids[3], "Fact three changed.")
    first.erase(ids[4])
    first.add("Fact 5 about Ana.", user_id="ana", occurred_at=5, metadata={"i": 5})

    def state(memory: Memory) -> list[object]:
        hits = [memory.search(q, k=30, explain=True) for q in ("fact 7", "three changed", "Ana")]
        about = {name: memory.stats()[name] for name in ("store_id", "created_at", "segments", "versions", "repeats")}
        return [memory.get_all(), hits, memory.history(ids[3]), memory.history(ids[4]), memory.context("Ana"), about]

    before = state(first)
    first.close()
    second = opened()
    assert state(second) == before
    assert second.verify() == {"ok": True, "segments": 20, "problems": []}


def test_two_memories_on_one_store_see_each_others_writes_at_once(opened: Open) -> None:
    one, two = opened(), opened()
    for i in range(5):
        id = one.add(f"The number {i} was said by one.").ids[0]
        assert two.search(f"number {i}", k=1)[0].id == id
        two.erase(id)
        assert one.search(f"number {i}", recipe="keyword") == []
    assert one.stats()["store_id"] == two.stats()["store_id"]


def test_closing_twice_does_nothing(opened: Open) -> None:
    memory = opened()
    memory.add("Words.", wait=False)
    memory.close()
    memory.close()


def test_leaving_the_with_block_closes_even_by_an_error(path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), Memory(path, encoder="hash") as memory:
        raise RuntimeError("mine")
    with pytest.raises(StoreClosed):
        memory.get_all()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_closed_memory_says_so_and_how_to_go_on(opened: Open, call: Callable[[Memory], object]) -> None:
    memory = opened()
    memory.close()
    with pytest.raises(StoreClosed) as caught:
        call(memory)
    assert caught.value.mend == "open a new Memory on the same path"


def test_every_verb_is_tried_on_a_closed_memory() -> None:
    public = {name for name, value in inspect.getmembers(Memory) if not name.startswith("_") and callable(value)}
    assert public - {"close", "acting_as"} == set(CALLS)


# Encoders


def test_another_encoder_is_refused_with_the_command_that_mends_it_and_it_does(tmp_path: Path) -> None:
    path = tmp_path / "my store"
    with Memory(path, encoder="hash") as memory:
        memory.add("Ana lives in Lisbon.")
    with pytest.raises(EncoderMismatch) as caught:
        Memory(path, encoder="hash:64")
    assert "hash-256" in caught.value.problem
    assert "hash-64" in caught.value.problem
    command = re.search(r"memspan rebuild .*", caught.value.mend)
    assert command
    words = shlex.split(command[0])
    assert words == ["memspan", "rebuild", "--store", str(path), "--encoder", "hash:64"]
    code = "import sys; from memspan.cli import main; main(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, *words[1:]], check=True, capture_output=True, timeout=60)
    with Memory(path, encoder="hash:64") as memory:
        assert memory.stats()["encoder"]["id"] == "hash-64"
        assert memory.search("where does Ana live?", recipe="semantic")
        assert memory.verify()["ok"]


def test_auto_is_what_the_store_was_made_with(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(encoder="hash:32").close()
    for configured in ("hash:64", "none", "auto"):  # which is for stores that are made
        monkeypatch.setenv("MEMSPAN_ENCODER", configured)
        assert opened(encoder="auto").stats()["encoder"]["id"] == "hash-32"


def test_none_as_a_name_is_none(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSPAN_ENCODER", "none")
    for encoder in ("auto", "none", None, "auto"):
        memory = opened(encoder=encoder)
        assert memory.stats()["encoder"] is None
        memory.add("Words.")


def test_a_store_made_without_an_encoder_stays_without_until_it_is_rebuilt(opened: Open) -> None:
    memory = opened(encoder=None)
    memory.add("Ana lives in Lisbon.")
    with pytest.raises(EncoderMismatch, match="no encoder") as caught:
        opened(encoder="hash")
    where = shlex.quote(memory.stats()["path"])
    assert f"memspan rebuild --store {where} --encoder hash" in caught.value.mend
    assert memory.rebuild(encoder="hash")["encoder"] == "hash-256"
    assert memory.search("Ana in Lisbon", recipe="semantic")[0].text == "Ana lives in Lisbon."
    assert opened(encoder="hash").verify()["ok"]


def test_without_the_encoder_a_store_can_still_be_read_and_written(opened: Open) -> None:
    opened().add("Ana lives in Lisbon.")
    words = opened(encoder=None)
    assert words.search("Lisbon")[0].text == "Ana lives in Lisbon."
    words.add("Bob lives in Berlin.")
    words.update(words.get_all()[0].id, "Ana lives in Porto.")
    assert words.stats()["pending"] == 2  # they wait for an encoder
    assert words.verify()["ok"]
    words.close()
    whole = opened()
    assert {h.text for h in whole.search("who lives where?", recipe="semantic")} == {
        "Ana lives in Porto.",
        "Bob lives in Berlin.",
    }
    assert whole.stats()["pending"] == 0


def test_an_encoder_of_ones_own_works_and_must_be_passed_again(opened: Open) -> None:
    opened(encoder=Letters()).add("zzz zzz")
    with pytest.raises(EncoderMismatch) as caught:
        opened(encoder="auto")
    assert "letters-1" in caught.value.problem
    assert caught.value.mend == "pass it: Memory(path, encoder=...)"
    assert opened(encoder=Letters()).search("z", recipe="semantic")[0].score > 0.5


def test_a_rebuild_with_another_encoder_loses_nothing_and_goes_on(opened: Open) -> None:
    memory = opened()
    ids = [memory.add(f"Fact number {i}.").ids[0] for i in range(30)]
    memory.update(ids[0], "Fact zero.")
    other = opened()
    assert memory.rebuild(encoder="hash:64")["encoder"] == "hash-64"
    assert memory.stats()["pending"] == 0
    assert [segment.id for segment in memory.get_all()] == [*ids[1:], ids[0]]
    assert memory.search("fact number 7", k=1, recipe="semantic")[0].id == ids[7]
    assert memory.verify()["ok"]
    with pytest.raises(EncoderMismatch) as caught:  # whoever had it open before must not mix vectors
        other.add("Fact from before.")
    assert caught.value.mend == "close this Memory and open it again"
    assert opened(encoder="hash:64").add("One more.").added == 1


def test_a_rebuild_without_an_encoder_keeps_the_words(opened: Open) -> None:
    memory = opened()
    memory.add("Ana lives in Lisbon.")
    assert memory.rebuild(encoder=None)["encoder"] is None
    assert memory.search("Lisbon")
    memory.add("Bob lives in Berlin.")
    assert memory.verify()["ok"]
    assert opened(encoder="auto").stats()["encoder"] is None


@pytest.mark.parametrize("spec", ["nonsense", "hash:", "hash:x", 7, object()])
def test_an_encoder_nobody_knows_is_refused_and_makes_no_store(path: Path, spec: object) -> None:
    with pytest.raises(InvalidInput):
        Memory(path, encoder=spec)  # type: ignore[arg-type]
    assert not path.exists()


def test_a_broken_encoder_costs_no_write_and_is_reported(opened: Open) -> None:
    class Broken(Letters):
        works = True

        def encode(self, texts: Sequence[str]) -> Encoded:
            if not self.works:
                raise RuntimeError("the fan stopped")
            return super().encode(texts)

    encoder = Broken()
    memory = opened(encoder=encoder)
    memory.add("Before.")
    encoder.works = False
    added = memory.add("During the outage.")
    assert (added.added, added.pending) == (1, 1)
    assert memory.search("outage")[0].id == added.ids[0]
    assert "the fan stopped" in memory.stats()["encoder"]["failure"]
    encoder.works = True
    memory.compact()
    stats = memory.stats()
    assert (stats["pending"], stats["encoder"]["failure"]) == (0, None)
    assert memory.verify()["ok"]
