"""What was said again makes way for its last telling, sessions are summed up, and all of it can be taken back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memspan import BudgetTooSmall, InvalidInput, Memory
from memspan.segmenting import WordTokenizer

FIRST = "Ana moved to Lisbon in May 2024."


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory(":memory:", encoder="hash") as opened:
        yield opened


def told(memory: Memory, *texts: str, **about: str) -> list[str]:
    """What is still in sight when each text was said in a session of its own, and the memory slept."""
    for number, text in enumerate(texts):
        memory.add(text, session=f"session {number}", **about)  # type: ignore[arg-type]
    memory.sleep()
    return [segment.text for segment in memory.get_all()]


@pytest.mark.parametrize(
    "again",
    [
        "ana moved to lisbon in may 2024",
        "Well, Ana really moved to Lisbon, in May 2024!",
        "In May 2024 Ana moved to Lisbon.",
        "Ana moved to Lisbon in May 2024. It has been raining ever since.",
        "Ana moved to Lisbon in May 2024, where the river is wide.",
    ],
)
def test_a_statement_makes_way_for_a_later_one_that_says_all_of_it(memory: Memory, again: str) -> None:
    assert told(memory, FIRST, again) == [again]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I like green tea.", "I don't like green tea."),
        ("The train leaves at 5 pm.", "The train leaves at 6 pm."),
        ("The train leaves at five.", "The train leaves at six."),
        (FIRST, "Ben moved to Lisbon in May 2024."),
        (FIRST, "Ana moved to Lisbon in May 2025."),
        (FIRST, "Ana moved to Lisbon in May 2024?"),
        (FIRST, "Ana moved to Lisbon in May 2024, but she came back."),
        (FIRST, "If Ana moved to Lisbon in May 2024, we would have heard of it."),
        ("Ana paid Ben for the boat.", "Ben paid Ana for the boat."),
        ("I am happy with the boat.", "I am not very happy with the boat."),
        ("I have a few friends in Rome.", "I have few friends in Rome."),
        ("The price went up 5% this spring.", "The price went up 5$ this spring."),
        ("Ana works in marketing and loves singing.", "Ana works in marketing and loves signing."),
        ("if (a != b) return total;", "if (a == b) return total;"),
    ],
)
def test_what_says_something_else_stays(memory: Memory, one: str, other: str) -> None:
    assert told(memory, one, other) == [one, other]


def test_the_same_word_of_time_on_another_day_stays(memory: Memory) -> None:
    text = "Ran ten miles with Ana yesterday."
    for day in ("2026-03-01T10:00", "2026-03-02T10:00", "2026-03-02T18:00"):
        memory.add(text, occurred_at=day)
    assert memory.sleep().merged == 1
    assert [str(segment.time.day) for segment in memory.get_all()] == ["1", "2"]


def test_turns_that_need_what_was_said_before_stay(memory: Memory) -> None:
    said = ["Yeah!", "What is your favourite dish in Lisbon?", "I love that restaurant by the river."]
    for session in ("a", "b"):
        memory.add([{"role": "user", "content": text} for text in said], session=session)
    assert memory.sleep().merged == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"user_id": "ana"}, {"user_id": "ben"}),
        ({"agent_id": "one"}, {"agent_id": "two"}),
        ({"metadata": {"project": "one"}}, {"metadata": {"project": "two"}}),
        ({"category": "Work"}, {"category": "Home"}),
    ],
)
def test_the_same_words_about_something_else_stay(
    memory: Memory, one: Mapping[str, object], other: Mapping[str, object]
) -> None:
    for number, about in enumerate((one, other)):
        memory.add("Deploys happen on Fridays at noon.", session=str(number), **about)  # type: ignore[arg-type]
    assert memory.sleep().merged == 0


def test_a_mistyped_word_is_known_by_the_others(memory: Memory) -> None:
    right = "Ana keeps the accordion in the northern cabin."
    others = [f"The accordion of {name} is for sale." for name in ("Ben", "Cleo", "Dora")]
    memory.add(right.replace("accordion", "acocrdion"))
    for text in (*others, right):
        memory.add(text)
    memory.sleep()
    assert [segment.text for segment in memory.get_all()] == [*others, right]


def test_what_was_said_before_is_listed_with_its_times_and_sessions(memory: Memory) -> None:
    for number, day in enumerate(("2026-03-01", "2026-03-05", "2026-03-09")):
        memory.add(FIRST, session=f"session {number}", occurred_at=day)
    slept = memory.sleep()
    (kept,) = memory.get_all()
    assert (slept.merged, slept.kept) == (2, 1)
    assert [(row.session, row.time.day, row.state) for row in memory.repetitions(kept.id)] == [
        ("session 0", 1, "merged"),
        ("session 1", 5, "merged"),
    ]
    assert len(memory.search("Ana Lisbon")) == 1
    assert len(memory.search("Ana Lisbon", include_superseded=True)) == 3


def test_what_made_way_in_an_earlier_sleep_is_listed_too(memory: Memory) -> None:
    for number in range(3):
        memory.add(FIRST, session=str(number))
        memory.sleep()
    (kept,) = memory.get_all()
    assert [row.session for row in memory.repetitions(kept.id)] == ["0", "1"]


def test_a_dry_run_tells_the_same_and_changes_nothing(memory: Memory) -> None:
    memory.add(FIRST, session="a")
    memory.add(FIRST, session="b")
    would = memory.sleep(dry_run=True)
    assert (would.operation, len(memory.get_all())) == (None, 2)
    did = memory.sleep()
    assert (would.duplicates, would.summaries) == (did.duplicates, did.summaries)
    with pytest.raises(InvalidInput, match="dry_run"):
        memory.sleep(dry_run="no")  # type: ignore[arg-type]


words = st.sampled_from("Ana Ben likes tea coffee not the really 5 6 pm in May , . ! ?".split())  # noqa: SIM905
statements = st.lists(words, min_size=3, max_size=8).map(" ".join)


@settings(max_examples=10, deadline=None)
@given(st.lists(statements, min_size=1, max_size=12))
def test_a_second_sleep_does_nothing_and_undo_brings_everything_back(said: list[str]) -> None:
    with Memory(":memory:", encoder="hash") as memory:
        for number, text in enumerate(said):
            memory.add(text, session=str(number % 3))
        before = {(segment.id, segment.text, segment.state) for segment in memory.get_all()}
        slept = memory.sleep()
        seen = {segment.id: segment for segment in memory.get_all()}
        assert all(kept in seen and merged not in seen for merged, kept in slept.duplicates)
        assert len(seen) + slept.merged == len(before)
        again = memory.sleep()
        assert (again.merged, again.summaries, again.operation) == (0, 0, None)
        if slept.operation is not None:
            memory.undo(slept.operation)
        assert {(segment.id, segment.text, segment.state) for segment in memory.get_all()} == before
        assert memory.verify()["ok"]


KILLED = """
import os, signal, sys
from memspan import Memory
from memspan import consolidating
consolidating.TOGETHER = 1
def die(done, total, what):
    if (what, done) == ("merging", 2):
        os.kill(os.getpid(), signal.SIGKILL)
