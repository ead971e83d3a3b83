"""Feedback and what is learned from it: it helps with questions it was not fitted on, or changes nothing."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import EncoderError, InvalidInput, Judgement, Memory, NotFound, Tuned
from memspan.encoders.hash import HashEncoder
from memspan.fusion import probability
from memspan.tuning import LEAST, Adjustment, adjusted

Open = Callable[..., Memory]
Notes = dict[str, dict[str, bool]]  # query → id → whether it is useful

TOPICS = [f"{a}{b}" for a in ("amber", "birch", "cedar", "dune") for b in ("mill", "ford", "gate", "well", "yard")]
WORDS = ("paper", "copper", "linen", "barley", "salt", "glass", "tallow", "amphora")
LEARNED = TOPICS[:14]


def filled(memory: Memory, seed: int = 0, **scope: str) -> Notes:
    """Five notes on each topic, of which the important ones are useful; the words say nothing of it."""
    choose = random.Random(seed)
    notes: Notes = {}
    for topic in TOPICS:
        useful = choose.sample(range(5), 2)
        for number in range(5):
            text = f"{topic} {' '.join(choose.sample(WORDS, choose.randint(1, 4)))} {number}"
            (id,) = memory.add(text, importance=0.9 if number in useful else 0.1, **scope).ids
            notes.setdefault(f"what of {topic}?", {})[id] = number in useful
    return notes


def judge(memory: Memory, notes: Notes, topics: list[str] = LEARNED, **scope: str) -> list[dict[str, Any]]:
    """Say of all notes on the topics whether they are useful."""
    asked = [f"what of {topic}?" for topic in topics]
    said = [{"query": query, "id": id, "useful": useful} for query in asked for id, useful in notes[query].items()]
    for each in said:
        memory.feedback(**each, **scope)
    return said


def answers(memory: Memory, recipe: str = "default", **scope: Any) -> list[list[tuple[str, float]]]:
    """What each topic's question finds, to the last bit of a score."""
    asked = [f"what of {topic}?" for topic in TOPICS]
    return [[(hit.id, hit.score) for hit in memory.search(each, recipe=recipe, **scope)] for each in asked]


def good(memory: Memory, notes: Notes, topics: list[str]) -> float:
    """How many of the first two hits are useful, on average."""
    asked = [f"what of {topic}?" for topic in topics]
    return float(np.mean([notes[query].get(hit.id, False) for query in asked for hit in memory.search(query, k=2)]))


@pytest.fixture
def notes(memory: Memory) -> Notes:
    return filled(memory)


# What is learned


def test_what_was_learned_helps_with_questions_nobody_judged(memory: Memory, notes: Notes) -> None:
    judge(memory, notes)
    unseen = [topic for topic in TOPICS if topic not in LEARNED]
    before = good(memory, notes, unseen)
    tuned = memory.tune()
    assert (tuned.namespace, tuned.questions, tuned.judgements) == ("default", 14, 70)
    assert tuned.better
    assert tuned.applied
    assert tuned.after > tuned.before
    assert max(tuned.effects, key=lambda name: tuned.effects[name]) == "importance"
    assert tuned.weights.keys() == tuned.effects.keys()
    assert good(memory, notes, unseen) > before
    told = memory.stats()["tuning"]["default"]
    assert told["weights"] == tuned.weights
    assert (told["questions"], told["judgements"], told["before"], told["after"]) == (
        14,
        70,
        tuned.before,
        tuned.after,
    )
    assert abs((datetime.now(UTC) - datetime.fromisoformat(told["fitted_at"])).total_seconds()) < 60


@pytest.mark.parametrize("seed", [0, *(pytest.param(each, marks=pytest.mark.soak) for each in (1, 2, 3))])
def test_judgements_without_rhyme_or_reason_change_nothing(memory: Memory, notes: Notes, seed: int) -> None:
    choose = random.Random(seed)
    before = answers(memory)
    said = [
        {"query": query, "id": hit.id, "useful": choose.random() < 0.4}
        for query in notes
        for hit in memory.search(query)
    ]
    tuned = memory.tune(said)
    assert not tuned.applied
    assert answers(memory) == before
    assert memory.stats()["tuning"] == {}


