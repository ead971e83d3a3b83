"""A copy of a whole store answers like its source, whatever happened there before and while it was made."""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import started

from memspan import InvalidInput, KeyNeeded, Memory, NotAStore, StoreBusy
from memspan.cli import main
from memspan.encoders.base import Encoded
from memspan.testing import WordEncoder
from memspan.transfer import copy
from postgres import database

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


def everything(memory: Memory, folder: Path) -> dict[str, Any]:
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
    for space in SPACES:  # a search is counted, so these come last, and in both
        for query in ("where is the spare key?", "Lisbon", "boat"):
            hits = memory.search(query, namespace=space, explain=True)
            told[f"{space}: {query}"] = [(hit.id, hit.score, dict(hit.channels)) for hit in hits]
    return told


def same(source: Path, target: Path, folder: Path) -> None:
    with opened(source) as memory:
        wanted = everything(memory, folder)
    with opened(target) as memory:
        found = everything(memory, folder)
        assert memory.verify()["ok"]
    assert found == wanted


STEPS = st.lists(st.tuples(st.sampled_from(WAYS), st.integers(0, 1_000), st.integers(0, 1)), min_size=1, max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(before=STEPS, after=STEPS)
def test_a_copy_answers_like_its_source_and_again_after_more_has_happened(
    before: list[tuple[str, int, int]], after: list[tuple[str, int, int]], words: WordEncoder
) -> None:
    with tempfile.TemporaryDirectory(prefix="memspan-copy-") as place:
        folder = Path(place)
        source, target = folder / "source", folder / "target"
        with opened(source) as memory:
            life = Life(memory, folder)
            life.lead(before)
            assert copy(source, target).differences == ()
            life.lead(after)
        done = copy(source, target)
        assert (done.differences, done.behind) == ((), 0)
        same(source, target, folder)
