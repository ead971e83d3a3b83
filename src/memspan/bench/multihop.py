"""Multi-hop questions: how much of what must be read together is among the first k, with the graph and without it.

MuSiQue (Trivedi et al., TACL 2022) and HotpotQA (Yang et al., EMNLP 2018) in the files of HippoRAG (github.com/
OSU-NLP-Group/HippoRAG, reproduce/dataset), where all passages of all questions are one corpus. They are not part of
memspan. A passage is its title, a line end, its text; the query is the question alone; no model answers or judges
anything. Texts are never printed or written: ids and ranks only.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memspan.bench.measures import encoder_of, interval, machine, measures, milliseconds, ranks_of, summary
from memspan.encoders.base import Encoder
from memspan.errors import InvalidInput
from memspan.memory import Memory
from memspan.recipes import recipe_named

Progress = Callable[[int, int, str], None]

DEPTH = 50  # hits looked at per question
RECIPES = ("default", "default-mentions", "default-next-mentions", "flat", "semantic")
SETS = ("musique", "hotpotqa")
WHERE = "give a folder with musique*.json or hotpotqa*.json and their *_corpus.json, from HippoRAG's reproduce/dataset"


@dataclass(frozen=True, slots=True)
class Corpus:
    """Passages by number, and each question with the numbers of its supporting passages."""

    name: str
    sha256: str
    passages: tuple[str, ...]
    questions: tuple[tuple[str, tuple[int, ...]], ...]


def run(
    data: str | Path,
    *,
    recipes: Sequence[str] = RECIPES,
    encoder: str | Encoder | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure ``recipes`` on every set in the folder ``data``; a report of plain values, ready for JSON.

    The gain of the first recipe over each other one is paired by question, with a 95 % bootstrap interval. Raises
    InvalidInput naming ``data`` or ``recipe``, EncoderError, StoreError.
    """
    for recipe in recipes:
        recipe_named(recipe)
    measured_on = machine()
    model = encoder_of(encoder)
    report: dict[str, Any] = {
        "benchmark": "multi-hop evidence, all passages of a set in one store, the query is the question alone",
        "encoder": None if model is None else model.id,
        "sets": {},
        "machine": measured_on,
    }
    for corpus in load(Path(data)):
        report["sets"][corpus.name] = _measured(corpus, recipes, model, progress)
    return report


def table(report: Mapping[str, Any]) -> str:
    """The results of ``run`` for people, in aligned columns."""
    names = ("recall@5", "recall@10", "all@10", "ndcg@10")
    head = "  ".join([f"{'':<10} {'':<22}", *(f"{name:>9}" for name in names), "first recipe's gain of recall@5"])
    lines = [head]
    for name, part in report["sets"].items():
        for recipe, values in part["results"].items():
            gain = part["gain_of_recall@5"].get(recipe)
            told = "" if gain is None else f"{gain['mean']:+.3f}  ({gain['low']:+.3f} to {gain['high']:+.3f})"
            numbers = "  ".join(f"{values[each]:>9.3f}" for each in names)
            lines.append(f"{name:<10} {recipe:<22}  {numbers}  {told}")
    return "\n".join(lines)


def load(folder: Path) -> list[Corpus]:
    """The sets in ``folder``. Raises InvalidInput naming ``data``."""
    if not folder.is_dir():
        raise InvalidInput("data", f"{folder} is not a folder", mend=WHERE)
    found = []
    for name in SETS:
        for file in sorted(folder.glob(f"{name}*.json")):
            corpus = file.with_name(f"{file.stem}_corpus.json")
            if corpus.is_file():
                found.append(_read(file, corpus))
    if not found:
        raise InvalidInput("data", f"{folder} holds neither MuSiQue nor HotpotQA", mend=WHERE)
    return found


def _read(file: Path, corpus: Path) -> Corpus:
    try:
        entries, passages = json.loads(file.read_bytes()), json.loads(corpus.read_bytes())
        if isinstance(passages, dict):  # HotpotQA: title → sentences
            titles = {title: number for number, title in enumerate(passages)}
            texts = tuple(f"{title}\n{''.join(sentences)}" for title, sentences in passages.items())
            gold = [
                (entry["question"], {titles[title] for title, _ in entry["supporting_facts"] if title in titles})
                for entry in entries
            ]
        else:  # MuSiQue: title and text
            texts = tuple(f"{passage['title']}\n{passage['text']}" for passage in passages)
            numbers = {text: number for number, text in enumerate(texts)}
            gold = [
                (
                    entry["question"],
                    {
                        numbers[f"{part['title']}\n{part['paragraph_text']}"]
                        for part in entry["paragraphs"]
                        if part["is_supporting"]
                    },
                )
                for entry in entries
            ]
    except OSError as error:
        raise InvalidInput("data", f"{file} cannot be read ({error.strerror})", mend=WHERE) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{file} is not as HippoRAG has it ({type(error).__name__}: {error})"
        raise InvalidInput("data", problem, mend=WHERE) from error
    digest = hashlib.sha256(file.read_bytes() + corpus.read_bytes()).hexdigest()
    return Corpus(file.stem, digest, texts, tuple((question, tuple(sorted(wanted))) for question, wanted in gold))


def _measured(
    corpus: Corpus, recipes: Sequence[str], model: Encoder | None, progress: Progress | None
) -> dict[str, Any]:
    asked = [(question, gold) for question, gold in corpus.questions if gold]
    total = len(corpus.passages) + len(recipes) * len(asked)
    ranks: dict[str, list[list[int | None]]] = {recipe: [] for recipe in recipes}
    taken: dict[str, list[float]] = {recipe: [] for recipe in recipes}
    with (
        tempfile.TemporaryDirectory(prefix="memspan-multihop-") as directory,
        Memory(Path(directory, "store"), encoder=model) as memory,
    ):
        for number, passage in enumerate(corpus.passages):
            memory.add(passage, metadata={"number": number}, wait=False)
            if progress is not None and number % 64 == 0:
                progress(number, total, corpus.name)
        memory.compact()
        done = len(corpus.passages)
        for recipe in recipes:
            for question, gold in asked:
                started = time.perf_counter()
                hits = memory.search(question, k=DEPTH, recipe=recipe)
                taken[recipe].append(time.perf_counter() - started)
                found = list(dict.fromkeys(str(hit.metadata["number"]) for hit in hits))
                ranks[recipe].append(ranks_of(found, [str(number) for number in gold]))
                done += 1
                if progress is not None:
                    progress(done, total, corpus.name)
    first = [measures(one)["recall@5"] for one in ranks[recipes[0]]]
    gains = {}
    for recipe in recipes[1:]:
        differences = [a - measures(one)["recall@5"] for a, one in zip(first, ranks[recipe], strict=True)]
        low, high = interval(differences)
        gains[recipe] = {
            "mean": round(sum(differences) / len(differences), 4), "low": round(low, 4), "high": round(high, 4)
        }  # fmt: skip
    return {
        "data": {"sha256": corpus.sha256, "passages": len(corpus.passages), "questions": len(asked)},
        "results": {recipe: summary(each) for recipe, each in ranks.items()},
        "gain_of_recall@5": gains,
        "search": {recipe: milliseconds(each) for recipe, each in taken.items()},
    }