def test_the_best_row_scores_what_it_did_on_average_and_thresholds_hold(memory: Memory, notes: Notes) -> None:
    judge(memory, notes)
    before = [memory.search(f"what of {topic}?", k=1)[0].score for topic in LEARNED]
    memory.tune()
    after = [memory.search(f"what of {topic}?", k=1)[0].score for topic in LEARNED]
    assert np.mean(after) == pytest.approx(np.mean(before), abs=1e-4)
    assert after != before
    for each in answers(memory, k=100):
        assert all(0 <= score <= 1 for _, score in each)
        assert [score for _, score in each] == sorted((score for _, score in each), reverse=True)
    every = memory.search("what of ambermill?", k=100)
    bar = every[3].score
    assert [hit.id for hit in memory.search("what of ambermill?", k=100, threshold=bar)] == [
        hit.id for hit in every if hit.score >= bar
    ]


def test_the_same_judgements_teach_the_same_in_whatever_order_they_came(memory: Memory, notes: Notes) -> None:
    said = judge(memory, notes)
    seen: list[tuple[int, int]] = []
    first = memory.tune(dry_run=True, progress=lambda done, total, what: seen.append((done, total)))
    assert seen == [(done, 14) for done in range(1, 15)]
    random.Random(1).shuffle(said)
    assert memory.tune(said, dry_run=True) == first


def test_a_store_without_an_encoder_learns_too(opened: Open) -> None:
    with opened(encoder=None) as memory:
        judge(memory, filled(memory))
        tuned = memory.tune()
        assert tuned.applied
        assert "semantic" not in tuned.weights


