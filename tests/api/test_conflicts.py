"""What may have taken the place of what: proposed with reasons, accepted or rejected, and taken back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from memspan import Conflict, EncoderMismatch, InvalidInput, Memory, NotFound
from memspan.testing import WordEncoder

QUOTA = "The daily call quota of the API key is 1,000 calls."
RAISED = "The daily call quota of the API key has been increased to 1,200 calls."


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory(":memory:", encoder=WordEncoder()) as opened:
        yield opened


def add(memory: Memory, *texts: str, **of: str) -> list[str]:
    return [memory.add(text, occurred_at=f"2024-0{month}-01", **of).ids[0] for month, text in enumerate(texts, 1)]  # type: ignore[arg-type]


def found(memory: Memory, **asked: object) -> list[tuple[str, str]]:
    return [(pair.older.id, pair.newer.id) for pair in memory.conflicts(**asked)]  # type: ignore[arg-type]


# What is proposed


@pytest.mark.parametrize(
    ("older", "newer", "reason"),
    [
        (QUOTA, RAISED, "number"),
        ("I have finished ten coin toss problems.", "I have now finished 15 coin toss problems.", "number"),
        ("The budget for the move is $3,000.", "I adjusted the budget for the move to $3,500.", "number"),
        ("The sprint review is on Tuesday.", "The sprint review is on Thursday now.", "date"),
        ("The deadline of the first sprint is April 1, 2024.", "The deadline of the first sprint is April 5.", "date"),
        ("My sister Ana lives in Rome.", "My sister Ana lives in Lisbon.", "name"),
        ("I have written Flask routes for this project.", "I have never written Flask routes before.", "negation"),
        ("I drink green tea at work.", "I no longer drink green tea at work.", "negation"),
        ("I love spicy ramen noodles.", "I hate spicy ramen noodles now.", "preference"),
        ("I prefer tea with my breakfast.", "I prefer coffee with my breakfast.", "preference"),
        ("The blue key hangs behind the door.", "The blue key hangs behind the stove.", "wording"),
    ],
)
def test_a_later_statement_about_the_same_is_proposed_with_its_reason(
    memory: Memory, older: str, newer: str, reason: str
) -> None:
    ids = add(memory, older, newer)
    (pair,) = memory.conflicts()
    assert [pair.older.id, pair.newer.id] == ids
    assert reason in pair.reasons
    assert 0.5 <= pair.score <= 1
    assert pair.newer.text == newer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (QUOTA, QUOTA.replace("quota", "limit")[:-1] + ", still 1,000 calls."),
        ("Ana has two cats in her garden.", "The train to Porto takes 3 hours."),
        ("Is the sprint review on Tuesday?", "Is the sprint review on Thursday?"),
        ("I have never been to Las Vegas.", "I never went to the Grand Canyon near Las Vegas."),
        ("Room 4 has been painted.", "The fourth of May was sunny."),
        ("const quota = limit(1000);", "const quota = limit(1200);"),
    ],
)
def test_what_says_nothing_else_of_the_same_is_not_proposed(memory: Memory, one: str, other: str) -> None:
    add(memory, one, other)
    assert memory.conflicts() == []


def test_a_buried_clause_is_found_in_a_long_message(memory: Memory) -> None:
    long = "I'm trying to update my settings, but the layout of the page is broken on small screens, and by the way "
    ids = add(memory, f"Lunch was soup. {QUOTA}", f"{long}{RAISED}")
    assert found(memory) == [(ids[0], ids[1])]


def test_the_later_is_what_happened_later_whichever_was_written_first(memory: Memory) -> None:
    (newer,) = memory.add(RAISED, occurred_at="2024-05-01").ids
    (older,) = memory.add(QUOTA, occurred_at="2024-01-01").ids
    assert found(memory) == [(older, newer)]


def test_nothing_is_proposed_across_scopes_and_speakers(memory: Memory) -> None:
    for scope in ({"user_id": "ana"}, {"user_id": "ben"}, {"agent_id": "bot"}, {"run_id": "r"}, {"namespace": "x"}):
        add(memory, QUOTA, **scope)
    add(memory, RAISED, user_id="cai")
    memory.add([{"role": "user", "name": "Dan", "content": RAISED}], user_id="ana")
    memory.add([{"role": "assistant", "content": RAISED}], user_id="ben")
    assert memory.conflicts(threshold=0) == []
    ids = add(memory, "Lunch was soup.", RAISED, user_id="ana")
    assert [newer for _, newer in found(memory)] == [ids[1]]
    assert found(memory, user_id="ben") == []
    assert len(found(memory, user_id="ana", filters={"text": {"contains": "quota"}})) == 1
    assert found(memory, filters={"text": {"contains": "increased"}}) == []


def test_sessions_of_one_user_are_compared_and_parts_of_one_document_are_not(memory: Memory, tmp_path: Path) -> None:
    (older,) = memory.add([{"role": "user", "content": QUOTA}], session="monday", user_id="ana").ids
    (newer,) = memory.add([{"role": "user", "content": RAISED}], session="friday", user_id="ana").ids
    assert found(memory) == [(older, newer)]
    steps = "\n\n".join(f"## Step {n}\n\nSet the quota of the API key to {n}00 calls now." for n in range(1, 6))
    (tmp_path / "steps.md").write_text(steps)
    memory.add_file(tmp_path / "steps.md")
    assert found(memory) == [(older, newer)]


def test_what_has_ended_takes_no_part(memory: Memory) -> None:
    older, newer = add(memory, QUOTA, RAISED)
    memory.update(older, valid_to="2024-01-02")
    assert memory.conflicts(threshold=0) == []
    memory.update(older, valid_to=None)
    memory.delete(newer)
    assert memory.conflicts(threshold=0) == []


def test_proposals_come_best_first_and_the_threshold_and_limit_cut_them(memory: Memory) -> None:
    add(memory, QUOTA, RAISED)
    add(memory, "My sister Ana lives in Rome.", "My sister Ana lives in Lisbon.")
    scores = [pair.score for pair in memory.conflicts(threshold=0)]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    assert len(memory.conflicts(threshold=(scores[0] + scores[1]) / 2)) == 1
    assert [pair.score for pair in memory.conflicts(limit=1)] == scores[:1]
    with pytest.raises(InvalidInput, match="threshold"):
        memory.conflicts(threshold=2)


def test_only_what_was_replaced_lately_is_looked_for_where_that_is_asked(memory: Memory) -> None:
    first = add(memory, QUOTA, RAISED)
    last = add(memory, "My sister Ana lives in Rome.", "My sister Ana lives in Lisbon.")
    assert found(memory, recent=1) == [tuple(last)]
    assert sorted(found(memory, recent=3)) == sorted([tuple(first), tuple(last)])
    assert sorted(found(memory, recent=100)) == sorted(found(memory))


def test_what_is_nearly_the_same_is_told_as_said_again_below_all_else(memory: Memory) -> None:
    add(memory, "The spare key hangs behind the blue door.", "Behind the blue door hangs the spare key.")
    assert memory.conflicts() == []
    (pair,) = memory.conflicts(threshold=0)
    assert (pair.reasons, pair.score <= 0.3) == (("said again",), True)


def test_without_an_encoder_it_is_told_why_nothing_is_compared() -> None:
    with Memory(":memory:", encoder=None) as memory, pytest.raises(EncoderMismatch, match="meaning"):
        memory.conflicts()


# Decisions


def test_accepting_supersedes_and_undoing_that_proposes_it_again(memory: Memory) -> None:
    older, newer = add(memory, QUOTA, RAISED)
    done = memory.accept(older, newer)
    assert (done.verb, done.segments) == ("accept", 2)
    assert memory.conflicts(threshold=0) == []
    assert [segment.id for segment in memory.get_all()] == [newer]
    assert [near.id for near in memory.neighbors(newer, "supersedes")] == [older]
    assert [hit.id for hit in memory.search("call quota", valid_at="2024-01-15")] == [older]
    undone = memory.undo(done.id)
    assert found(memory) == [(older, newer)]
    memory.undo(undone.id)
    assert found(memory) == []
    assert memory.verify()["ok"]


def test_a_rejected_pair_is_not_proposed_again_until_that_is_undone(memory: Memory) -> None:
    older, newer = add(memory, QUOTA, RAISED)
    done = memory.reject(older, newer)
    assert (done.verb, memory.operations(newer, limit=1)[0].id) == ("reject", done.id)
    assert memory.conflicts(threshold=0) == []
    assert {segment.id for segment in memory.get_all()} == {older, newer}
    undone = memory.undo(done.id)
    assert found(memory) == [(older, newer)]
    memory.undo(undone.id)
    assert found(memory) == []
    memory.update(newer, importance=0.9)
    assert found(memory) == []
    memory.update(newer, RAISED.replace("1,200", "1,500"))  # that is another statement
    assert found(memory) == [(older, newer)]
    assert memory.verify()["ok"]


def test_going_back_in_time_takes_back_verdicts_too(memory: Memory) -> None:
    older, newer = add(memory, QUOTA, RAISED)
    before = memory.operations(limit=1)[0].at
    memory.reject(older, newer)
    memory.restore(before)
    assert found(memory) == [(older, newer)]


def test_of_two_said_at_the_same_moment_the_later_word_counts(memory: Memory) -> None:
    say = [QUOTA, RAISED, RAISED.replace("1,200", "1,500")]
    ids = [memory.add(text, occurred_at="2024-01-01").ids[0] for text in say]
    memory.accept(ids[0], ids[1])
    memory.accept(ids[1], ids[2])
    assert [segment.id for segment in memory.get_all()] == [ids[2]]


def test_what_cannot_be_decided_is_refused_and_nothing_is_written(memory: Memory) -> None:
    older, newer = add(memory, QUOTA, RAISED)
    operations = len(memory.operations())
    for decide in (memory.accept, memory.reject):
        with pytest.raises(InvalidInput, match="new"):
            decide(older, older)
        with pytest.raises(NotFound):
            decide(older, "00000000-0000-7000-8000-000000000000")
        with pytest.raises(NotFound):
            decide(older, newer, namespace="other")
    assert len(memory.operations()) == operations


def test_erasing_takes_the_verdict_along(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder=WordEncoder()) as memory:
        older, newer = add(memory, QUOTA, RAISED)
        memory.reject(older, newer)
        memory.erase(older)
        assert memory.verify()["ok"]
        with sqlite3.connect(tmp_path / "store" / "ledger.db") as connection:
            assert connection.execute("SELECT count(*) FROM verdicts").fetchone() == (0,)
        connection.close()


# A policy


def test_a_policy_tells_first_and_is_one_operation_when_it_acts(memory: Memory) -> None:
    older, newer = add(memory, QUOTA, RAISED)
    rome, lisbon = add(memory, "My sister Ana lives in Rome.", "My sister Ana lives in Lisbon.")
    told = memory.resolve(threshold=0.5)
    assert told.dry_run
    assert {(pair.older.id, pair.newer.id) for pair in told.accepted} == {(older, newer), (rome, lisbon)}
    assert len(memory.get_all()) == 4
    done = memory.resolve(threshold=0.5, dry_run=False)
    assert done.accepted == told.accepted
    assert {segment.id for segment in memory.get_all()} == {newer, lisbon}
    assert memory.operations(limit=1)[0].id == done.operation
    memory.undo(done.operation or "")
    assert len(found(memory)) == 2
    assert memory.verify()["ok"]


def test_a_policy_of_ones_own_accepts_rejects_and_leaves(memory: Memory) -> None:
    older, newer = add(memory, QUOTA, RAISED)
    rome, lisbon = add(memory, "My sister Ana lives in Rome.", "My sister Ana lives in Lisbon.")
    door, stove = add(memory, "The blue key hangs behind the door.", "The blue key hangs behind the stove.")

    def policy(pair: Conflict) -> bool | None:
        return None if "key hangs" in pair.newer.text else "number" in pair.reasons

    done = memory.resolve(policy, threshold=0.5, dry_run=False)
    assert [pair.older.id for pair in done.accepted] == [older]
    assert [pair.older.id for pair in done.rejected] == [rome]
    assert found(memory) == [(door, stove)]
    memory.undo(done.operation or "")
    assert set(found(memory)) == {(older, newer), (rome, lisbon), (door, stove)}
    with pytest.raises(InvalidInput, match="policy"):
        memory.resolve("older")  # type: ignore[arg-type]


def test_in_a_chain_of_updates_the_last_stands(memory: Memory) -> None:
    ids = add(memory, QUOTA, RAISED, RAISED.replace("1,200", "1,500"))
    done = memory.resolve(threshold=0.5, dry_run=False)
    assert len(done.accepted) == 2
    assert [segment.id for segment in memory.get_all()] == [ids[2]]
    memory.undo(done.operation or "")
    assert len(memory.get_all()) == 3


# Out and in


@pytest.mark.parametrize("suffix", ["jsonl", "memspan", "parquet"])
def test_verdicts_travel_in_archives(tmp_path: Path, suffix: str) -> None:
    with Memory(":memory:", encoder=WordEncoder()) as memory, Memory(":memory:", encoder=WordEncoder()) as other:
        add(memory, QUOTA, RAISED)
        memory.reject(*found(memory)[0])
        memory.accept(*add(memory, "My sister Ana lives in Rome.", "My sister Ana lives in Lisbon."))
        memory.export_to(tmp_path / f"out.{suffix}")
        memory.export_to(tmp_path / "one.jsonl")
        other.import_from(tmp_path / f"out.{suffix}")
        assert other.conflicts(threshold=0) == memory.conflicts(threshold=0) == []
        other.export_to(tmp_path / "two.jsonl")
        assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
        assert (tmp_path / "one.jsonl").read_text().count('"verdict"') == 2
