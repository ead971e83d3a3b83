"""What the ranks of all questions say of each system: measures, intervals, and how far the first one is ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from memspan.bench.measures import BUDGETS, auroc, averages, both_stated, intervals, measures, updated
from memspan.bench.sets import Ask

UPDATE: Final = ("original_info", "updated_info")  # groups of BEAM's gold
CONTRADICTION: Final = ("first_statement", "second_statement")


@dataclass(frozen=True, slots=True)
class Placed:
    """How one system did on one question: the rank of each gold item, and of each session with an answer; RB@T for each
    of BUDGETS; the score of its best hit. The first three are empty where nothing is to be found."""

    ranks: tuple[int | None, ...]
    sessions: tuple[int | None, ...]
    budgets: tuple[float, ...]
    top: float


@dataclass(frozen=True, slots=True)
class Answered:
    """A question, and how each system that it was put to did."""

    ask: Ask
    placed: Mapping[str, Placed]


def standings(
    answered: Sequence[Answered], first: str, ablations: Sequence[str] = (), *, by_session: bool = False
) -> dict[str, dict[str, Any]]:
    """Of each system over the questions of a set: the means of their ``measures``, and what else is defined there.

    ``recall@10_95``: its 95 % interval. ``rb@512`` and so on; ``uo`` and ``cp@10`` over the questions that have such
    groups of gold; ``auroc`` of the best score where some questions have no answer; ``ahead``: recall@10 of ``first``
    less that of the system, paired by question, with its interval. ``kinds``: means by kind, but not of the
    ``ablations``. ``by_session``: the same of sessions, ranks alone.
    """
    results: dict[str, dict[str, Any]] = {}
    samples: dict[tuple[str, str], list[float]] = {}
    for system in dict.fromkeys(name for question in answered for name in question.placed):
        asked = [question for question in answered if system in question.placed]
        scored = [question for question in asked if (question.ask.sessions if by_session else question.ask.gold)]
        ranks = [_ranks(question, system, by_session) for question in scored]
        one = averages(ranks)
        own = samples[system, "own"] = [measures(each)["recall@10"] for each in ranks]
        if not by_session:
            shares = np.mean([question.placed[system].budgets for question in scored], axis=0)
            one |= {f"rb@{budget}": round(float(share), 4) for budget, share in zip(BUDGETS, shares, strict=True)}
            one |= _grouped(scored, system) | _abstaining(asked, system)
        if system != first:
            other = (measures(_ranks(question, first, by_session))["recall@10"] for question in scored)
            samples[system, "ahead"] = [a - b for a, b in zip(other, own, strict=True)]
        if system not in ablations:
            kinds: dict[str, list[tuple[int | None, ...]]] = {}
            for question, each in zip(scored, ranks, strict=True):
                kinds.setdefault(question.ask.kind, []).append(each)
            one["kinds"] = {kind: averages(some) for kind, some in sorted(kinds.items())}
        results[system] = one
    for (system, what), bounds in _intervals(samples).items():
        if what == "own":
            results[system]["recall@10_95"] = bounds
        else:
            mean = round(float(np.mean(samples[system, what])), 4)
            results[system]["ahead"] = {"mean": mean, "95": bounds}
    return results


def _intervals(samples: Mapping[tuple[str, str], list[float]]) -> dict[tuple[str, str], list[float]]:
    """The 95 % interval of the mean of each; those of one size are drawn together."""
    found: dict[tuple[str, str], list[float]] = {}
    for size in {len(sample) for sample in samples.values()}:
        these = [key for key, sample in samples.items() if len(sample) == size]
        bounds = intervals([samples[key] for key in these])
        found |= {key: [round(low, 4), round(high, 4)] for key, (low, high) in zip(these, bounds, strict=True)}
    return found


def means(results: Sequence[Mapping[str, Any]], systems: Sequence[str]) -> dict[str, float]:
    """Of each of ``systems`` the mean of recall@10 over the ``standings`` of several sets, each weighing the same."""
    return {name: round(float(np.mean([each[name]["recall@10"] for each in results])), 4) for name in systems}


def _ranks(question: Answered, system: str, by_session: bool) -> tuple[int | None, ...]:
    placed = question.placed[system]
    return placed.sessions if by_session else placed.ranks


def _grouped(scored: Sequence[Answered], system: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (one, other), judge in (("uo", UPDATE, updated), ("cp@10", CONTRADICTION, both_stated)):
        judged = []
        for question in scored:
            ranks = dict(zip(question.ask.gold, question.placed[system].ranks, strict=True))
            parts = [[ranks[id] for id in question.ask.groups.get(part, ())] for part in (one, other)]
            if all(parts):
                judged.append(judge(*parts))
        if judged:
            found |= {name: round(float(np.mean(judged)), 4), f"{name}_questions": len(judged)}
    return found


def _abstaining(asked: Sequence[Answered], system: str) -> dict[str, float]:
    """Where some questions have an answer and some have none."""
    scores: dict[bool, list[float]] = {True: [], False: []}
    for question in asked:
        scores[question.ask.answerable].append(question.placed[system].top)
    return {"auroc": round(auroc(scores[True], scores[False]), 4)} if all(scores.values()) else {}