def test_nothing_is_learned_while_the_encoder_fails(
    memory: Memory, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of order")

    judge(memory, notes)
    monkeypatch.setattr(HashEncoder, "encode", fail)
    with pytest.raises(EncoderError, match="out of order"):
        memory.tune()
    monkeypatch.undo()
    assert memory.tune().applied


def test_what_is_history_is_not_learned_from(memory: Memory, notes: Notes, tmp_path: Path) -> None:
    judge(memory, notes)
    file = tmp_path / "report.md"
    file.write_text("The first report.", encoding="utf-8")
    (id,) = memory.add_file(file).ids
    memory.feedback("which report?", id)
    assert memory.tune(dry_run=True).questions == 15
    file.write_text("The second report.", encoding="utf-8")
    memory.add_file(file)
    assert memory.tune(dry_run=True).questions == 14


# Where it holds


def test_undo_goes_back_step_by_step_to_the_bit(memory: Memory, notes: Notes) -> None:
    judge(memory, notes)
    shipped = answers(memory)
    assert memory.tune().applied
    once = answers(memory)
    judge(memory, notes, TOPICS)
    assert memory.tune().applied
    assert shipped != once != answers(memory)
    assert memory.untune()
    assert answers(memory) == once
    assert memory.untune()
    assert answers(memory) == shipped
    assert not memory.untune()
    assert memory.stats()["tuning"] == {}
    assert memory.verify()["ok"]


def test_another_namespace_and_recipes_as_shipped_stay_as_they_are(memory: Memory, notes: Notes) -> None:
    filled(memory, namespace="other")
    judge(memory, notes)
    untouched = [("default", "other"), *((name, "default") for name in ("flat", "semantic", "keyword"))]
    shipped = answers(memory)
    before = [answers(memory, recipe, namespace=namespace) for recipe, namespace in untouched]
    assert memory.tune().applied
    assert [answers(memory, recipe, namespace=namespace) for recipe, namespace in untouched] == before
    assert answers(memory, "default-tuning") == shipped != answers(memory)
    assert not memory.untune("other")
    assert memory.stats()["tuning"].keys() == {"default"}


ASKING = """
import json, sys
from memspan import Memory

with Memory(sys.argv[1]) as memory:
    print(json.dumps([[hit.id, hit.score] for hit in memory.search(sys.argv[2])]))
"""


@pytest.mark.embedded("opens it by its path")
def test_others_who_have_the_store_open_and_later_ones_use_it_at_their_next_search(opened: Open, path: Path) -> None:
    query = "what of ambermill?"
    with opened() as memory, opened() as other:
        judge(memory, filled(memory))
        before = other.search(query)
        assert memory.tune().applied
        after = memory.search(query)
        assert other.search(query) == after != before
        done = subprocess.run(
            [sys.executable, "-c", ASKING, path, query], capture_output=True, text=True, check=True, timeout=60
        )
        assert json.loads(done.stdout) == [[hit.id, hit.score] for hit in after]
        assert other.untune()
        assert memory.search(query) == before


def test_a_dry_run_tells_the_same_and_changes_nothing(memory: Memory, notes: Notes) -> None:
    asked = [f"what of {topic}?" for topic in LEARNED]
    said = [{"query": query, "id": id, "useful": useful} for query in asked for id, useful in notes[query].items()]
    before = answers(memory)
    told = memory.tune(said, dry_run=True)
    assert told.better
    assert not told.applied
    assert (memory.stats()["judgements"], memory.stats()["tuning"], answers(memory)) == (0, {}, before)
    done = memory.tune(said)
    assert isinstance(done, Tuned)
    assert done.applied
    assert (done.weights, done.bias, done.after) == (told.weights, told.bias, told.after)
    assert memory.stats()["judgements"] == len(said)


# What is kept of feedback


@pytest.mark.embedded("reads its file past the engine")
def test_feedback_is_kept_once_and_can_be_taken_back(opened: Open, path: Path) -> None:
    with opened() as memory:
        (id,) = memory.add("The kettle sings.").ids
        memory.feedback("what sings?", id)
        memory.feedback("what sings?", id.upper(), False)
        memory.feedback("who sings?", id)
    with opened() as memory:
        memory.update(id, "The kettle hums.")
        assert memory.stats()["judgements"] == 2
        ledger = sqlite3.connect(path / "ledger.db")
        assert ledger.execute("SELECT query, useful FROM judgements").fetchall() == [
            ("what sings?", 0),
            ("who sings?", 1),
        ]
        ledger.close()
        memory.feedback("what sings?", id, None)
        memory.feedback("what sings?", id, None)
        assert memory.stats()["judgements"] == 1


@pytest.mark.embedded("reads its file past the engine")
def test_what_was_said_of_a_deleted_segment_is_nowhere_on_disk(opened: Open, path: Path) -> None:
    secret = "qxzzyvork"
    with opened() as memory:
        one, two, three = (memory.add(f"Note {number}.", user_id=user).ids[0] for number, user in enumerate("abb"))
        for id in (one, two, three):
            memory.feedback(f"{secret} of {id}", id)
        memory.feedback("harmless", three)
        assert memory.erase(one).segments == 1
        assert memory.stats()["judgements"] == 3
        assert memory.erase(user_id="b", filters={"id": {"in": [two]}}).segments == 1
        assert memory.stats()["judgements"] == 2
        memory.feedback(f"{secret} of {three}", three, None)
        memory.compact()
        on_disk = b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
        assert secret.encode() not in on_disk
        assert b"harmless" in on_disk
        assert memory.erase(user_id="b").segments == 1
        assert memory.stats()["judgements"] == 0
        assert memory.verify()["ok"]


def test_what_was_learned_stays_when_all_is_deleted(memory: Memory, notes: Notes) -> None:
    judge(memory, notes)
    memory.tune()
    memory.erase(namespace="default")
    assert memory.stats()["judgements"] == 0
    assert memory.stats()["tuning"].keys() == {"default"}
    assert memory.untune()


# What is refused


def test_few_questions_are_refused_with_how_many_are_missing(memory: Memory, notes: Notes) -> None:
    asked = [f"what of {topic}?" for topic in TOPICS]
    said = [{"query": query, "id": id} for query in asked[: LEAST - 1] for id in list(notes[query])[:1]]
    said += [{"query": query, "id": id, "useful": False} for query in asked[LEAST:] for id in notes[query]]
    for call in (lambda: memory.tune(said), memory.tune):
        with pytest.raises(InvalidInput) as caught:
            call()
        assert caught.value.argument == "judgements"
    assert "0 questions" in caught.value.problem
    assert memory.stats()["judgements"] == 0
    with pytest.raises(InvalidInput, match=r"9 questions .* 10 are needed; say of 1 more"):
        memory.tune(said)


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ("text", "judgements"),
        ({"query": "q", "id": "x"}, "judgements"),
        (7, "judgements"),
        (["text"], "judgements[0]"),
        ([{"query": "q"}], "judgements[0]"),
        ([{"id": "x"}], "judgements[0]"),
        ([{"query": "q", "id": "x", "usefull": True}], "judgements[0]"),
        ([{"query": "q", "id": 7}], "judgements[0].id"),
        ([{"query": " ", "id": "x"}], "judgements[0].query"),
        ([{"query": "q\0", "id": "x"}], "judgements[0].query"),
        ([{"query": "q", "id": "x", "useful": "yes"}], "judgements[0].useful"),
        ([{"query": "q", "id": "x", "useful": 1}], "judgements[0].useful"),
    ],
)
def test_a_wrong_judgement_is_named_and_nothing_is_kept(memory: Memory, wrong: Any, argument: str) -> None:
    (id,) = memory.add("Something.").ids
    given = [*wrong, {"query": "q", "id": id}] if isinstance(wrong, list) else wrong
    with pytest.raises(InvalidInput) as caught:
        memory.tune(given)
    assert caught.value.argument == argument
    assert caught.value.mend
    assert memory.stats()["judgements"] == 0


