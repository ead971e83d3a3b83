"""Searches with a reranker, through the public API."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import InvalidInput, Memory, ModelNotFound, cli
from memspan.dsm import DynamicSegmentedMemory
from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder
from memspan.recipes import RECIPES, RERANKED
from memspan.testing import WordEncoder

from . import tiny

PEOPLE = [f"The {thing} of Ana stands in Lisbon." for thing in ("house", "boat", "piano", "garden", "tower", "oven")]


class Judge:
    """A reranker that knows what it likes; it keeps what it was shown. ``score`` may raise."""

    id = "judge"

    def __init__(self, score: Callable[[str], float]) -> None:
        self.score = score
        self.seen: list[str] = []
        self.asked: list[str] = []

    def rerank(self, query: str, texts: Sequence[str]) -> Any:
        self.asked.append(query)
        self.seen += texts
        return np.array([self.score(text) for text in texts], np.float32)


class Broken:
    """A reranker that answers what it must not, or raises."""

    id = "broken"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def rerank(self, query: str, texts: Sequence[str]) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.make(tmp_path / "model")


@pytest.fixture
def remember() -> Iterator[Callable[..., Memory]]:
    """Opens memories of PEOPLE, or of other texts, in RAM, and closes them at the end."""
    every: list[Memory] = []

    def opened(reranker: object, *texts: str) -> Memory:
        every.append(Memory(":memory:", encoder="hash", reranker=reranker))  # type: ignore[arg-type]
        for text in texts or PEOPLE:
            every[-1].add(text)
        return every[-1]

    yield opened
    for each in every:
        each.close()


Remember = Callable[..., Memory]


def order(memory: Memory, query: str = "what of Ana stands in Lisbon?", **options: Any) -> list[str]:
    return [hit.text for hit in memory.search(query, **options)]


# ------------------------------------------------------------------------------------------------------------ the order


def test_hits_come_in_the_order_of_the_reranker(remember: Remember) -> None:
    for wanted in (PEOPLE, PEOPLE[::-1], PEOPLE[3:] + PEOPLE[:3]):
        judge = Judge(lambda text, wanted=wanted: 0.95 - 0.18 * wanted.index(text))  # type: ignore[misc]
        assert order(remember(judge)) == wanted


def test_a_real_cross_encoder_finds_what_words_and_vectors_rank_lower(remember: Remember, folder: Path) -> None:
    texts = ["Ana Ana Ana: where, where does she go?", "Ana: I live in Lisbon, where it is warm.", "The sonata."]
    question = "Where does Ana live?"
    with_it, without = remember(f"onnx:{folder}", *texts), remember(None, *texts)
    scores = {text: tiny.by_hand(question, text) for text in texts}
    hits = with_it.search(question, explain=True)
    assert [hit.channels["rerank"] for hit in hits if hit.channels] == pytest.approx(
        [scores[hit.text] for hit in hits], abs=1e-5
    )
    ranks = [scores[hit.text] for hit in hits]
    assert ranks == sorted(ranks, reverse=True)
    assert all("rerank" not in (hit.channels or {}) for hit in without.search(question, explain=True))


def test_between_like_scores_of_the_reranker_the_rest_decides(remember: Remember) -> None:
    assert order(remember(Judge(lambda text: 0.5))) == order(remember(None))


@given(st.lists(st.floats(0, 1, width=32), min_size=50, max_size=50), st.floats(0, 1))
def test_scores_are_scores_whatever_the_reranker_says(given: list[float], threshold: float) -> None:
    texts = [f"Ana counts sheep number {number} in Lisbon {'again ' * (number % 5)}" for number in range(50)]
    judge = Judge(lambda text: given[int(text.split()[4])])
    with Memory(":memory:", encoder="hash", reranker=judge) as memory:
        memory.add([{"role": "user", "content": text} for text in texts])
        hits = memory.search("sheep of Ana in Lisbon", k=50, explain=True)
        plain = order(memory, "sheep of Ana in Lisbon", k=50, recipe="default-rerank")
        over = [hit.text for hit in memory.search("sheep of Ana in Lisbon", k=50, threshold=threshold)]
    scores = [hit.score for hit in hits]
    assert len(hits) == len(texts)
    assert all(0 <= score <= 1 for score in scores)
    assert scores == sorted(scores, reverse=True)
    assert over == [hit.text for hit in hits if hit.score >= threshold]
    read = ["rerank" in (hit.channels or {}) for hit in hits]
    assert read == [True] * RERANKED + [False] * (len(texts) - RERANKED)
    assert [hit.text for hit in hits[RERANKED:]] == plain[RERANKED:]


def test_rows_it_did_not_read_are_not_lifted_by_what_it_likes(remember: Remember) -> None:
    texts = [f"Ana counts sheep number {number} in Lisbon" for number in range(50)]
    query = {"query": "sheep of Ana in Lisbon", "k": 50}
    plain = {hit.text: hit.score for hit in remember(None, *texts).search(**query)}
    liked = remember(Judge(lambda text: 1.0), *texts).search(**query)
    disliked = remember(Judge(lambda text: 0.0), *texts).search(**query)
    assert [hit.score for hit in liked[RERANKED:]] == pytest.approx([plain[hit.text] for hit in liked[RERANKED:]])
    assert max(hit.score for hit in disliked) < min(plain.values())


def test_a_recipe_can_do_without(remember: Remember) -> None:
    judge = Judge(lambda text: 0.95 - 0.18 * PEOPLE.index(text))
    memory, plain = remember(judge), remember(None)
    for recipe in RECIPES:
        assert order(memory, recipe=f"{recipe}-rerank") == order(plain, recipe=recipe)
        assert order(memory, recipe=recipe)[0] == PEOPLE[0]
    assert memory.stats()["channels"] == [*plain.stats()["channels"], "rerank"]
    assert order(plain, recipe="default-rerank") == order(plain)


def test_a_context_is_packed_from_what_it_likes(remember: Remember) -> None:
    texts = [f"{text} {'And it is very old. ' * 8}" for text in PEOPLE]
    memory = remember(Judge(lambda text: 0.99 if "piano" in text else 0.01), *texts)
    packed = memory.context("what of Ana stands in Lisbon?", budget=130, order="score")
    assert not packed.complete
    assert "piano" in packed.text.split("[2]")[0]


def test_it_goes_on_after_the_store_was_encoded_anew(remember: Remember) -> None:
    judge = Judge(lambda text: 0.95 - 0.18 * PEOPLE.index(text))
    memory = remember(judge)
    memory.reencode(encoder=WordEncoder())
    assert order(memory) == PEOPLE


# --------------------------------------------------------------------------------------------------------- what it sees


class Listening(HashEncoder):
    """Keeps what it was asked to encode."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: set[str] = set()

    def encode(self, texts: Sequence[str]) -> Encoded:
        self.heard |= set(texts)
        return super().encode(texts)


