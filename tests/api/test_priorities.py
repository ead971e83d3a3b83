"""What a segment is worth beside what it says; and that asking changes no answer unless that is asked for."""

from __future__ import annotations

import math
import resource
import sqlite3
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memspan import Hit, Memory
from memspan.fusion import Model, ranker
from memspan.recipes import RECIPES, USUAL

Open = Callable[..., Memory]
CITIES = ("Lisbon", "Berlin", "Kyoto", "Quito", "Oslo", "Nairobi", "Tbilisi", "Hanoi", "Lima", "Perth")


def fill(memory: Memory) -> list[str]:
    turns = [{"role": "user", "content": f"Ana took the night train to {city}."} for city in CITIES]
    return [*memory.add(turns, session="s", category="Travel").ids, *memory.add("Bob stayed at home.").ids]


def part(hit: Hit, name: str) -> float:
    assert hit.channels is not None
    return hit.channels[name]


def parts(memory: Memory, id: str, query: str = "the night train", recipe: str = "dsm") -> Mapping[str, float]:
    """What "dsm" knows of a segment."""
    hits = memory.search(query, k=50, recipe=recipe, explain=True)
    return next(hit.channels for hit in hits if hit.id == id and hit.channels is not None)


def usage(path: Path) -> dict[bytes, tuple[int, float]]:
    """What is written down: id → (accesses, relevance)."""
    ledger = sqlite3.connect(path / "ledger.db")
    rows = ledger.execute("SELECT id, accesses, relevance FROM usage").fetchall()
    ledger.close()
    return {id: (accesses, relevance) for id, accesses, relevance in rows}


# Scores


def model_of(recipe: str, channels: Mapping[str, float]) -> Model:
    return next(model for model in RECIPES[recipe].models if set(model.weights) <= set(channels))


def added(recipe: str, channels: Mapping[str, float]) -> float:
    """What priorities add to a logit."""
    weights = RECIPES[recipe].priorities
    return sum(weight * (channels[name] - USUAL.get(name, 0)) for name, weight in weights.items() if name in channels)


@pytest.mark.parametrize("recipe", [name for name, recipe in RECIPES.items() if not recipe.ranked])
def test_a_score_is_made_of_the_parts_that_are_told(memory: Memory, recipe: str) -> None:
    fill(memory)
    memory.add("The night train was late.", importance=0.9)
    hits = memory.search("the night train to Kyoto", k=50, recipe=recipe, explain=True)
    assert len(hits) >= 10
    for hit in hits:
        assert hit.channels is not None
        model = model_of(recipe, hit.channels)
        assert set(hit.channels) <= {*model.weights, *model.extras, *RECIPES[recipe].priorities}
        weights = {**model.extras, **model.weights}
        total = model.bias + sum(weights[name] * value for name, value in hit.channels.items() if name in weights)
        assert hit.score == pytest.approx(1 / (1 + math.exp(-total - added(recipe, hit.channels))), abs=1e-5)


@pytest.mark.parametrize("recipe", [name for name, recipe in RECIPES.items() if recipe.ranked])
def test_where_the_best_are_told_apart_their_scores_are_made_of_all_their_parts(memory: Memory, recipe: str) -> None:
    fill(memory)
    memory.add("The night train was late.", importance=0.9)
    hits = memory.search("the night train to Kyoto", k=50, recipe=f"{recipe}-updates", explain=True)
    assert len(hits) >= 10
    told = [hit.channels or {} for hit in hits]
    features = {name: np.array([each[name] for each in told], np.float32) for name in told[0] if name != "category"}
    model = model_of(recipe, told[0])
    weights = {**model.extras, **model.weights}
    for each, logit in zip(told, ranker("pooled").logits(features).tolist(), strict=True):
        linear = model.bias + sum(weights[name] * value for name, value in each.items() if name in weights)
        expected = logit + 0.01 * linear + added(recipe, each)
        hit = hits[told.index(each)]
        assert math.log(hit.score / (1 - hit.score)) == pytest.approx(expected, abs=1e-3)


def test_flat_scores_as_before_there_was_a_graph(memory: Memory, opened: Open) -> None:
    fill(memory)
    for hit in memory.search("the night train to Kyoto", k=50, recipe="flat", explain=True):
        logit = -6.7 + 5.0 * part(hit, "semantic") + 5.5 * part(hit, "keyword")
        assert hit.score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)
        assert hit.path == ()
    words = opened(":memory:", encoder=None)
    fill(words)
    for hit in words.search("the night train to Kyoto", k=50, recipe="flat", explain=True):
        assert hit.score == pytest.approx(1 / (1 + math.exp(5.2 - 8.1 * part(hit, "keyword"))), abs=1e-6)


