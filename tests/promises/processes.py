"""What the processes of the tests beside this file do: ``TASKS``, which ``running.py`` starts.

They speak in lines of JSON: what they did goes to stdout as soon as it is acknowledged, what they shall do comes from
stdin. The encoder needs no model, and snapshots are made from a few rows on, so that they start fast and do everything.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable

import faiss  # noqa: F401 - as all that is imported here, once for all processes

import memspan.store
from memspan import Memory, importing, projection, transfer
from memspan.activations import arena
from memspan.errors import InDoubt, StoreBusy
from memspan.ledger.sqlite import SqliteLedger
from memspan.testing import WordEncoder
from memspan.views import graph, lexical, tree, vectors

vectors.SCANNED_ROWS = 100
lexical.SNAPSHOT_ROWS = vectors.SNAPSHOT_ROWS = tree.SNAPSHOT_ROWS = graph.SNAPSHOT_ROWS = 48
projection.TENDED_ROWS = 32


arena.EXTENT = 1 << 16
BASIS = WordEncoder().basis()
memspan.store.shipped = lambda id: BASIS if id == "words-128" else None  # type: ignore[attr-defined]


def opened(store: str) -> Memory:
    """The store, whose token activations are kept where MEMSPAN_TOKENS names a level."""
    return Memory(store, encoder=WordEncoder() if os.environ.get("MEMSPAN_TOKENS") else "hash")


def say(**line: object) -> None:
    """One line to whoever started this process: a single write, so that a kill cannot leave half of it."""
    os.write(1, json.dumps(line).encode() + b"\n")


def word(*numbers: int) -> str:
    """A word that no other numbers give: consonants only, so that it has no stem but itself."""
    return "zq" + "x".join("".join("bcdfghkmnp"[int(digit)] for digit in str(number)) for number in numbers)


def churn(store: str, run: str, seed: str) -> None:
    """Write in every way there is until killed: first what is intended, then that it is done."""
    choose = random.Random(int(seed))
    memory = opened(store)
    mine: dict[str, str] = {}
    step = 0

    def fresh() -> str:
        nonlocal step
        step += 1
        return f"{word(int(run), step)} the {choose.choice(('red', 'green', 'blue'))} kettle number {step}"

    say(ready=True)
    while True:
        way = choose.random()
        if way < 0.70 or not mine:
            wait = choose.random() < 0.6
            texts = [fresh() for _ in range(choose.choice((1, 1, 1, 2, 5)))]
            say(adding=texts)
            if len(texts) == 1:
                added = memory.add(texts[0], wait=wait)
            else:
                added = memory.add([{"role": "user", "content": text} for text in texts], session=run, wait=wait)
            say(added=list(added.ids))
            mine.update(zip(added.ids, texts, strict=True))
        elif way < 0.82:
            id, text = choose.choice(list(mine)), fresh()
            say(updating=id, text=text)
            memory.update(id, text)
            say(updated=id)
            mine[id] = text
        elif way < 0.93:
            gone = choose.sample(list(mine), min(len(mine), choose.choice((1, 1, 3))))
            say(deleting=gone)
            memory.erase(gone)
            say(deleted=gone)
            for id in gone:
                del mine[id]
        else:
            memory.compact()
            say(compacted=True)


def write(store: str, number: str, count: str, namespace: str = "default") -> None:
    """Add ``count`` segments, telling each."""
    with opened(store) as memory:
        for step in range(int(count)):
            unique = word(int(number), step)
            text = f"{unique} writer {number} notes kettle {step % 7}"
            added = memory.add(text, user_id=f"user{number}", namespace=namespace)
            say(id=added.ids[0], word=unique, text=text)


def persist(store: str, number: str, namespace: str) -> None:
    """Add numbered texts until stdin is closed, each again with its key until it is there; tell each."""
    ending = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ending.set()), daemon=True).start()
    with opened(store) as memory:
        say(ready=True)
        step = 0
        while not ending.is_set():
            text = f"{word(int(number), step)} persists"
            try:
                id = memory.add(text, namespace=namespace, user_id=number, idempotency_key=text).ids[0]
            except (StoreBusy, InDoubt) as error:
                say(busy=str(error))
            else:
                say(id=id, text=text)
                step += 1


def read(store: str) -> None:
    """For each line with id, word and text: whether the next search finds it, by keyword and by meaning."""
    with opened(store) as memory:
        say(ready=True)
        for line in sys.stdin:
            wanted = json.loads(line)
            by_word = memory.search(wanted["word"], k=3, recipe="keyword")
            by_meaning = memory.search(wanted["text"], k=3, recipe="semantic")
            say(
                id=wanted["id"],
                keyword=wanted["id"] in [hit.id for hit in by_word],
                semantic=wanted["id"] in [hit.id for hit in by_meaning],
            )
        views = memory.stats()["views"]
        say(failures=[view["failure"] for view in views.values() if view["failure"]])


def compact(store: str) -> None:
    """Compact again and again until stdin is closed."""
    with opened(store) as memory:
        say(ready=True)
        for _ in sys.stdin:
            memory.compact()
            say(compacted=True)


def open_new(store: str) -> None:
    """Open a store the moment a line comes, add one segment, and tell which store it was."""
    say(ready=True)
    sys.stdin.readline()
    with opened(store) as memory:
        say(store=memory.stats()["store_id"], id=memory.add(f"{word(os.getpid())} was here").ids[0])


def fork(store: str) -> None:
    """Fork with the store open and in use; the parent closes it while the child goes on writing."""
    memory = opened(store)
    memory.add([{"role": "user", "content": f"{word(1, step)} before the fork"} for step in range(100)])
    memory.compact()
    memory.search("before the fork")
    closed, close = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            memory.add(f"{word(2)} said by the child")
            os.read(closed, 1)  # the parent has closed the store
            memory.add(f"{word(3)} said by the child alone")
            found = memory.search(word(3), recipe="keyword")
            code = 0 if len(found) == 1 and memory.search(f"{word(1, 5)} before the fork")[0].text else 1
            memory.close()
        finally:
            os._exit(code)
    memory.add(f"{word(4)} said by the parent")
    memory.close()
    os.write(close, b".")
    _, status = os.waitpid(child, 0)
    say(child=os.waitstatus_to_exitcode(status))


def fork_busily(store: str, children: str) -> None:
    """Fork again and again while threads write, search and compact; each child writes and searches too."""
    memory = opened(store)
    # everything is imported before: a child forked in the middle of another thread's import would wait for that thread
    memory.add([{"role": "user", "content": f"{word(8, step)} before"} for step in range(60)])
    memory.compact()
    memory.search("before")
    stopping = threading.Event()
    counts = [0, 0]

    def work(number: int) -> None:
        while not stopping.is_set():
            counts[number] += 1
            memory.add(f"{word(number, counts[number])} of thread {number}", wait=counts[number] % 3 != 0)
            memory.search("of thread")
            if counts[number] % 20 == 0:
                memory.compact()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    codes = []
    for number in range(int(children)):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                id = memory.add(f"{word(9, number)} of child {number}").ids[0]
                code = [hit.id for hit in memory.search(word(9, number), recipe="keyword")] != [id]
                memory.close()
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stopping.set()
    for thread in threads:
        thread.join()
    memory.close()
    say(children=codes, written=sum(counts))


def erase(store: str, moment: str) -> None:
    """Erase half of what is there, and die in the middle: before a view is made anew, before the archive's turn, before
    the ledger is scrubbed, before it is written down that all is done."""
    memory = opened(store)
    gone = memory.add([{"role": "user", "content": f"{word(1, step)} is to go"} for step in range(40)], user_id="gone")
    memory.add([{"role": "user", "content": f"{word(2, step)} stays"} for step in range(40)], user_id="kept")
    memory.compact()
    say(texts=[memory.get(id).text for id in gone.ids], left=40)
    target, name = (
        (vectors.VectorView, "compact"),
        (graph.GraphView, "compact"),
        (SqliteLedger, "scrub"),
        (SqliteLedger, "done"),
    )[int(moment)]
    setattr(target, name, lambda *given, **named: os.kill(os.getpid(), signal.SIGKILL))
    memory.erase(user_id="gone", vacuum=True)


def take(store: str, file: str) -> None:
    """Import an archive, and say so after each batch."""
    importing.BATCH = 16
    memory = opened(store)
    say(ready=True)
    done = memory.import_from(file, progress=lambda done, total, what: say(done=done, what=what))
    memory.close()
    say(added=done.added, there=done.there, failed=done.failed)


def count_up(store: str, number: str) -> None:
    """Add numbered texts until killed, one or several in one call, each naming the last number of its call."""
    choose = random.Random(int(number))
    last = 0
    with opened(store) as memory:
        say(ready=True)
        while True:
            first, last = last + 1, last + choose.choice((1, 1, 1, 3))
            told = [f"{step} of {last} by {number}, {word(int(number), step)}" for step in range(first, last + 1)]
            memory.add([{"role": "user", "content": text} for text in told], user_id=number, wait=choose.random() < 0.5)
            say(last=last)


def back_up(store: str, path: str, seed: str) -> None:
    """Add and back up, again and again until killed; tells how much each backup must hold at least."""
    choose = random.Random(int(seed))
    with opened(store) as memory:
        say(ready=True)
        while True:
            memory.add([{"role": "user", "content": f"{word(os.getpid(), choose.getrandbits(30))}"} for _ in range(8)])
            held = len(memory.get_all(limit=100_000))
            done = memory.backup(path, keep=choose.choice((None, None, 6)))
            say(number=done.number, segments=held)


def copy(store: str, place: str) -> None:
    """Copy the store, and say so after each step."""
    transfer.PAGE = transfer.SHORT = 16
    done = transfer.copy(store, place, progress=lambda done, total, what: say(done=done, what=what))
    say(brought=done.brought, differences=done.differences)


TASKS: dict[str, Callable[..., None]] = {
    task.__name__: task
    for task in (
        churn,
        copy,
        erase,
        write,
        persist,
        read,
        compact,
        open_new,
        fork,
        fork_busily,
        take,
        count_up,
        back_up,
    )
}
