"""LoCoMo: how much of the gold evidence of a question is among the first k segments found.

A. Maharana et al., "Evaluating Very Long-Term Conversational Memory of LLM Agents", ACL 2024. Its ``locomo10.json``
(github.com/snap-research/locomo, CC BY-NC 4.0) is not part of memspan. Each conversation is a store of its own, the
query is the question alone, no model answers or judges anything. Beside the engine, the same run ranks the same texts
by plain BM25 and by plain cosine of the encoder's vectors. Texts are never printed or written: ids and ranks only.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from memspan.analysis import terms
from memspan.bench.measures import encoder_of, evidence, interval, machine, measures, milliseconds, ranks_of, summary
from memspan.encoders.base import Encoder
from memspan.errors import InvalidInput
from memspan.memory import Memory
from memspan.recipes import RECIPES, recipe_named

Progress = Callable[[int, int, str], None]
Placed = dict[str, list[int | None]]

DEPTH = 50  # hits looked at per question
K1, B = 0.9, 0.4  # of the plain BM25 (Anserini's defaults)
WHERE = "get locomo10.json from github.com/snap-research/locomo, data/"


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance; ``text`` has the picture's caption appended, ``when`` is the time of its session."""

    id: str
    speaker: str
    text: str
    session: str
    when: datetime | None


@dataclass(frozen=True, slots=True)
class Ask:
    """A question with its place in the file; ``gold`` ids are repaired and exist, and may be none."""

    index: int
    text: str
    category: int
    gold: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of the file."""

    id: str
    turns: tuple[Turn, ...]
    asks: tuple[Ask, ...]


def run(
    data: str | Path,
    *,
    channels: Sequence[str] | None = None,
    recipe: str | None = None,
    encoder: str | Encoder | None = None,
    ranks: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the engine on the LoCoMo file ``data``; a report of plain values, ready for JSON.

    ``channels`` switches channels: None is the default recipe, ``["semantic"]``, ``["keyword"]`` or both the others.
    ``recipe`` names one instead. ``encoder`` is a spec, an Encoder, or None for the configured one. ``ranks`` names a
    file that gets a JSON line for each scored question: conversation, question (its index in the file), category, and
    for each system the rank of each gold id (null: not among the first 50). Questions without evidence that exists are
    not scored.

    Raises InvalidInput naming ``data``, ``channels`` or ``recipe``, EncoderError, StoreError.
    """
    measured_on = machine()
    if recipe is not None and channels is not None:
        raise InvalidInput("recipe", "came together with channels", mend="give one of the two")
    recipe = recipe_of(channels) if recipe is None else recipe
    proposing = list(recipe_named(recipe).channels)
    path = Path(data)
    conversations = load(path)
    model = encoder_of(encoder)
    total = sum(len(each.turns) + len(each.asks) for each in conversations)
    done, added, searched = 0, 0.0, list[float]()
    scored: list[tuple[int, Placed]] = []
    with nullcontext() if ranks is None else _create(Path(ranks)) as lines:
        for conversation in conversations:
            plain = _plain(conversation, model)
            with (
                tempfile.TemporaryDirectory(prefix="memspan-locomo-") as directory,
                Memory(Path(directory, "store"), encoder=model) as memory,
            ):
                started = time.perf_counter()
                remember(memory, conversation)
                added += time.perf_counter() - started
                done += len(conversation.turns)
                for ask in conversation.asks:
                    if progress is not None:
                        progress(done, total, conversation.id)
                    done += 1
                    if not ask.gold:
                        continue
                    started = time.perf_counter()
                    hits = memory.search(ask.text, k=DEPTH, recipe=recipe)
                    searched.append(time.perf_counter() - started)
                    found = {"memspan": [str(hit.metadata["dia_id"]) for hit in hits]}
                    found |= {name: ranking(ask.text) for name, ranking in plain.items()}
                    placed = {name: ranks_of(ids, ask.gold) for name, ids in found.items()}
                    scored.append((ask.category, placed))
                    if lines is not None:
                        _write(lines, conversation, ask, placed)
    if progress is not None:
        progress(total, total, "")
    if not scored:
        raise InvalidInput("data", "has no question with evidence that exists", mend=WHERE)
    turns = sum(len(each.turns) for each in conversations)
    return {
        "benchmark": "LoCoMo, evidence, one store per conversation, the query is the question alone",
        "data": {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "conversations": len(conversations),
            "turns": turns,
            "questions": len(scored),
            "not_scored": sum(len(each.asks) for each in conversations) - len(scored),
        },
        "encoder": None if model is None else model.id,
        "recipe": recipe,
        "channels": proposing,
        "results": _results(scored),
        "gain_of_recall@10": _gains(scored),
        "time": {"turns_added_per_second": round(turns / added, 1), "search": milliseconds(searched)},
        "machine": measured_on,
    }