@pytest.mark.parametrize("name", ["next", "mentions"])
def test_a_recipe_without_a_part_differs_by_exactly_that(memory: Memory, name: str) -> None:
    fill(memory)
    query = "the night train to Kyoto"
    whole = {hit.id: hit for hit in memory.search(query, k=50, recipe="fast", explain=True)}
    less = {hit.id: hit for hit in memory.search(query, k=50, recipe=f"fast-{name}", explain=True)}
    assert set(less) == set(whole)
    assert any(part(hit, name) > 0 for hit in whole.values())
    for id, hit in whole.items():
        channels = dict(hit.channels or {})
        value = channels.pop(name)
        assert channels == less[id].channels
        logit = [math.log(each.score / (1 - each.score)) for each in (hit, less[id])]
        weight = model_of("fast", channels).extras[name]
        assert logit[0] - logit[1] == pytest.approx(weight * value, abs=1e-4)
        assert less[id].path == () or less[id].path[0].kind != name
    flat = {hit.id: hit for hit in memory.search(query, k=50, recipe="fast-next-mentions", explain=True)}
    assert all(hit.path == () and "next" not in (hit.channels or {}) for hit in flat.values())


# What is stated


def test_of_two_that_say_the_same_the_more_important_comes_first(memory: Memory) -> None:
    one, two = (memory.add("The key is under the mat.", user_id=user).ids[0] for user in ("ana", "ben"))
    for first, second in ((one, two), (two, one)):
        memory.update(first, importance=0.9)
        memory.update(second, importance=0.1)
        hits = memory.search("where is the key?", explain=True)
        assert [hit.id for hit in hits] == [first, second]
        assert [part(hit, "importance") for hit in hits] == pytest.approx([0.9, 0.1])
        assert hits[0].score > hits[1].score
        assert len({hit.score for hit in memory.search("where is the key?", recipe="flat")}) == 1


def test_importance_does_not_make_an_answer_of_what_is_none(memory: Memory) -> None:
    fill(memory)
    memory.add("The cat sleeps.", importance=1.0)
    key = memory.add("The key is under the mat.", importance=0.0).ids[0]
    assert memory.search("where is the key?", k=1)[0].id == key


def test_what_happened_lately_is_recent(memory: Memory) -> None:
    now = datetime.now(UTC)
    ages = {0: 1.0, 30: 0.5, 60: 0.25, 3_000: 0.0}
    ids = {age: memory.add(f"Day {age} at the river.", occurred_at=now - timedelta(days=age)).ids[0] for age in ages}
    for age, recency in ages.items():
        assert parts(memory, ids[age], "a day at the river")["recency"] == pytest.approx(recency, abs=1e-3)
    future = memory.add("Day of the river to come.", occurred_at=now + timedelta(days=400)).ids[0]
    assert parts(memory, future, "a day at the river")["recency"] == 1.0


# What reading leaves behind


def test_reading_changes_no_answer_of_the_default(opened: Open) -> None:
    memory = opened()
    fill(memory)

    def answer(memory: Memory) -> list[tuple[str, float, Any]]:
        return [(hit.id, hit.score, hit.channels) for hit in memory.search("the train to Oslo", k=11, explain=True)]

    first = answer(memory)
    for _ in range(30):
        memory.search("Oslo", k=1)
        memory.context("Bob at home", budget=100)
    assert answer(memory) == first
    memory.close()
    memory = opened()
    assert answer(memory) == first
    memory.compact()
    assert answer(memory) == first
    memory.rebuild()
    assert answer(memory) == first


@pytest.mark.embedded("reads its file past the engine")
def test_uses_are_written_down_with_how_often_when_and_how_well(opened: Open, path: Path) -> None:
    memory = opened()
    ids = fill(memory)
    before = parts(memory, ids[2])
    assert (before["frequency"], before["relevance"]) == (0.0, 0.5)
    scores = [memory.search("the night train to Kyoto", k=1)[0].score for _ in range(20)]
    assert usage(path) == {}, "nothing is written while one reads"
    memory.close()
    assert usage(path)[bytes.fromhex(ids[2].replace("-", ""))] == pytest.approx((21, max(0.5, *scores)))
    memory = opened()
    after = parts(memory, ids[2])
    assert after["frequency"] == pytest.approx(1 - math.exp(-2.1))
    assert after["relevance"] == pytest.approx(max(0.5, *scores))
    assert parts(memory, ids[3])["frequency"] == pytest.approx(1 - math.exp(-0.1))
    for name in ("importance", "recency"):
        assert 0 <= after[name] <= 1
    memory.search("Oslo", namespace="other")
    memory.close()
    memory = opened()
    assert parts(memory, ids[2])["frequency"] == pytest.approx(1 - math.exp(-2.3)), "uses add up over sessions"


