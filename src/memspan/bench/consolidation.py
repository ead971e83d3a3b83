"""Consolidation: what counts as said twice, what summaries hold, and how fast both are told.

Duplicates are made from real texts, by edits that say the same and by edits that do not; each method sees each pair. Of
summaries it is asked how many of the turns that answer a set's questions they quote, and how near they come to what
people (QMSum) or a model (LoCoMo) wrote of the same session, by ROUGE-1 and -2 (Lin, 2004) over stemmed words.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from memspan.analysis import terms
from memspan.bench import sets
from memspan.bench.measures import encoder_of, interval, machine
from memspan.bench.speed import texts
from memspan.duplicates import survivors
from memspan.encoders.base import Encoder
from memspan.errors import InvalidInput
from memspan.records import Segment
from memspan.segmenting import WordTokenizer
from memspan.summarising import Background, Sentence, sentences_of, summarise
from memspan.views.base import Progress

NAMES = ("locomo", "realtalk", "qmsum")
BUDGET = 100
PAIRS = 400  # texts that are edited
THRESHOLDS = (0.8, 0.9, 0.95, 0.98)
SESSION = 50  # turns, where throughput is measured
_DAY = datetime(2026, 3, 2, tzinfo=UTC)
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}")
_AUXILIARY = re.compile(r"\b(is|was|are|were|am|have|has|can|will|would|should|did|do)\b(?! not\b|n't)")


def run(
    data: str | Path,
    *,
    sizes: Sequence[int] = (10_000, 100_000),
    encoder: str | Encoder | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure on those of ``NAMES`` that are in the folder ``data``, and the throughput at ``sizes`` segments; a report
    of plain values. ``encoder`` gives the vectors that duplicates are compared by. Raises InvalidInput, EncoderError.
    """
    tell = progress or (lambda done, total, what: None)
    tell(0, 3, "duplicates")
    found = []
    for name in NAMES:
        try:
            found.append(sets.load(name, Path(data)))
        except sets.Absent:
            continue
    if not found:
        raise InvalidInput("data", f"{data} holds none of {', '.join(NAMES)}", mend="name the folder of the sets")
    report: dict[str, Any] = {
        "benchmark": "consolidation",
        "sets": {each.name: each.sha256 for each in found},
        "duplicates": duplicates(found, encoder_of(encoder)),
    }
    tell(1, 3, "summaries")
    report["summaries"] = {each.name: summaries(each, _written(Path(data), each.name)) for each in found}
    tell(2, 3, "throughput")
    report["throughput"] = throughput(sizes)
    return report | {"machine": machine()}


