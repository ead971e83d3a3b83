"""One store, many processes and threads: nobody waits in vain, nobody misses what was written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from running import started

from memspan import Memory
from memspan.encoders.base import Encoder
from memspan.testing import WordEncoder


def writers_and_readers(
    store: Path, writers: int, each: int, readers: int, compactors: int = 0, encoder: str | Encoder = "hash"
) -> None:
    """Every acknowledged add goes to a reader in another process, which must find it at its next search."""
    answers: list[dict[str, Any]] = []
    failures: list[str] = []
    with ExitStack() as stack:
        reading = [stack.enter_context(started("read", store)) for _ in range(readers)]
        compacting = [stack.enter_context(started("compact", store)) for _ in range(compactors)]
        for process in (*reading, *compacting):
            assert process.hear() == {"ready": True}
        writing = [stack.enter_context(started("write", store, number, each)) for number in range(writers)]
        locks = [threading.Lock() for _ in reading]
        told = [0] * readers

        def relay(number: int) -> None:
            for count, line in enumerate(writing[number].lines()):
                to = (number + count) % readers
                with locks[to]:
                    reading[to].tell(line)
                    told[to] += 1
                if compacting and count % 10 == 9:
                    compacting[number % compactors].tell("now")
            writing[number].finish()

        def listen(to: int) -> None:
            while True:
                answer = reading[to].hear()
                if "failures" in answer:
                    failures.extend(answer["failures"])
                    return
                answers.append(answer)

        def or_stop_all(work: Callable[[int], None], number: int) -> None:
            try:
                work(number)
            except BaseException:
                for process in (*reading, *compacting, *writing):
                    process.stop()
                raise

        with ThreadPoolExecutor(writers + readers) as pool:
            listening = [pool.submit(or_stop_all, listen, to) for to in range(readers)]
            for relayed in [pool.submit(or_stop_all, relay, number) for number in range(writers)]:
                relayed.result()
            for process in reading:
                process.hang_up()
            for listened in listening:
                listened.result()
            for process in (*reading, *compacting):
                process.finish()
    assert len(answers) == writers * each
    assert [answer for answer in answers if not answer["keyword"]] == []
    missed = [answer for answer in answers if not answer["semantic"]]
    assert len(missed) <= len(answers) // 1000, "a graph is approximate, but not more than this"
    assert failures == []
    with Memory(store, encoder=encoder) as memory:
        assert memory.stats()["segments"] == writers * each
        assert memory.verify() == {"ok": True, "segments": writers * each, "problems": []}
        assert {answer["id"] for answer in answers} == {segment.id for segment in memory.get_all(limit=100_000)}


def test_what_four_processes_write_is_found_by_two_others_at_their_next_search(tmp_path: Path) -> None:
    writers_and_readers(tmp_path / "store", writers=4, each=30, readers=2)


def test_two_processes_compact_while_others_write_and_search(tmp_path: Path) -> None:
    writers_and_readers(tmp_path / "store", writers=2, each=40, readers=2, compactors=2)


def test_eight_processes_write_tensors_into_one_arena_while_two_compact(tmp_path: Path, words: WordEncoder) -> None:
    writers_and_readers(tmp_path / "store", writers=8, each=12, readers=1, compactors=2, encoder=words)
    with Memory(tmp_path / "store", encoder=words) as memory:
        held = memory.stats()["activations"]
        assert (held["tensors"], held["references"], held["lost"]) == (96, 96, 0)


@pytest.mark.soak
def test_eight_processes_write_tensors_five_hundred_times_while_two_compact(tmp_path: Path, words: WordEncoder) -> None:
    writers_and_readers(tmp_path / "store", writers=8, each=500, readers=2, compactors=2, encoder=words)


@pytest.mark.soak
def test_what_eight_processes_write_five_hundred_times_is_found_by_three_others(tmp_path: Path) -> None:
    writers_and_readers(tmp_path / "store", writers=8, each=500, readers=3)


@pytest.mark.soak
def test_three_processes_compact_all_the_time_while_others_write_and_search(tmp_path: Path) -> None:
    writers_and_readers(tmp_path / "store", writers=4, each=400, readers=2, compactors=3)


def test_eight_processes_can_open_a_new_store_at_the_same_moment(tmp_path: Path) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(started("open_new", tmp_path / "store")) for _ in range(8)]
        for process in processes:
            assert process.hear() == {"ready": True}
        for process in processes:
            process.tell("go")
        said = [line for process in processes for line in process.finish()]
    assert len({line["store"] for line in said}) == 1, "they opened one store"
    with Memory(tmp_path / "store") as memory:
        assert {segment.id for segment in memory.get_all()} == {line["id"] for line in said}
        assert memory.verify()["ok"]


def test_a_forked_child_goes_on_writing_when_its_parent_has_closed_the_store(
    tmp_path: Path, words: WordEncoder
) -> None:
    with started("fork", tmp_path / "store") as process:
        assert process.finish() == [{"child": 0}]
    with Memory(tmp_path / "store", encoder=words) as memory:
        assert memory.stats()["activations"]["lost"] == 0
        assert memory.stats()["segments"] == 103
        assert memory.verify()["ok"]
        assert {"said by the child", "said by the child alone", "said by the parent"} <= {
            segment.text.partition(" ")[2] for segment in memory.get_all(limit=1000)
        }


def test_children_forked_while_threads_write_and_search_neither_hang_nor_lose_a_write(
    tmp_path: Path, words: WordEncoder
) -> None:
    with started("fork_busily", tmp_path / "store", 8) as process:
        (said,) = process.finish()
    assert said["children"] == [0] * 8
    with Memory(tmp_path / "store", encoder=words) as memory:
        assert memory.stats()["segments"] == 60 + said["written"] + 8
        memory.compact()
        assert memory.verify()["problems"] == []


@pytest.mark.parametrize("steps", [15, pytest.param(25, marks=pytest.mark.soak)])
@pytest.mark.parametrize("place", ["on disk", "in memory"])
def test_eight_threads_share_one_memory(tmp_path: Path, small_snapshots: None, place: str, steps: int) -> None:
    with Memory(tmp_path / "store" if place == "on disk" else ":memory:", encoder="hash") as memory:

        def work(number: int) -> None:
            for step in range(steps):
                name = f"zk{'bcdfghkm'[number]}v{'bcdfghkmnp'[step // 10]}{'bcdfghkmnp'[step % 10]}"
                text = f"{name} was noted by thread {number}"
                id = memory.add(text, user_id=f"user{number}", wait=step % 4 != 0).ids[0]
                assert [hit.id for hit in memory.search(name, recipe="keyword")] == [id]
                hits = memory.search(text, k=2, recipe="semantic", user_id=f"user{number}")
                assert step % 4 == 0 or id in [hit.id for hit in hits]
                assert all(hit.user_id == f"user{number}" for hit in hits)
                if step % 5 == 1:
                    memory.update(id, f"{text}, and again")
                if step % 5 == 2:
                    assert memory.erase(id).segments == 1
                    assert memory.search(name, recipe="keyword") == []
                if step % 10 == 7:
                    memory.compact()

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work, number) for number in range(8)]:
                done.result()
        memory.compact()
        assert memory.stats()["segments"] == 8 * (steps - steps // 5)
        assert memory.stats()["pending"] == 0
        assert memory.verify()["problems"] == []
        views = memory.stats()["views"]
        assert [view["failure"] for view in views.values()] == [None] * 4
