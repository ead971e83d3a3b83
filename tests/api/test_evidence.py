"""What tells the best apart beside how they were found: who said it, what was asked before, what is around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memspan import Hit, InvalidInput, Memory
from memspan.testing import WordEncoder

Open = Callable[..., Memory]
SMALL_TALK = ("The weather is fine.", "Nice to hear.", "See you at the gym.", "The bus was late again.", "Good night.")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    """A memory that keeps a token activation for each word."""
    basis = WordEncoder().basis()
    monkeypatch.setattr("memspan.store.shipped", lambda id: basis)
    with Memory(tmp_path / "store", encoder=WordEncoder()) as memory:
        yield memory


def chat(memory: Memory, *turns: tuple[str, str], session: str = "chat") -> list[str]:
    said = [{"role": "user", "name": name, "content": text} for name, text in turns]
    return list(memory.add(said, session=session).ids)


def told(memory: Memory, query: str, recipe: str = "default") -> dict[str, dict[str, float]]:
    """By text, all that a search tells of it."""
    return {hit.text: dict(hit.channels or {}) for hit in memory.search(query, k=50, explain=True, recipe=recipe)}


def part(hits: list[Hit], text: str, name: str) -> float:
    return next(dict(hit.channels or {})[name] for hit in hits if hit.text == text)


def test_who_is_named_in_the_question_is_told_from_who_is_not(memory: Memory) -> None:
    chat(memory, ("Ana Lima", "I planted beans."), ("Ben", "I planted peas."), ("Ana Lima", "Beans grow fast."))
    found = told(memory, "What did Ana plant, beans or peas?")
    assert {text: parts["speaker"] for text, parts in found.items()} == {
        "I planted beans.": 1, "I planted peas.": 0, "Beans grow fast.": 1
    }  # fmt: skip
    for query in ("What did Ana and Ben plant?", "What was planted, beans or peas?"):
        assert {parts["speaker"] for parts in told(memory, query).values()} == {0}, "it tells nobody apart"


def test_what_the_user_said_is_told_from_what_others_said(memory: Memory) -> None:
    memory.add(
        [{"role": "user", "content": "My rent is high."}, {"role": "assistant", "content": "High rent is common."}],
        session="s",
    )
    assert {text: parts["user"] for text, parts in told(memory, "the high rent").items()} == {
        "My rent is high.": 1, "High rent is common.": 0
    }  # fmt: skip
    memory.add([{"role": "user", "content": "Rent is due."}], session="alone", user_id="ben")
    hits = memory.search("the rent", user_id="ben", explain=True)
    assert part(hits, "Rent is due.", "user") == 0, "where only one speaks it says nothing"
    memory.add("The rent is 900.", user_id="ben")
    hits = memory.search("the rent", user_id="ben", explain=True)
    assert part(hits, "Rent is due.", "user") == 0, "a note is nobody else"


def test_an_answer_is_known_by_the_question_before_it(kept: Memory) -> None:
    chat(
        kept,
        *(("Ana", text) for text in SMALL_TALK),
        ("Ana", "Which colour did you paint the boat?"),
        ("Ben", "Dark green, like the old one."),
        *(("Ana", text) for text in SMALL_TALK),
    )
    found = told(kept, "Which colour was the boat painted?")
    assert found["Which colour did you paint the boat?"]["asks"] == 1
    answer = found["Dark green, like the old one."]
    assert (answer["asks"], answer["asked"]) == (
        0,
        pytest.approx(found["Which colour did you paint the boat?"]["maxsim"]),
    )
    assert {parts["asked"] for text, parts in found.items() if text in SMALL_TALK} == {0}
    kept.add("Which colour?")
    assert told(kept, "Which colour?")["Which colour?"]["asks"] == 0, "a note is no turn"


def test_two_turns_before_and_after_lend_their_words(memory: Memory) -> None:
    texts = ["One.", "Two.", "The wedding is in Oslo.", "Really?", "Yes!", "Fine.", "Bye."]
    chat(memory, *(("Ana", text) for text in texts))
    found = told(memory, "When is the wedding in Oslo?")
    best = found["The wedding is in Oslo."]["keyword"]
    near = {text: parts["nearby"] for text, parts in found.items()}
    assert near["Yes!"] == near["Really?"] == near["One."] == pytest.approx(best)
    assert near.get("Fine.", 0) == 0


def test_what_is_like_the_best_echoes_them(memory: Memory) -> None:
    for text in ("Oak trees live long.", "Elm trees live long.", "Ash trees live long.", "Taxes are due in May."):
        memory.add(text)
    found = told(memory, "how long do trees live?")
    assert found["Oak trees live long."]["echo"] > 0.5
    assert found.get("Taxes are due in May.", {"echo": 0})["echo"] < 0.5


@pytest.mark.parametrize("name", ["window", "asked", "asks", "nearby", "speaker", "user", "echo"])
def test_each_can_be_left_out(kept: Memory, name: str) -> None:
    chat(kept, ("Ana", "Which boat?"), ("Ben", "The green boat."), ("Ana", "The boat leaks."))
    assert all(name in parts for parts in told(kept, "Ana's boat").values())
    assert not any(name in parts for parts in told(kept, "Ana's boat", f"default-{name}").values())


def test_fast_reads_no_tokens_and_ranks_nothing_anew(kept: Memory) -> None:
    chat(kept, ("Ana", "Which boat?"), ("Ben", "The green boat."))
    for parts in told(kept, "the boat", "fast").values():
        assert parts.keys() == {"semantic", "keyword", "margin", "next", "mentions", "named", "importance"}


def test_deep_answers_as_the_default_where_that_is_sure_and_looks_wider_where_it_is_not(memory: Memory) -> None:
    for number in range(300):
        memory.add(f"Entry {number} of the log speaks of pumps, valves and gauge {number * 7}.")
    memory.add("The lighthouse keeper's cat is called Orion.")
    sure = [memory.search("what is the lighthouse keeper's cat called?", recipe=name) for name in ("default", "deep")]
    assert sure[0][0].score > 0.5
    assert sure[0] == sure[1]
    few, many = (memory.search("pumps and valves", k=10, recipe=name) for name in ("default", "deep"))
    assert len(few) == len(many) == 10


def test_a_part_that_a_recipe_lacks_is_told(memory: Memory) -> None:
    with pytest.raises(InvalidInput, match="no part of fast") as told:
        memory.search("anything", recipe="fast-echo")
    assert "next" in told.value.mend
