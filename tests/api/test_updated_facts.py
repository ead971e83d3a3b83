"""Of two statements about the same thing the newer comes first, and both are there with their dates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from memspan import Memory

Open = Callable[..., Memory]
QUESTION = "What is the daily call quota of the API key?"
OLD = "The daily call quota of the API key is 1,000 calls."
NEW = "The daily call quota of the API key has been increased to 1,200 calls."


def say(memory: Memory, day: int, text: str, **also: str) -> str:
    message = {"role": "user", "content": text, "time": datetime(2026, 3, day, tzinfo=UTC)} | also
    return memory.add([message], session=f"day {day}").ids[0]


def fill(memory: Memory) -> None:
    for day, text in enumerate(("The parser fails on empty lines.", "Lunch was soup.", "My train was late."), start=20):
        say(memory, day, text)


def first(memory: Memory, question: str = QUESTION, **how: object) -> list[str]:
    return [hit.text for hit in memory.search(question, **how)][:2]  # type: ignore[arg-type]


@pytest.mark.parametrize("days", [(1, 9), (9, 1)])
def test_the_later_number_comes_first_whichever_was_written_first(memory: Memory, days: tuple[int, int]) -> None:
    fill(memory)
    for day, text in sorted(zip(days, (OLD, NEW), strict=True), reverse=days[0] > days[1]):
        say(memory, day, text)
    expected = [NEW, OLD] if days == (1, 9) else [OLD, NEW]
    if days == (1, 9):
        assert first(memory) == expected
    hits = memory.search(QUESTION, k=2)
    assert {hit.text for hit in hits} == {OLD, NEW}
    assert {hit.occurred_at.day for hit in hits if hit.occurred_at} == {1, 9}


def test_the_later_word_for_word_statement_comes_first(memory: Memory) -> None:
    fill(memory)
    say(memory, 1, "The blue key hangs behind the door.")
    say(memory, 9, "The blue key hangs behind the stove.")
    assert first(memory, "Where does the blue key hang?")[0] == "The blue key hangs behind the stove."


def test_what_was_true_then_comes_first_where_only_that_is_known(opened: Open) -> None:
    memory = opened()
    fill(memory)
    say(memory, 1, OLD)
    before = datetime.now(UTC)
    say(memory, 9, NEW)
    assert first(memory)[0] == NEW
    assert first(memory, as_of=before)[0] == OLD


@pytest.mark.parametrize(
    ("earlier", "later", "question"),
    [
        ("Ana pays 900 for her flat.", "Ben now pays 1,100 for his flat.", "What does Ana pay for her flat?"),
        ("Room 4 has 2 lamps.", "Room 5 now has 3 lamps.", "How many lamps does room 4 have?"),
    ],
)
def test_a_later_statement_about_something_else_stays_below(
    memory: Memory, earlier: str, later: str, question: str
) -> None:
    fill(memory)
    say(memory, 1, earlier)
    say(memory, 9, later)
    assert first(memory, question)[0] == earlier


def test_who_says_something_else_updates_nobody(memory: Memory) -> None:
    fill(memory)
    say(memory, 1, OLD, name="Ana")
    say(memory, 9, "I heard that some API keys now have a quota of 9 calls.", name="Ben")
    assert first(memory)[0] == OLD


def test_the_parts_of_a_document_update_each_other_not(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "steps.md"
    file.write_text(
        "\n\n".join(f"## Step {n}\n\nSet the quota of the API key to {n}00 calls now." for n in range(1, 6))
    )
    memory.add_file(file)
    plain = [hit.id for hit in memory.search("the quota in step 1", recipe="default-updates")]
    assert len(plain) > 1
    assert [hit.id for hit in memory.search("the quota in step 1")] == plain


def test_without_that_part_the_likest_comes_first(memory: Memory) -> None:
    fill(memory)
    say(memory, 1, OLD)
    say(memory, 9, NEW)
    likest = memory.search(QUESTION, recipe="default-updates")[0]
    assert likest.text in (OLD, NEW)
    hits = memory.search(QUESTION)
    assert [hit.text for hit in hits][:2] == [NEW, OLD]
    assert hits[0].score >= hits[1].score