def test_it_reads_what_the_encoder_reads(tmp_path: Path) -> None:
    judge, encoder = Judge(lambda text: 0.5), Listening()
    paragraphs = "\n\n".join("The tomatoes want water. " * 90 for _ in range(3))
    (tmp_path / "notes.md").write_text(f"# Garden\n\n{paragraphs}\n")
    with Memory(":memory:", encoder=encoder, reranker=judge) as memory:
        memory.add([{"role": "user", "name": "Ana", "content": "I moved to Lisbon."}])
        memory.add_file(tmp_path / "notes.md")
        memory.search("Lisbon tomatoes water")
    assert judge.asked == ["Lisbon tomatoes water"]
    assert "Ana: I moved to Lisbon." in judge.seen
    assert any(text.startswith("Garden\n") for text in judge.seen)
    assert set(judge.seen) == encoder.heard - set(judge.asked)


def test_it_never_sees_what_the_search_may_not(remember: Remember) -> None:
    judge = Judge(lambda text: 0.5)
    memory = remember(judge, "Ana likes tea.")
    memory.add("Ana of another tenant likes rum.", namespace="other")
    memory.add("Ana says to Ben she likes milk.", user_id="ben")
    memory.add("Ana said to Eve she likes wine.", user_id="eve", session="s")
    memory.add("Ana said once she likes gin.", metadata={"topic": "past"})
    gone = memory.add("Ana is said to like beer.").ids[0]
    memory.erase(gone)
    changed = memory.add("Ana hated ale.").ids[0]
    memory.update(changed, "Ana loves ale.")

    def shown(**options: Any) -> set[str]:
        judge.seen.clear()
        memory.search("what does Ana like?", k=50, **options)
        return {text.rstrip(".").split()[-1] for text in judge.seen}

    assert shown() == {"tea", "milk", "wine", "gin", "ale"}
    assert "Ana hated ale." not in judge.seen
    assert shown(namespace="other") == {"rum"}
    assert shown(user_id="ben") == {"milk"}
    assert shown(user_id="eve", session="s") == {"wine"}
    assert shown(filters={"topic": "past"}) == {"gin"}
    assert shown(user_id="nobody") == set()


def test_as_of_a_time_it_sees_what_was_said_then(remember: Remember) -> None:
    judge = Judge(lambda text: 0.5)
    memory = remember(judge, "Ana likes tea.")
    id = memory.search("tea")[0].id
    then = memory.get(id).recorded_at
    memory.update(id, "Ana likes coffee.")
    memory.add("Ana likes cake.")
    judge.seen.clear()
    assert order(memory, "what does Ana like?", as_of=then) == ["Ana likes tea."]
    assert judge.seen == ["Ana likes tea."]


def test_an_empty_store_asks_it_nothing(remember: Remember) -> None:
    judge = Judge(lambda text: 0.5)
    with Memory(":memory:", encoder="hash", reranker=judge) as memory:
        assert memory.search("anything") == []
    assert judge.asked == []