def test_what_is_often_returned_comes_first_where_that_is_asked_for(opened: Open) -> None:
    memory = opened()
    one, two = (memory.add("The key is under the mat.", user_id=user).ids[0] for user in ("ana", "ben"))
    assert [hit.id for hit in memory.search("where is the key?", recipe="dsm")] == [two, one], "of equal ones the newer"
    for _ in range(20):
        memory.search("where is the key?", user_id="ana")
    memory.close()
    memory = opened()
    assert [hit.id for hit in memory.search("where is the key?", recipe="dsm")] == [one, two]
    assert [hit.id for hit in memory.search("where is the key?")] == [two, one]


def test_an_access_makes_what_happened_long_ago_recent(opened: Open) -> None:
    memory = opened()
    id = memory.add("The war ended.", occurred_at="1945-05-08").ids[0]
    assert parts(memory, id, "the war")["recency"] == 0.0
    memory.close()
    assert parts(opened(), id, "the war")["recency"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.embedded("reads its file past the engine")
def test_a_new_version_keeps_its_uses_and_a_deletion_forgets_them(opened: Open, path: Path) -> None:
    memory = opened()
    ids = fill(memory)
    for _ in range(10):
        memory.search("Kyoto", k=1, recipe="keyword")
    memory.close()
    memory = opened()
    memory.update(ids[2], "Ana took the night train to Nara.")
    memory.move_category("Travel", "Trips")
    assert parts(memory, ids[2])["frequency"] == pytest.approx(1 - math.exp(-1.0))
    memory.search("Nara", k=1)
    memory.erase(ids[2])
    memory.close()  # what it still had to tell of the deleted one is left out
    assert bytes.fromhex(ids[2].replace("-", "")) not in usage(path)
    memory = opened()
    again = memory.add("Ana took the night train to Nara.", category="Travel").ids[0]
    assert parts(memory, again)["frequency"] == 0.0
    assert memory.verify()["ok"]


@pytest.mark.embedded("reads its file past the engine")
def test_many_uses_are_written_in_batches_and_each_counts_once(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.projection.USES", 3)
    memory = opened()
    fill(memory)
    returned = sum(len(memory.search("the night train", k=k)) for k in (1, 2, 3, 4, 5, 11) * 5)
    memory.close()
    assert sum(accesses for accesses, _ in usage(path).values()) == returned


@pytest.mark.embedded("reads its file past the engine")
def test_uses_in_many_namespaces_are_written_down_before_the_store_is_closed(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.projection.USES", 3)
    memory = opened()
    for name in ("one", "two", "three"):
        memory.add("The key is under the mat.", namespace=name)
        memory.search("where is the key?", namespace=name)
    deadline = time.monotonic() + 30
    while len(usage(path)) < 3:
        assert time.monotonic() < deadline


@pytest.mark.embedded("reads its file past the engine")
def test_a_search_does_not_wait_for_who_writes(opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memspan.projection.USES", 1)
    monkeypatch.setattr("memspan.ledger.connections.BUSY_SECONDS", 0.05)
    memory = opened()
    ids = fill(memory)
    writer = sqlite3.connect(path / "ledger.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    for recipe in RECIPES:
        assert ids[2] in [hit.id for hit in memory.search("the night train to Kyoto", recipe=recipe)]
    assert memory.neighbors(ids[2])
    assert memory.active_context("the night train to Kyoto").citations
    writer.execute("ROLLBACK")
    writer.close()


@pytest.mark.embedded("reads its file past the engine")
def test_a_store_that_cannot_be_written_to_answers_and_counts_nothing(opened: Open, path: Path) -> None:
    memory = opened()
    ids = fill(memory)
    expected = [(hit.id, hit.score) for hit in memory.search("the night train to Kyoto")]
    memory.close()
    before = usage(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    memory = opened()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        assert [(hit.id, hit.score) for hit in memory.search("the night train to Kyoto")] == expected
        assert memory.search("the night train", recipe="dsm")
        assert memory.neighbors(ids[0])
        memory.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert usage(path) == before
    assert [(hit.id, hit.score) for hit in opened().search("the night train to Kyoto")] == expected