def throughput(sizes: Sequence[int] = (10_000, 100_000)) -> dict[str, dict[str, float]]:
    """Segments a second of looking for duplicates and of summing up sessions of fifty turns, at each of ``sizes``."""
    said = texts(max(sizes))
    while len(said) < max(sizes):
        said += [f"{text} ({len(said)})" for text in said[: max(sizes) - len(said)]]
    report = {}
    for size in sizes:
        turns = [_segment(at, text, session=str(at // SESSION)) for at, text in enumerate(said[:size])]
        started = time.perf_counter()
        survivors(turns)
        told = time.perf_counter()
        sessions = [list(each) for _, each in groupby(turns, key=lambda turn: turn.session)]
        background = Background.of(sessions)
        for each in sessions:
            _summary(each, background)
        ended = time.perf_counter()
        rates = {"duplicates_per_s": size / (told - started), "summaries_per_s": size / (ended - told)}
        report[str(size)] = {name: round(rate, 1) for name, rate in rates.items()}
    return report


def _segment(at: int, text: str, **more: Any) -> Segment:
    given = {"role": "user", "recorded_at": _DAY, **more}
    return Segment(id=str(at), seq=at, version=1, text=text, namespace="bench", **given)


# ----------------------------------------------------------------------------------------------------------- duplicates


def duplicates(given: Sequence[sets.Set], encoder: Encoder | None) -> dict[str, Any]:
    """Precision, recall and false merges of each method over the edits, and by edit how many were merged."""
    items = [item for each in given for part in each.collections for item in part.items]
    real = [
        _segment(at, item.text, speaker=item.speaker, session=item.session, occurred_at=item.when)
        for at, item in enumerate(items)
    ]
    merged = int(np.count_nonzero(survivors(real) != np.arange(len(real))))
    texts = sorted({item.text for item in items if 8 <= len(set(terms(item.text))) <= 40 and "?" not in item.text})
    chance = random.Random(7)
    names = sorted({name for text in texts for name in _NAME.findall(text)})
    chosen = chance.sample(texts, min(PAIRS, len(texts)))
    pairs: list[tuple[str, bool, Segment, Segment]] = []
    for text in chosen:
        for edits, same in ((SAME, True), (OTHER, False)):
            for kind, edit in edits.items():
                changed = edit(text, chance, names)
                if changed is not None and changed != text:
                    at = len(pairs)
                    old = _segment(2 * at, text, role=None, run_id=str(at))
                    new = replace(old, id=str(2 * at + 1), seq=2 * at + 1, text=changed)
                    if kind == "another day":
                        new = replace(new, occurred_at=_DAY + timedelta(days=1))
                    pairs.append((kind, same, old, new))
    told = survivors([segment for _, _, old, new in pairs for segment in (old, new)])
    methods = {"memspan": told[::2] != 2 * np.arange(len(pairs))}
    bags = [(set(terms(old.text)), set(terms(new.text))) for _, _, old, new in pairs]
    jaccard = np.array([len(a & b) / max(1, len(a | b)) for a, b in bags])
    methods |= {f"words, Jaccard >= {least}": jaccard >= least for least in THRESHOLDS}
    if encoder is not None:
        vectors = encoder.encode([each.text for _, _, old, new in pairs for each in (old, new)]).pooled
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        cosines = (vectors[::2] * vectors[1::2]).sum(1)
        methods |= {f"vectors, cosine >= {least}": cosines >= least for least in THRESHOLDS}
    alike = np.array([is_same for _, is_same, _, _ in pairs])
    kinds = {kind: np.array([each == kind for each, *_ in pairs]) for kind in (*SAME, *OTHER)}
    return {
        "turns": len(real),
        "merged_turns": merged,
        "pairs": len(pairs),
        "methods": {
            name: {
                "precision": round(float((found & alike).sum() / max(1, found.sum())), 4),
                "recall": round(float((found & alike).sum() / alike.sum()), 4),
            }
            for name, found in methods.items()
        },
        "kinds": {
            kind: {
                "same": kind in SAME,
                "pairs": int(held.sum()),
                "merged": {name: round(float(found[held].mean()), 4) for name, found in methods.items()},
            }
            for kind, held in kinds.items()
            if held.any()
        },
    }


Edit = Callable[[str, random.Random, Sequence[str]], str | None]


def _slipped(text: str, chance: random.Random, names: Sequence[str]) -> str | None:
    words = [word for word in re.findall(r"\b[a-z]{7,}\b", text) if word[2] != word[3]]
    if not words:
        return None
    word = chance.choice(words)
    return text.replace(word, word[:2] + word[3] + word[2] + word[4:], 1)


def _renamed(text: str, chance: random.Random, names: Sequence[str]) -> str | None:
    found = _NAME.findall(text)
    if not found:
        return None
    name = chance.choice(found)
    return re.sub(rf"\b{name}\b", chance.choice([each for each in names if each != name]), text)


def _exchanged(text: str, chance: random.Random, names: Sequence[str]) -> str | None:
    found = list(dict.fromkeys(_NAME.findall(text)))
    if len(found) < 2:
        return None
    one, other = found[:2]
    return re.sub(rf"\b({one}|{other})\b", lambda match: other if match[1] == one else one, text)


def _reordered(text: str, chance: random.Random, names: Sequence[str]) -> str | None:
    parts = [sentence.text for sentence in sentences_of([_segment(0, text)])]
    return " ".join([*parts[1:], parts[0]]) if len(parts) > 1 else None


def _replaced(text: str, chance: random.Random, names: Sequence[str]) -> str | None:
    words = re.findall(r"\b[a-z]{5,}\b", text)
    others = [word for word in ("garden", "quickly", "seven", "purple", "station", "refused") if word not in words]
    return text.replace(chance.choice(words), chance.choice(others), 1) if words else None


def _numbered(text: str, chance: random.Random, names: Sequence[str]) -> str | None:
    found = re.search(r"\d+", text)
    return f"{text[: found.start()]}{int(found[0]) + 1}{text[found.end() :]}" if found else None


SAME: Mapping[str, Edit] = {
    "case": lambda text, chance, names: text.upper() if chance.random() < 0.5 else text.lower(),
    "punctuation": lambda text, chance, names: re.sub(r"[.!,;:]+(?=\s|$)", "", text),
    "filler": lambda text, chance, names: f"{chance.choice(['Oh', 'Well', 'Hey', 'Yeah'])}, {text}",
    "white space": lambda text, chance, names: "  ".join(text.split()) + "\n",
    "contraction": lambda text, chance, names: re.sub(r"n['’]t\b", " not", re.sub(r"\bI['’]m\b", "I am", text)),
    "sentences reordered": _reordered,
    "more said": lambda text, chance, names: f"{text.rstrip()} And it rained all day in the mountains.",
    "slip of the pen": _slipped,
}
OTHER: Mapping[str, Edit] = {
    "number": _numbered,
    "negation": lambda text, chance, names: (
        _AUXILIARY.sub(r"\1 not", text, count=1) if _AUXILIARY.search(text) else None
    ),
    "name": _renamed,
    "names exchanged": _exchanged,
    "word": _replaced,
    "taken back": lambda text, chance, names: f"{text.rstrip()} But that is not so any more.",
    "asked": lambda text, chance, names: f"{text.rstrip('.! ')}?",
    "another day": lambda text, chance, names: f"{text} " if re.search(r"\b(?:yesterday|today|last)\b", text) else None,
}


# ------------------------------------------------------------------------------------------------------------ summaries


def summaries(found: sets.Set, written: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """By system: the share of the turns that hold answers which the summaries of their sessions quote, and ROUGE."""
    quoted: dict[str, list[float]] = {name: [] for name in ("memspan", "lead", "random")}
    rouge: dict[str, list[tuple[float, float]]] = {name: [] for name in quoted}
    chance = random.Random(7)
    for part in found.collections:
        turns = [
            _segment(at, item.text, speaker=item.speaker, session=item.session or "")
            for at, item in enumerate(part.items)
        ]
        gold = {id for ask in part.asks for id in ask.gold}
        sessions = [list(each) for _, each in groupby(turns, key=lambda turn: turn.session)]
        background = Background.of(sessions)
        for session in sessions:
            wanted = {turn.id for turn in session if part.items[turn.seq].id in gold}
            reference = written.get((part.id, str(session[0].session)))
            every = sentences_of(session)
            mixed = chance.sample(every, len(every))
            best = _summary(session, background)
            for name, cited, text in (
                ("memspan", {quote.id for quote in best.citations}, best.text),
                ("lead", *_first(every)),
                ("random", *_first(mixed)),
            ):
                quoted[name] += [float(id in cited) for id in sorted(wanted)]
                if reference:
                    rouge[name].append((_overlap(text, reference, 1), _overlap(text, reference, 2)))
    return {
        name: {
            "evidence_quoted": round(float(np.mean(quoted[name])), 4) if quoted[name] else None,
            "interval": interval(quoted[name]) if quoted[name] else None,
            "rouge_1": round(float(np.mean([one for one, _ in rouge[name]])), 4) if rouge[name] else None,
            "rouge_2": round(float(np.mean([two for _, two in rouge[name]])), 4) if rouge[name] else None,
            "sessions": len(rouge[name]),
        }
        for name in quoted
    }


def _summary(session: Sequence[Segment], background: Background) -> Any:
    found = sentences_of(session)
    shortest = min(WordTokenizer().count([f"{each.segment.speaker}: {each.text}" for each in found]), default=0)
    budget = max(BUDGET, shortest)
    return summarise(found, background, budget=budget, tokenizer=WordTokenizer(), segments=len(session))


def _first(found: Sequence[Sentence]) -> tuple[set[str], str]:
    left, kept = BUDGET, list[Sentence]()
    for each in found:
        (tokens,) = WordTokenizer().count([f"{each.segment.speaker}: {each.text}"])
        if tokens <= left:
            left -= tokens
            kept.append(each)
    return {each.segment.id for each in kept}, "\n".join(f"{each.segment.speaker}: {each.text}" for each in kept)


def _overlap(text: str, reference: str, size: int) -> float:
    """ROUGE-``size``, the harmonic mean of precision and recall."""
    one, other = (
        Counter(zip(*(words[at:] for at in range(size)), strict=False)) for words in map(terms, (text, reference))
    )
    return 2 * sum((one & other).values()) / max(1, sum(one.values()) + sum(other.values()))


def _written(data: Path, name: str) -> dict[tuple[str, str], str]:
    """The summaries that come with a set, by collection and session."""
    readers = {"locomo": _locomo, "qmsum": _qmsum}
    return dict(readers[name](data)) if name in readers else {}


def _locomo(data: Path) -> Iterator[tuple[tuple[str, str], str]]:
    for file in sorted((data / "locomo").glob("*.json")):
        for entry in json.loads(file.read_bytes()):
            for key, text in entry.get("session_summary", {}).items():
                yield (str(entry["sample_id"]), f"session {key.split('_')[1]}"), text


def _qmsum(data: Path) -> Iterator[tuple[tuple[str, str], str]]:
    for number, line in enumerate((data / "qmsum" / "val.jsonl").read_text(encoding="utf-8").splitlines()):
        general = json.loads(line)["general_query_list"]
        if general:
            yield (f"meeting {number}", "meeting"), general[0]["answer"]


def table(report: Mapping[str, Any]) -> str:
    """The report as text for a terminal."""
    lines = [f"{report['duplicates']['pairs']} edited pairs       precision  recall"]
    for name, told in report["duplicates"]["methods"].items():
        lines.append(f"{name:26} {told['precision']:9.3f} {told['recall']:7.3f}")
    lines.append(f"of {report['duplicates']['turns']:,} real turns {report['duplicates']['merged_turns']} were merged")
    lines.append("\nedit                  same  pairs  merged")
    for kind, told in report["duplicates"]["kinds"].items():
        same = "yes" if told["same"] else "no"
        lines.append(f"{kind:20} {same:>5} {told['pairs']:6} {told['merged']['memspan']:7.3f}")
    lines.append(f"\nsummaries of {BUDGET} words  evidence  ROUGE-1  ROUGE-2")
    for name, systems in report["summaries"].items():
        for system, told in systems.items():
            values = [told[each] for each in ("evidence_quoted", "rouge_1", "rouge_2")]
            shown = "  ".join(f"{'-':>7}" if value is None else f"{value:7.3f}" for value in values)
            lines.append(f"{name:9} {system:12} {shown}")
    for size, rates in report["throughput"].items():
        lines.append(
            f"\n{int(size):,} segments: duplicates {rates['duplicates_per_s']:,.0f}/s, "
            f"summaries {rates['summaries_per_s']:,.0f}/s"
        )
    return "\n".join(lines)