# ------------------------------------------------------------------------------------------------------- when it fails


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
        (np.zeros(3, np.float32), "shape [3] for 6 texts"),
        (np.full(6, np.nan, np.float32), "not finite"),
        (np.linspace(-9, 9, 6), "from -9 to 9"),
        (None, "shape [] for 6 texts"),
        ("good", "no row of numbers"),
    ],
)
def test_a_reranker_that_fails_costs_its_order_alone_and_is_told(
    remember: Remember, caplog: pytest.LogCaptureFixture, answer: object, told: str
) -> None:
    broken = Broken(answer)
    memory, plain = remember(broken), remember(None)
    assert memory.stats()["reranker"] == {"id": "broken", "failure": None}
    with caplog.at_level(logging.WARNING, "memspan"):
        for _ in range(3):
            hits = memory.search("what of Ana stands in Lisbon?", explain=True)
            assert [hit.text for hit in hits] == order(plain)
            assert all("rerank" not in (hit.channels or {}) for hit in hits)
    assert told in memory.stats()["reranker"]["failure"]
    warned = [record.message for record in caplog.records]
    assert len(warned) == 1
    assert "without the reranker" in warned[0]
    assert told in warned[0]
    broken.answer = np.full(6, 0.5, np.float32)
    memory.search("what of Ana stands in Lisbon?")
    assert memory.stats()["reranker"]["failure"] is None


def test_without_one_nothing_is_told_of_any(remember: Remember) -> None:
    assert remember(None).stats()["reranker"] is None


# --------------------------------------------------------------------------------------------------------- choosing it


@pytest.mark.parametrize(
    ("spec", "kind"), [("bert", InvalidInput), (7, InvalidInput), ("onnx:/nowhere/at/all", ModelNotFound)]
)
def test_one_that_cannot_be_made_leaves_no_empty_store(tmp_path: Path, spec: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="reranker"):
        Memory(tmp_path / "store", encoder="hash", reranker=spec)
    assert not (tmp_path / "store").exists()


def test_the_setting_names_it_and_none_switches_it_off(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSPAN_RERANKER", f"onnx:{folder}")
    with Memory(tmp_path / "store", encoder="hash") as memory:
        assert memory.stats()["reranker"] == {"id": "onnx-model", "failure": None}
    with Memory(tmp_path / "store", reranker=None) as memory:
        assert memory.stats()["reranker"] is None
    with DynamicSegmentedMemory(tmp_path / "dsm") as dsm:
        dsm.write("Ana: I live in Lisbon, where it is warm.")
        assert "Lisbon" in dsm.active_context("Where does Ana live?").context_text


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """The exit code, and the document on stdout, else the one on stderr."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--json"])
    written = capsys.readouterr()
    return int(ended.value.code or 0), json.loads(written.out or written.err)


def test_commands_that_search_take_it(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--store", str(tmp_path / "store")]
    told(capsys, "add", "Ana: I live in Lisbon, where it is warm.", *where, "--encoder", "hash")
    named = [*where, "--reranker", f"onnx:{folder}"]
    code, found = told(capsys, "search", "where does Ana live", "--explain", *named)
    assert (code, "rerank" in found["hits"][0]["channels"]) == (0, True)
    for command in ("context", "active-context"):
        assert told(capsys, command, "where does Ana live", *named)[0] == 0
    code, found = told(capsys, "search", "Ana", *where, "--reranker", "bert")
    assert (code, found["error"]["argument"]) == (2, "reranker")
    assert told(capsys, "search", "Ana", *where, "--reranker", "onnx:/nowhere")[0] == 4


def test_commands_that_do_not_search_do_not_load_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSPAN_RERANKER", "onnx:/nowhere")
    where = ["--store", str(tmp_path / "store")]
    assert told(capsys, "add", "Ana lives in Lisbon.", *where)[0] == 0
    assert told(capsys, "stats", *where)[0] == 0
    assert told(capsys, "search", "Ana", *where)[0] == 4


def test_the_doctor_tries_it(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--store", str(tmp_path / "store")]

    def check(*options: str) -> dict[str, Any]:
        _, found = told(capsys, "doctor", *where, *options)
        assert [check["name"] for check in found["checks"] if not check["ok"]] in ([], ["reranker"])
        (one,) = (check for check in found["checks"] if check["name"] == "reranker")
        return dict(one)

    assert check()["detail"] == "none"
    well = check("--reranker", f"onnx:{folder}")
    assert well["ok"]
    assert "onnx-model" in well["detail"]
    (folder / "model.onnx").write_bytes(b"no graph")
    ill = check("--reranker", f"onnx:{folder}")
    assert not ill["ok"]
    assert "cannot load" in ill["detail"]
    assert not check("--reranker", "onnx:/nowhere")["ok"]