def table(report: dict[str, Any]) -> str:
    """The results of ``run`` for people: a line for each system and category, in aligned columns."""
    names = ("recall@5", "recall@10", "recall@50", "hit@10", "all@10", "mrr@10", "ndcg@10")
    head = f"{'':<8} {'questions':<14} {'n':>5} " + " ".join(f"{name:>9}" for name in names) + "  95 % of recall@10"
    rows = [head]
    for system, groups in report["results"].items():
        for group, values in groups.items():
            low, high = values["recall@10_95"]
            numbers = " ".join(f"{values[name]:>9.3f}" for name in names)
            rows.append(f"{system:<8} {group:<14} {values['questions']:>5} {numbers}  {low:.3f} to {high:.3f}")
    return "\n".join(rows)


def recipe_of(channels: Sequence[str] | None) -> str:
    """The name of the recipe that has exactly these channels; None is the default. Raises InvalidInput."""
    if channels is None:
        return "default"
    for name, recipe in RECIPES.items():
        if set(recipe.channels) == set(channels):
            return name
    mend = "use " + " or ".join(",".join(recipe.channels) for recipe in RECIPES.values())
    raise InvalidInput("channels", f"no recipe has {','.join(channels) or 'no channels'}", mend=mend)


def load(path: Path) -> list[Conversation]:
    """The conversations of a LoCoMo file. Raises InvalidInput naming ``data``."""
    try:
        raw = json.loads(path.read_bytes())
        return [_conversation(entry) for entry in raw]
    except OSError as error:
        raise InvalidInput("data", f"{path} cannot be read ({error.strerror})", mend=WHERE) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            "data", f"{path} is not a LoCoMo file ({type(error).__name__}: {error})", mend=WHERE
        ) from error


def remember(memory: Memory, conversation: Conversation) -> None:
    """Add a conversation through the public door, one call a session."""
    sessions: dict[str, list[Turn]] = {}
    for turn in conversation.turns:
        sessions.setdefault(turn.session, []).append(turn)
    for session, turns in sessions.items():
        memory.add(
            [
                {
                    "role": "user",
                    "name": turn.speaker,
                    "content": turn.text,
                    "time": turn.when,
                    "metadata": {"dia_id": turn.id},
                }
                for turn in turns
            ],
            session=session,
        )


class BM25:
    """Plain BM25 over lists of terms, with the always positive idf of Lucene; all in memory."""

    def __init__(self, documents: Sequence[Sequence[str]], k1: float = K1, b: float = B) -> None:
        lengths = np.array([len(words) for words in documents], np.float64)
        self._k1 = k1
        self._length = k1 * (1 - b + b * lengths / max(lengths.mean(), 1e-9))
        self._postings: dict[str, list[tuple[int, int]]] = {}
        for row, words in enumerate(documents):
            for word, count in Counter(words).items():
                self._postings.setdefault(word, []).append((row, count))

    def scores(self, query: Sequence[str]) -> NDArray[np.float64]:
        """float64[n]: of each document, 0 where it shares no term with ``query``."""
        n = len(self._length)
        scores = np.zeros(n)
        for word in dict.fromkeys(query):
            if pairs := self._postings.get(word):
                rows, counts = np.array(pairs).T
                idf = np.log1p((n - len(rows) + 0.5) / (len(rows) + 0.5))
                scores[rows] += idf * counts * (self._k1 + 1) / (counts + self._length[rows])
        return scores