def test_wrong_feedback_is_refused(memory: Memory) -> None:
    (id,) = memory.add("Something.").ids
    (elsewhere,) = memory.add("Something.", namespace="other").ids
    for query, useful, argument in (
        ("", True, "query"),
        (None, True, "query"),
        ("q", "no", "useful"),
        ("q", 0, "useful"),
    ):
        with pytest.raises(InvalidInput) as caught:
            memory.feedback(query, id, useful)  # type: ignore[arg-type]
        assert caught.value.argument == argument
    unknown: Any
    for unknown in ("no id", None, 7, elsewhere):
        with pytest.raises(NotFound):
            memory.feedback("q", unknown)
        with pytest.raises(NotFound):
            memory.feedback("q", unknown, None)
    with pytest.raises(NotFound):
        memory.tune([Judgement(query="q", id=id, useful=True), Judgement(query="q", id=elsewhere, useful=True)])
    assert memory.stats()["judgements"] == 0


# The adjustment itself


def made(weights: dict[str, float], bias: float = 0.0) -> Adjustment:
    now = datetime.now(UTC)
    return Adjustment(weights=weights, bias=bias, fitted_at=now, questions=10, judgements=20, before=0.5, after=0.6)


@given(
    st.lists(
        st.tuples(st.floats(-30, 30, width=32) | st.just(-np.inf), st.floats(-10, 10, width=32) | st.just(np.nan)),
        max_size=20,
    ),
    st.floats(-1e3, 1e3),
    st.floats(-100, 100),
)
def test_an_adjusted_score_is_a_score(rows: list[tuple[float, float]], weight: float, bias: float) -> None:
    logits = np.array([logit for logit, _ in rows], np.float32)
    before = logits.copy()
    features = {"keyword": np.array([value for _, value in rows], np.float32)}
    found = adjusted(logits, features, made({"keyword": weight, "of a later version": 9.0}, bias))
    assert found.dtype == np.float32
    assert np.array_equal(logits, before)
    assert np.all((probability(found) >= 0) & (probability(found) <= 1))
    alone = adjusted(logits, {"keyword": np.full(len(rows), np.nan, np.float32)}, made({"keyword": weight}, bias))
    assert np.array_equal(alone, adjusted(logits, {}, made({}, bias)))


def test_without_an_adjustment_logits_are_the_same_to_the_bit() -> None:
    logits = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    assert adjusted(logits, {}, None) is logits
    assert np.array_equal(adjusted(logits, {}, made({})), logits)
    keyword = {"keyword": np.array([0, 2, np.nan], np.float32)}
    assert adjusted(np.zeros(3, np.float32), keyword, made({"keyword": 2.0}, 0.5)).tolist() == [0.5, 4.5, 2.5]