with Memory(sys.argv[1], encoder="hash") as memory:
    memory.sleep(progress=die)
"""


def test_a_sleep_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        for number in range(5):
            memory.add(FIRST, session=str(number))
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "store"], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    with Memory(tmp_path / "store") as memory:
        assert len(memory.get_all()) == 3
        assert memory.sleep().merged == 2
        (kept,) = memory.get_all()
        assert len(memory.repetitions(kept.id)) == 4
        assert memory.verify()["ok"]


def test_undo_takes_back_all_of_a_sleep_that_took_several_transactions(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.consolidating.TOGETHER", 1)
    for number in range(4):
        memory.add(FIRST, session=str(number))
    slept = memory.sleep()
    assert (slept.merged, len(memory.get_all())) == (3, 1)
    assert slept.operation is not None
    memory.undo(slept.operation)
    assert len(memory.get_all()) == 4
    assert memory.sleep().merged == 3


# Summaries

TALK = [
    ("Ana", "Hi! How are you?"),
    ("Ben", "Good, thanks. I sold the sailing boat to Cleo for nine thousand euros."),
    ("Ana", "Wow, great!"),
    ("Ben", "I want to open a bakery in Porto with the money. Rye bread, mostly."),
    ("Ana", "That sounds good."),
]


def talk(memory: Memory, session: str, day: str = "2026-03-01") -> None:
    turns = [{"role": "user", "name": name, "content": text} for name, text in TALK]
    memory.add(turns, session=session, occurred_at=day)


def test_a_summary_holds_what_a_session_is_about_in_its_own_sentences(memory: Memory) -> None:
    talk(memory, "plans")
    summary = memory.summary(session="plans", budget=40, tokenizer=WordTokenizer())
    assert "I sold the sailing boat to Cleo for nine thousand euros." in summary.text
    assert "How are you?" not in summary.text
    assert summary.tokens <= 40
    assert (summary.segments, summary.sessions) == (5, 1)
    for quote in summary.citations:
        assert memory.get(quote.id).text[quote.start : quote.end] in summary.text


def test_a_running_summary_is_the_same_before_and_after_sleep_and_follows_what_comes(memory: Memory) -> None:
    talk(memory, "plans")
    memory.add("I adopted a grey parrot named Lorenzo.", session="pets", occurred_at="2026-04-01")
    awake = memory.summary()
    assert memory.sleep().summaries == 2
    assert memory.summary() == awake
    assert awake.text.startswith("1 March 2026\n")
    assert "1 April 2026\nI adopted a grey parrot named Lorenzo." in awake.text
    memory.add("Lorenzo learned to whistle the anthem.", session="pets", occurred_at="2026-04-02")
    assert "whistle" in memory.summary().text
    assert memory.sleep().summaries == 1


def test_a_summary_never_tells_what_was_erased(memory: Memory) -> None:
    talk(memory, "plans")
    talk(memory, "again", "2026-03-02")
    memory.sleep()
    memory.erase([segment.id for segment in memory.get_all() if "boat" in segment.text])
    assert "boat" not in memory.summary().text


def test_an_empty_scope_has_an_empty_summary_and_too_small_a_budget_is_refused(memory: Memory) -> None:
    assert (memory.summary().text, memory.summary().segments) == ("", 0)
    talk(memory, "plans")
    with pytest.raises(BudgetTooSmall):
        memory.summary(budget=1)


@settings(max_examples=10, deadline=None)
@given(st.lists(statements, min_size=1, max_size=8), st.integers(12, 60))
def test_a_summary_keeps_to_its_budget(said: list[str], budget: int) -> None:
    with Memory(":memory:", encoder=None) as memory:
        for number, text in enumerate(said):
            memory.add(text, session=str(number % 2))
        summary = memory.summary(budget=budget)
        assert summary.tokens == WordTokenizer().count([summary.text])[0] <= budget