def _plain(conversation: Conversation, model: Encoder | None) -> dict[str, Callable[[str], list[str]]]:
    """The plain systems: question → ids, best first; of equal scores the earlier turn first."""
    texts = [f"{turn.speaker}: {turn.text}" for turn in conversation.turns]
    index = BM25([terms(text) for text in texts])

    def best(scores: NDArray[Any]) -> list[str]:
        order = np.argsort(-scores, kind="stable")[:DEPTH]
        return [conversation.turns[row].id for row in order if scores[row] > 0]

    rankings: dict[str, Callable[[str], list[str]]] = {"bm25": lambda question: best(index.scores(terms(question)))}
    if model is not None:
        vectors = model.encode(texts).pooled
        rankings["dense"] = lambda question: best(vectors @ model.encode([question]).pooled[0])
    return rankings


def _results(scored: Sequence[tuple[int, Placed]]) -> dict[str, dict[str, Any]]:
    groups = {"all": scored}
    for number in sorted({category for category, _ in scored}):
        groups[f"category {number}"] = [entry for entry in scored if entry[0] == number]
    return {
        system: {name: summary([placed[system] for _, placed in entries]) for name, entries in groups.items()}
        for system in scored[0][1]
    }


def _gains(scored: Sequence[tuple[int, Placed]]) -> dict[str, dict[str, Any]]:
    """Recall@10 of the engine less that of each plain system, question by question."""
    gains = {}
    for system in scored[0][1]:
        if system != "memspan":
            each = [
                measures(placed["memspan"])["recall@10"] - measures(placed[system])["recall@10"] for _, placed in scored
            ]
            low, high = interval(each)
            gains[f"over {system}"] = {"mean": round(float(np.mean(each)), 4), "95": [round(low, 4), round(high, 4)]}
    return gains


def _create(file: Path) -> TextIO:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("w", encoding="utf-8")


def _write(lines: TextIO, conversation: Conversation, ask: Ask, placed: Placed) -> None:
    line = {
        "conversation": conversation.id,
        "question": ask.index,
        "category": ask.category,
        "ranks": {name: dict(zip(ask.gold, places, strict=True)) for name, places in placed.items()},
    }
    lines.write(json.dumps(line) + "\n")


def _conversation(entry: dict[str, Any]) -> Conversation:
    turns = tuple(_turns(entry["conversation"]))
    known = {turn.id for turn in turns}
    asks = tuple(
        Ask(index, question["question"], int(question["category"]), tuple(evidence(question["evidence"], known)))
        for index, question in enumerate(entry["qa"])
    )
    return Conversation(str(entry["sample_id"]), turns, asks)


def _turns(conversation: dict[str, Any]) -> Iterator[Turn]:
    numbers = sorted(int(match[1]) for key in conversation if (match := re.fullmatch(r"session_(\d+)", key)))
    for number in numbers:
        when = _time(conversation.get(f"session_{number}_date_time"))
        for turn in conversation[f"session_{number}"]:
            caption = turn.get("blip_caption")
            text = f"{turn['text']} [shares {caption}]" if caption else turn["text"]
            yield Turn(turn["dia_id"], turn["speaker"], text, f"session {number}", when)


def _time(text: str | None) -> datetime | None:
    """``1:56 pm on 8 May, 2023``, taken as UTC."""
    return None if text is None else datetime.strptime(text, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
