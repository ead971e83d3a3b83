"""Token activations of a store: kept once, found damaged, made again, changed online, and gone when asked."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memspan import EncoderMismatch, InvalidInput, Memory
from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder
from memspan.errors import EncoderError, StoreBusy, StoreCorrupt, StoreFull
from memspan.testing import WordEncoder

BASIS = WordEncoder().basis()
TEXTS = tuple(f"The {color} {thing} stands in room {number}." for number, (color, thing) in enumerate(
    (color, thing) for color in ("red", "green", "blue", "white", "black") for thing in ("kettle", "lamp", "chair")
))  # fmt: skip


@pytest.fixture(autouse=True)
def _basis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memspan.store.shipped", lambda id: BASIS if id == "words-128" else None)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def kept(store: Path) -> Iterator[Memory]:
    with Memory(store, encoder=WordEncoder()) as memory:
        for text in TEXTS:
            memory.add(text)
        yield memory


def held(memory: Memory) -> dict[str, Any]:
    found: dict[str, Any] = memory.stats()["activations"]
    return found


def arena(store: Path) -> Path:
    (file,) = (store / "activations").glob("arena-*.bin")
    return file


def score(memory: Memory, text: str) -> float:
    """MaxSim of the best hit, which must be there."""
    return (memory.search(text, k=1, explain=True)[0].channels or {})["maxsim"]


# Kept once


def test_tokens_of_a_new_store_are_kept_at_one_bit_where_the_encoder_allows(kept: Memory) -> None:
    assert (kept.stats()["encoder"]["tokens"], kept.stats()["encoder"]["basis"]) == ("1bit", "of words")
    assert held(kept)["tensors"] == held(kept)["references"] == len(TEXTS)
    assert held(kept)["live_bytes"] == sum(len(text.split()) + 2 for text in TEXTS) * 16
    assert "maxsim" in kept.stats()["channels"]


@pytest.mark.parametrize(("level", "width"), [("1bit", 16), ("4bit", 64), ("int8", 128), ("f16", 256)])
def test_every_level_finds_what_was_said_and_takes_the_bytes_it_says(store: Path, level: str, width: int) -> None:
    with Memory(store, encoder=WordEncoder(), tokens=level) as memory:
        memory.add([{"role": "user", "content": text} for text in TEXTS])
        assert held(memory)["live_bytes"] == sum(len(text.split()) + 2 for text in TEXTS) * width
        for text in TEXTS[::4]:
            (hit,) = memory.search(text, k=1, explain=True)
            assert hit.text == text
            assert 0.7 < (hit.channels or {})["maxsim"] <= 1


def test_without_tokens_nothing_is_kept_and_everything_is_found(store: Path) -> None:
    with Memory(store, encoder=WordEncoder(), tokens="none") as memory:
        memory.add(TEXTS[0])
        assert held(memory)["bytes"] == 0
        assert memory.search(TEXTS[0])[0].text == TEXTS[0]
        assert "maxsim" not in memory.stats()["channels"]


def test_a_text_said_again_anywhere_is_encoded_and_kept_once(kept: Memory) -> None:
    before = held(kept)
    kept.add(TEXTS[0])
    kept.add(TEXTS[0], user_id="ana")
    kept.add(TEXTS[0], namespace="other")
    assert held(kept) == before


def test_different_texts_with_the_same_tokens_share_a_tensor_until_the_last_is_gone(kept: Memory) -> None:
    one, other = kept.add("Kettles whistle").ids[0], kept.add("kettles  WHISTLE").ids[0]
    assert (held(kept)["tensors"], held(kept)["references"]) == (len(TEXTS) + 1, len(TEXTS) + 2)
    kept.erase(one)
    assert score(kept, "kettles whistle") > 0.9
    kept.erase(other)
    assert (held(kept)["tensors"], held(kept)["references"]) == (len(TEXTS), len(TEXTS))


def test_what_is_deleted_is_wiped_from_the_arena_at_once(kept: Memory, store: Path) -> None:
    before = arena(store).read_bytes().rstrip(b"\0")
    id = kept.add("A secret nobody else has written down").ids[0]
    tensor = arena(store).read_bytes().rstrip(b"\0")[len(before) + 40 :]
    assert len(tensor) > 64
    kept.erase(id)
    assert tensor[:64] not in arena(store).read_bytes()
    assert kept.verify()["ok"]


def test_bytes_of_deleted_texts_come_back_by_compaction_while_another_reads(kept: Memory, store: Path) -> None:
    with Memory(store, encoder=WordEncoder()) as reader:
        expected = score(reader, TEXTS[-1])
        kept.erase([hit.id for hit in kept.get_all(limit=100)][:-2])
        full = held(kept)["bytes"]
        kept.compact()
        assert held(kept)["bytes"] < full / 4
        assert arena(store).name == "arena-000002.bin"
        assert score(reader, TEXTS[-1]) == pytest.approx(expected, abs=0.05)
        assert kept.verify()["ok"]
        kept.add("And one more after that.")
    assert score(kept, "one more after that") > 0.5


def test_tensors_go_on_in_new_files_when_one_is_full(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memspan.activations.arena.EXTENT", 4096)
    with Memory(store, encoder=WordEncoder(), tokens="f16") as memory:
        for text in TEXTS:
            memory.add(text)
        files = held(memory)["files"]
        assert len(files) > 4
        assert sum(file["tensors"] for file in files) == len(TEXTS)
        assert all(score(memory, text) > 0.9 for text in TEXTS)
        assert memory.verify()["ok"]


def test_a_store_in_memory_keeps_tokens_too() -> None:
    with Memory(":memory:", encoder=WordEncoder()) as memory:
        memory.add(TEXTS[0])
        assert score(memory, TEXTS[0]) > 0.9
        assert held(memory)["files"][0]["file"] == "the arena in memory"


# Damaged, cut, gone: noticed, named, made again


def flip(file: Path, at: int) -> None:
    with file.open("r+b") as raw:
        raw.seek(at)
        byte = raw.read(1)
        raw.seek(at)
        raw.write(bytes([byte[0] ^ 1]))


def test_a_flipped_bit_is_named_left_out_and_mended(kept: Memory, store: Path) -> None:
    kept.close()
    flip(arena(store), 16 + 16 + 3)
    with Memory(store, encoder=WordEncoder()) as memory:
        (problem,) = memory.verify()["problems"]
        assert "arena-000001.bin is damaged at byte 32" in problem
        assert memory.get_all(limit=1)[0].id in problem
        (hit,) = memory.search(TEXTS[0], k=1, explain=True)
        assert hit.text == TEXTS[0]
        assert "maxsim" not in (hit.channels or {})
        memory.compact()
        assert memory.verify()["ok"]
        assert score(memory, TEXTS[0]) > 0.9


@pytest.mark.parametrize("left", [0, 200, 5_000])
def test_a_file_cut_short_costs_what_was_in_the_rest_until_it_is_encoded_again(
    kept: Memory, store: Path, left: int
) -> None:
    for number in range(40):
        kept.add(f"Note {number} of a long list.")
    kept.close()
    os.truncate(arena(store), left)
    with Memory(store, encoder=WordEncoder()) as memory:
        assert memory.search(TEXTS[-1], k=1)[0].text == TEXTS[-1]
        memory.compact()
        assert memory.verify()["ok"]
        assert held(memory)["lost"] == 0
        assert all(score(memory, text) > 0.9 for text in (TEXTS[0], TEXTS[-1], "Note 39 of a long list."))


def test_a_folder_that_is_gone_is_made_again_from_the_texts(kept: Memory, store: Path) -> None:
    kept.close()
    arena(store).unlink()
    with Memory(store, encoder=WordEncoder()) as memory:
        assert memory.search(TEXTS[3], k=1)[0].text == TEXTS[3]
        memory.compact()
        assert score(memory, TEXTS[3]) > 0.9
        assert memory.verify()["ok"]


def test_an_encoder_that_suddenly_gives_no_tokens_costs_their_part_of_the_score_and_no_write(kept: Memory) -> None:
    class Pooled(WordEncoder):
        def encode(self, texts: Any) -> Encoded:
            return Encoded(super().encode(texts).pooled)

    with Memory(kept.path, encoder=Pooled()) as memory:
        memory.add("Said without tokens.")
        (hit,) = memory.search("said without tokens", k=1, explain=True)
        assert hit.text == "Said without tokens."
        assert "maxsim" not in (hit.channels or {})


def test_token_activations_of_a_wrong_shape_are_the_encoders_failure_and_cost_no_write(store: Path) -> None:
    class Narrow(WordEncoder):
        def encode(self, texts: Any) -> Encoded:
            encoded = super().encode(texts)
            return Encoded(encoded.pooled, [each[:, :7] for each in encoded.tokens])

    with Memory(store, encoder=Narrow()) as memory:
        assert memory.add("Kept all the same.").pending == 1
        assert "token activations" in memory.stats()["encoder"]["failure"]
        assert memory.search("kept all the same")[0].text == "Kept all the same."


# Changed online


def test_another_level_is_refused_at_open_with_the_command_that_mends_it(kept: Memory, store: Path) -> None:
    with pytest.raises(EncoderMismatch, match="'1bit', not 'f16'") as caught:
        Memory(store, encoder=WordEncoder(), tokens="f16")
    assert caught.value.mend.endswith(f"memspan reencode --store {store} --tokens f16")
    with pytest.raises(InvalidInput, match="tokens"):
        Memory(store, encoder=WordEncoder(), tokens="2bit")


def test_a_level_nothing_is_shipped_for_is_refused_before_a_store_is_made(store: Path) -> None:
    with pytest.raises(InvalidInput, match="no projection"):
        Memory(store, encoder="hash", tokens="1bit")
    with Memory(store, encoder="hash") as memory:
        assert memory.stats()["encoder"]["tokens"] == "none"


@pytest.mark.parametrize("level", ["none", "4bit", "f16"])
def test_the_level_is_changed_online_and_the_old_tensors_go(kept: Memory, level: str) -> None:
    ids = [segment.id for segment in kept.get_all(limit=100)]
    told: list[tuple[int, int, str]] = []
    report = kept.reencode(tokens=level, progress=lambda *each: told.append(each))
    assert report == {"encoder": "words-128", "tokens": level, "encoded": len(TEXTS)}
    assert told[-1] == (len(TEXTS), len(TEXTS), "encoding anew")
    assert held(kept)["tensors"] == held(kept)["references"] == (0 if level == "none" else len(TEXTS))
    assert [segment.id for segment in kept.get_all(limit=100)] == ids
    assert kept.search(TEXTS[5], k=1)[0].text == TEXTS[5]
    assert kept.verify()["ok"]
    assert kept.reencode(tokens=level)["encoded"] == 0, "nothing is made twice"


def test_other_memories_on_the_store_follow_a_change_of_level_by_themselves(kept: Memory, store: Path) -> None:
    with Memory(store, encoder=WordEncoder()) as other:
        before = score(other, TEXTS[2])
        kept.reencode(tokens="f16")
        assert score(other, TEXTS[2]) != before
        other.add("Written by the other after the change.")
        assert other.stats()["encoder"]["tokens"] == "f16"
        assert score(kept, "Written by the other after the change.") > 0.9


def test_memories_that_left_the_choice_to_the_store_follow_a_change_of_encoder_too(store: Path) -> None:
    with Memory(store, encoder="hash:64") as memory, Memory(store) as follower, Memory(store, encoder="hash:64") as own:
        memory.add("The key hangs behind the door.")
        assert follower.search("key door")[0].text == "The key hangs behind the door."
        assert memory.reencode(encoder="hash:128") == {"encoder": "hash-128", "tokens": "none", "encoded": 1}
        for each in (memory, follower):
            assert each.search("key door", recipe="semantic")[0].text == "The key hangs behind the door."
            assert each.stats()["encoder"]["id"] == "hash-128"
        with pytest.raises(EncoderMismatch, match="another encoder"):
            own.search("key door")


def test_what_is_written_and_deleted_while_it_is_encoded_anew_is_there_and_gone_afterwards(
    kept: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.reencoding.BATCH", 4)
    gone = kept.get_all(limit=1)[0].id
    with Memory(kept.path, encoder=WordEncoder()) as other:

        def meanwhile(done: int, total: int, what: str) -> None:
            if done == 4:
                other.erase(gone)
                other.add("Came in between.")
                assert other.search("came in between")[0].text == "Came in between."

        kept.reencode(tokens="f16", progress=meanwhile)
        assert score(kept, "Came in between.") > 0.9
        assert kept.search(TEXTS[0], k=1)[0].text != TEXTS[0]
        assert kept.verify()["ok"]
        assert held(kept)["tensors"] == len(TEXTS)


def test_an_interrupted_change_goes_on_where_it_was_and_until_then_nothing_has_changed(
    kept: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.reencoding.BATCH", 4)

    def stop(done: int, total: int, what: str) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.reencode(tokens="f16", progress=stop)
    assert kept.stats()["encoder"]["tokens"] == "1bit"
    assert score(kept, TEXTS[0]) > 0.7
    assert kept.verify()["ok"]
    assert kept.reencode(tokens="f16")["encoded"] == len(TEXTS) - 8
    assert held(kept)["tensors"] == len(TEXTS)


def test_a_change_that_was_begun_is_given_up_for_another_and_leaves_nothing(
    kept: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.reencoding.BATCH", 4)

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    for level in ("f16", "int8"):
        with pytest.raises(KeyboardInterrupt):
            kept.reencode(tokens=level, progress=stop)
    assert kept.reencode(tokens="1bit")["encoded"] == 0
    assert held(kept)["tensors"] == held(kept)["references"] == len(TEXTS)
    assert kept.verify()["ok"]


def test_an_encoder_that_fails_leaves_the_store_as_it_was(kept: Memory) -> None:
    class Broken(WordEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.id = "broken-1"

        def encode(self, texts: Any) -> Encoded:
            raise EncoderError("out of order")

    with pytest.raises(EncoderError, match="out of order"):
        kept.reencode(encoder=Broken())
    assert score(kept, TEXTS[0]) > 0.9
    assert kept.verify()["ok"]


def test_one_process_at_a_time_encodes_a_store_anew(kept: Memory) -> None:
    with Memory(kept.path, encoder=WordEncoder()) as other:

        def busy(done: int, total: int, what: str) -> None:
            with pytest.raises(StoreBusy, match="encoded anew by another"):
                other.reencode(tokens="int8")

        assert kept.reencode(tokens="f16", progress=busy)["encoded"] == len(TEXTS)


def test_a_projection_fitted_to_the_store_is_used_from_then_on(store: Path) -> None:
    encoder = WordEncoder()
    encoder.id = "words of mine"
    with Memory(store, encoder=encoder) as memory:
        memory.add([{"role": "user", "content": f"{text} {number} {number * 7}"} for number in range(30)
                    for text in TEXTS])  # fmt: skip
        with pytest.raises(InvalidInput, match="dims"):
            memory.fit_tokens(dims=100)
        for sample in (0, 2**63):
            with pytest.raises(InvalidInput, match="sample"):
                memory.fit_tokens(sample=sample)
        assert memory.fit_tokens()["basis"] != (report := memory.fit_tokens(dims=64))["basis"]
        assert report["basis"].startswith("own-")
        assert (report["tokens"], report["encoded"]) == ("1bit", 450)
        assert score(memory, f"{TEXTS[4]} 9 63") > 0.7
        memory.reencode(tokens="f16")
        assert memory.stats()["encoder"]["basis"] == report["basis"], "another level keeps the store's own projection"
    with Memory(store, encoder=encoder) as memory:
        assert score(memory, f"{TEXTS[4]} 9 63") > 0.9


def test_a_projection_needs_text_and_an_encoder_with_tokens(kept: Memory, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="too few"):
        kept.fit_tokens(dims=128)
    with Memory(tmp_path / "other", encoder="hash:128") as memory:
        memory.add("Something.")
        with pytest.raises(EncoderError, match="no token activations"):
            memory.fit_tokens(dims=128)


def test_rebuilding_without_an_encoder_drops_all_that_one_made(kept: Memory) -> None:
    kept.rebuild(encoder=None)
    assert kept.stats()["encoder"] is None
    assert held(kept)["tensors"] == 0
    assert kept.search("green kettle")[0].text.startswith("The green kettle")
    assert kept.verify()["ok"]


# What it does for a search


def test_late_interaction_tells_apart_what_pooled_vectors_mix_up(store: Path) -> None:
    with Memory(store, encoder=WordEncoder()) as memory:
        memory.add("ana likes tea and ben likes coffee while carl likes neither and dora likes both of them very much")
        memory.add("somebody says that nobody likes it here at all and would rather leave for another town soon")
        (first, second) = memory.search("dora likes both", k=2, explain=True)
        assert first.text.startswith("ana")
        assert (first.channels or {})["maxsim"] > (second.channels or {})["maxsim"]


def test_the_turns_beside_count_in_the_window(kept: Memory) -> None:
    kept.add(
        [
            {"role": "user", "content": "Where did you put the silver teapot?"},
            {"role": "assistant", "content": "Under the stairs."},
        ],
        session="s",
    )
    hits = {hit.text: hit.channels or {} for hit in kept.search("silver teapot", k=20, explain=True)}
    answer = hits["Under the stairs."]
    assert answer["window"] > answer["maxsim"] + 0.2
    assert "maxsim" not in (kept.search("silver teapot", k=1, recipe="default-maxsim", explain=True)[0].channels or {})


@pytest.mark.parametrize("change", [lambda m: m.reencode(tokens="9bit"), lambda m: m.reencode(encoder="nobody")])
def test_a_change_that_makes_no_sense_is_refused(kept: Memory, change: Callable[[Memory], object]) -> None:
    with pytest.raises(InvalidInput):
        change(kept)
    assert score(kept, TEXTS[0]) > 0.9


def test_searches_and_writes_that_meet_the_switch_go_on_with_the_new_encoder(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Memory(store, encoder="hash:64") as memory, Memory(store) as other:
        memory.add("The key hangs behind the door.")
        assert other.search("key door")[0].channels is None
        dims = iter((128, 64, 128, 64))

        def switched(self: Any, texts: Any) -> Encoded:
            """Between the check and what it was for."""
            if self is other._encoder and self.dim != (wanted := next(dims, self.dim)):
                memory.reencode(encoder=f"hash:{wanted}")
            return encode(self, texts)

        encode = HashEncoder.encode
        monkeypatch.setattr(HashEncoder, "encode", switched)
        assert other.search("key door", recipe="semantic")[0].text == "The key hangs behind the door."
        id = other.add("Another key lies under the mat.").ids[0]
        assert other.update(id, "Another key lies under the stone.").version == 2
        assert other.verify()["ok"]


# What two processes, a crash or an interruption may leave


def test_a_file_number_is_never_used_again_while_somebody_may_read_in_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.activations.arena.EXTENT", 4_096)
    with Memory(store, encoder=WordEncoder(), tokens="f16") as memory, Memory(store, encoder=WordEncoder()) as other:
        ids = [memory.add(f"{text} {number}").ids[0] for number in range(2) for text in TEXTS[:4]]
        assert score(other, f"{TEXTS[3]} 1") > 0.9
        memory.erase(ids[-2:])
        memory.compact()
        more = [other.add(f"Note {number} of the other process.").ids[0] for number in range(12)]
        memory.compact()
        names = [file["file"] for file in held(memory)["files"]]
        assert sorted(names) == sorted(str(file) for file in (store / "activations").iterdir())
        assert held(memory)["lost"] == 0
        with Memory(store, encoder=WordEncoder()) as fresh:
            assert fresh.verify()["ok"]
            assert all(score(fresh, fresh.get(id).text) > 0.9 for id in more)


def test_a_file_of_a_write_that_failed_and_was_swept_by_another_is_not_written_to(
    kept: Memory, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with Memory(store, encoder=WordEncoder()) as other:
        other.erase([segment.id for segment in other.get_all(limit=100)])
        other.compact()
        with monkeypatch.context() as patch:
            patch.setattr("memspan.activations.arena.ArenaFile.sync", full)
            with pytest.raises(StoreFull):
                kept.add("Not to be kept.")
        other.compact()
        assert list((store / "activations").iterdir()) == []
        kept.add("The disk has room again.")
    with Memory(store, encoder=WordEncoder()) as fresh:
        assert fresh.verify()["ok"]
        assert score(fresh, "The disk has room again.") > 0.9
        assert [segment.text for segment in fresh.get_all()] == ["The disk has room again."]


def secret(store: Path) -> bytes:
    """The bytes of the last tensor that was appended."""
    return arena(store).read_bytes().rstrip(b"\0")[-48:]


def test_what_a_crash_kept_from_being_wiped_is_wiped_at_the_next_open(
    kept: Memory, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = kept.add("A secret nobody else has written down").ids[0]
    written = secret(store)
    with monkeypatch.context() as patch:
        patch.setattr("memspan.ledger.sqlite.SqliteLedger.erase_dead", lambda self: None)
        kept.erase(id)
    assert written in arena(store).read_bytes()
    Memory(store, encoder=WordEncoder()).close()
    assert written not in arena(store).read_bytes()


def test_what_is_said_again_before_it_was_wiped_is_wiped_when_it_is_deleted_again(
    kept: Memory, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "A secret nobody else has written down"
    id = kept.add(text).ids[0]
    written = secret(store)
    with monkeypatch.context() as patch:
        patch.setattr("memspan.ledger.sqlite.SqliteLedger.erase_dead", lambda self: None)
        kept.erase(id)
        id = kept.add(text).ids[0]
    assert score(kept, text) > 0.9
    kept.erase(id)
    assert written not in arena(store).read_bytes()


def test_a_damaged_tensor_of_a_text_that_is_deleted_later_is_wiped_too(kept: Memory, store: Path) -> None:
    id = kept.add("A secret nobody else has written down").ids[0]
    written = secret(store)
    end = len(arena(store).read_bytes().rstrip(b"\0"))
    flip(arena(store), end - 47)
    assert not kept.verify()["ok"]
    kept.compact()
    kept.erase(id)
    assert written[8:] not in arena(store).read_bytes()


def test_arena_files_that_a_crash_left_without_an_owner_are_removed(kept: Memory, store: Path) -> None:
    orphan = store / "activations" / "arena-000077.bin"
    orphan.write_bytes(arena(store).read_bytes()[:4096])
    kept.compact()
    assert not orphan.exists()
    assert kept.verify()["ok"]


def test_what_verify_finds_is_made_again_by_a_later_compaction_of_any_process(kept: Memory, store: Path) -> None:
    assert score(kept, TEXTS[0]) > 0.7
    flip(arena(store), 16 + 16 + 3)
    (problem,) = kept.verify()["problems"]
    assert "encoded again by the next compaction" in problem
    with Memory(store, encoder=WordEncoder()) as other:
        assert held(other)["lost"] == 1
        other.compact()
        assert other.verify()["ok"]
        assert held(other)["lost"] == 0


def test_a_search_that_began_before_its_arena_was_moved_finds_it_where_it_is_now(kept: Memory, store: Path) -> None:
    with Memory(store, encoder=WordEncoder()) as reader:
        ids = {segment.text: segment.seq for segment in reader.get_all(limit=100)}
        assert score(reader, TEXTS[-1]) > 0.7
        with reader._ledger.reading():  # as a search does
            assert reader._ledger.get("default", reader.get_all(limit=1)[0].id).text == TEXTS[0]
            kept.erase([segment.id for segment in kept.get_all(limit=100)][:-2])
            kept.compact()
            reader._ledger._arenas.remove(1)
            found = reader._ledger.tokens_of("default", [ids[TEXTS[-1]]])
        assert found.seqs.tolist() == [ids[TEXTS[-1]]]
        assert not reader._ledger.harmed


def test_a_change_that_was_begun_is_told_and_cannot_be_given_up_by_another_process_meanwhile(
    kept: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.reencoding.BATCH", 4)
    with Memory(kept.path, encoder=WordEncoder()) as other:

        def meanwhile(done: int, total: int, what: str) -> None:
            assert other.stats()["reencoding"] == {"encoder": "words-128", "tokens": "f16", "left": len(TEXTS) - done}
            for give_up in (lambda: other.reencode(tokens="1bit"), lambda: other.rebuild(encoder=None)):
                with pytest.raises(StoreBusy):
                    give_up()

        assert kept.reencode(tokens="f16", progress=meanwhile)["encoded"] == len(TEXTS)
        assert (kept.stats()["pending"], kept.stats()["reencoding"]) == (0, None)


def test_what_was_left_of_the_old_encoding_when_dropping_it_was_interrupted_goes_at_the_next_compaction(
    kept: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("memspan.ledger.sqlite.SqliteLedger.drop_encodings", stop)
        with pytest.raises(KeyboardInterrupt):
            kept.reencode(tokens="f16")
    assert held(kept)["references"] == 2 * len(TEXTS)
    kept.compact()
    assert held(kept)["references"] == len(TEXTS)
    assert score(kept, TEXTS[0]) > 0.9


def test_a_snapshot_that_was_being_made_of_the_old_encoders_vectors_is_not_kept(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.views.vectors.SNAPSHOT_ROWS", 8)
    with Memory(store, encoder="hash:64") as memory, Memory(store, encoder="hash:64") as other:
        for text in TEXTS:
            memory.add(text)
        vectors = next(view for view in other._projection.views if view.name == "vectors")
        memory.reencode(encoder="hash:128")
        memory.reencode(encoder="hash:32")
        with pytest.raises((EncoderMismatch, StoreCorrupt)):
            vectors.compact("default", force=True)
        assert memory.search(TEXTS[4], k=1, recipe="semantic")[0].text == TEXTS[4]
        assert memory.stats()["views"]["vectors"]["failure"] is None


def test_a_memory_that_was_told_to_do_without_an_encoder_goes_on_without_when_the_level_changes(kept: Memory) -> None:
    with Memory(kept.path, encoder=None) as words_only:
        assert words_only.search("green kettle")
        kept.reencode(tokens="f16")
        assert words_only.search("green kettle")[0].text.startswith("The green kettle")
        assert words_only.add("Added without an encoder.").pending == 1
    assert kept.search("added without an encoder")[0].text == "Added without an encoder."


def test_auto_keeps_the_level_in_use_and_none_is_a_level(kept: Memory) -> None:
    kept.reencode(tokens="int8")
    assert kept.reencode()["tokens"] == "int8"
    kept.reencode(tokens="none")
    assert kept.reencode() == {"encoder": "words-128", "tokens": "none", "encoded": 0}
    with pytest.raises(InvalidInput, match="encoder"):
        kept.reencode(encoder="none")


def test_threads_of_the_memory_that_changes_its_encoder_search_and_write_on(store: Path) -> None:
    with Memory(store, encoder="hash:64") as memory:
        for text in TEXTS:
            memory.add(text)
        stop = threading.Event()
        seen: list[object] = []

        def work() -> None:
            try:
                for number in itertools.count():
                    if stop.is_set():
                        return
                    seen.append(memory.search(TEXTS[number % 15], k=1, recipe="semantic")[0].text == TEXTS[number % 15])
                    memory.add(f"Thread note {threading.get_ident()} {number}")
            except BaseException as error:
                seen.append(error)
                raise

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for dim in (128, 32, 64):
            memory.reencode(encoder=f"hash:{dim}")
        stop.set()
        for thread in threads:
            thread.join()
        assert set(seen) == {True}
        memory.compact()
        assert memory.verify()["ok"]
