"""Fits the rankers of ``memspan.fusion`` on the data sets, and says what they are worth on what they have not seen.

    pip install lightgbm scipy
    python bench/fit_fusion.py --data DIR --cache embeddings.sqlite

Every question of every set is put to the engine, which tells all features of its best candidates. LightGBM's LambdaMART
learns trees of depth two from them; each set weighs the same, hidden sentences a third of one, and a greater value
never counts against a row where the feature is evidence. Measured three ways: fold by fold of conversations (or of
questions, where a set is one corpus), on each set by the trees of all others, and on what was learned from. The scale
of scores, and how sure the best evidence makes of them, are fitted by logistic regression to what the folds say of
questions they have not seen; questions that cannot be answered count as having no evidence. Texts are never written:
numbers only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.bench import needle, sets
from memspan.bench.embeddings import Cached
from memspan.bench.measures import auroc, encoder_of, measures, ranks_of
from memspan.bench.plain import rows_of
from memspan.bench.recall import Asked
from memspan.fusion import Ranker, probability, table

STANDARD = ("semantic", "keyword", "maxsim", "window", "nearby", "echo")
PLAIN = ("margin", "mentions", "named", "asks", "asked", "speaker", "user")
RANKERS = {
    "late": (STANDARD, PLAIN),
    "pooled": (("semantic", "keyword", "next", "nearby", "echo"), tuple(name for name in PLAIN if name != "asked")),
}
ASKED_BY = {"late": "default", "pooled": "default-maxsim"}
EITHER = ("asks", "speaker", "user")  # may count for or against a row
CERTAINTY = ("semantic", "keyword", "maxsim", "window", "margin")  # as far as a ranker has them
FOLDS = 5
NEEDLES = "needles"
SHARE = {NEEDLES: 0.3}  # of what another set weighs: one kind of question, none of which anybody asked
TREES = {
    "objective": "lambdarank",
    "lambdarank_truncation_level": 20,
    "num_leaves": 4,
    "max_depth": 2,
    "learning_rate": 0.1,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "max_bin": 63,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
    "verbose": -1,
}
ROUNDS = 250


@dataclass
class Answers:
    """What the engine told of one set: ``features`` float32[rows] by name; ``starts`` of each question's rows, and the
    end of the last; ``items`` of the rows; of each question its gold items, its collection, if it has an answer."""

    features: dict[str, NDArray[np.float32]]
    starts: NDArray[np.int64]
    items: NDArray[np.str_]
    gold: list[tuple[str, ...]]
    collections: NDArray[np.int64]
    answerable: NDArray[np.bool_]
    sha256: str = ""
    labels: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        owner = np.repeat(np.arange(len(self.gold)), np.diff(self.starts))
        pairs = zip(owner.tolist(), self.items.tolist(), strict=True)
        self.labels = np.array([item in self.gold[question] for question, item in pairs], bool)

    def rows(self, questions: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([np.arange(self.starts[q], self.starts[q + 1]) for q in questions])

    def folds(self) -> NDArray[np.int64]:
        many = self.collections.max() + 1 >= FOLDS
        return (self.collections if many else np.arange(len(self.gold))) % FOLDS


def told_of(memory: Asked, question: str, recipe: str) -> tuple[NDArray[np.int64], Mapping[str, NDArray[np.float32]]]:
    """The candidates that are ranked anew, best first, and their features."""
    ranked = memory.ranked(question, recipe)
    first = ~np.isnan(ranked.features["asks"])
    return ranked.seqs[first], {name: part[first] for name, part in ranked.features.items()}


def collect(name: str, data: Path, encoder: Cached) -> dict[str, Answers]:
    """For each ranker what the recipe tells that asks it."""
    found = hidden(encoder) if name == NEEDLES else sets.load(name, data)
    features: dict[str, dict[str, list[NDArray[np.float32]]]] = {ranker: {} for ranker in RANKERS}
    items: dict[str, list[str]] = {ranker: [] for ranker in RANKERS}
    starts: dict[str, list[int]] = {ranker: [0] for ranker in RANKERS}
    gold, owners, answerable = [], [], []
    for number, collection in enumerate(found.collections):
        with tempfile.TemporaryDirectory() as folder, Asked(Path(folder, "store"), encoder=encoder) as memory:
            sets.remember(memory, collection)
            item_of = {row.seq: str(row.metadata["item"]) for row in rows_of(memory)}
            asks = [*collection.asks, *collection.unanswered]
            encoder.encode([ask.text for ask in asks])
            for ask in asks:
                for ranker, recipe in ASKED_BY.items():
                    seqs, told = told_of(memory, ask.text, recipe)
                    for each, part in told.items():
                        features[ranker].setdefault(each, []).append(part)
                    items[ranker] += [item_of[seq] for seq in seqs.tolist()]
                    starts[ranker].append(len(items[ranker]))
                gold.append(tuple(ask.gold))
                owners.append(number)
                answerable.append(bool(ask.gold) and ask.answerable)
        encoder.forget()
    return {
        ranker: Answers(
            {each: np.concatenate(parts) for each, parts in features[ranker].items()},
            np.array(starts[ranker]),
            np.array(items[ranker]),
            gold,
            np.array(owners),
            np.array(answerable),
            found.sha256,
        )
        for ranker in RANKERS
    }


def hidden(encoder: Cached, length: int = 150_000) -> sets.Set:
    """The needles of ``bench.needle``, spread evenly over ``length`` tokens of Python's documentation and library: what
    nobody talks about, asked for by meaning alone or by one name."""
    needles = [each for kind in needle.shipped().values() for each in kind]
    hay = needle.haystack(length, encoder.tokenizer, without=[each.text for each in needles])
    items = [sets.Item(f"hay {number}", passage.text, title="") for number, passage in enumerate(hay)]
    step = len(items) / len(needles)
    for number in reversed(range(len(needles))):
        items.insert(int(number * step), sets.Item(f"needle {number}", needles[number].text, title=""))
    asks = [sets.Ask(each.question, (f"needle {number}",), "needle") for number, each in enumerate(needles)]
    mixed = [asks[at] for at in np.random.default_rng(0).permutation(len(asks))]
    digest = hashlib.sha256("\n".join(item.text for item in items).encode()).hexdigest()
    return sets.Set(NEEDLES, digest, (sets.Collection(NEEDLES, tuple(items), tuple(mixed)),))


def tables(each: Answers, ranker: str) -> NDArray[np.float32]:
    """float32[rows, f], standardised question by question."""
    standard, plain = RANKERS[ranker]
    parts = [
        table({name: part[a:b] for name, part in each.features.items()}, standard, plain)
        for a, b in zip(each.starts[:-1], each.starts[1:], strict=True)
        if b > a
    ]
    return np.concatenate(parts)


Chosen = Mapping[str, NDArray[np.int64]]


def train(answers: Mapping[str, Answers], columns: Mapping[str, Any], chosen: Chosen, ranker: str) -> Any:
    """A LightGBM model of the questions ``chosen`` of each set."""
    import lightgbm

    x, y, weights, groups = [], [], [], []
    for name, questions in chosen.items():
        each = answers[name]
        told = [q for q in questions if each.labels[each.starts[q] : each.starts[q + 1]].any()]
        rows = each.rows(np.array(told))
        x.append(columns[name][rows])
        y.append(each.labels[rows])
        groups += np.diff(each.starts)[told].tolist()
        weights.append(np.full(len(rows), SHARE.get(name, 1.0) / len(told)))
    weight = np.concatenate(weights)
    names = [*RANKERS[ranker][0], *RANKERS[ranker][1]]
    given = lightgbm.Dataset(
        np.concatenate(x), np.concatenate(y).astype(int), weight=weight / weight.mean(), group=groups
    )
    return lightgbm.train(TREES | {"monotone_constraints": [int(name not in EITHER) for name in names]}, given, ROUNDS)


def trees_of(model: Any) -> list[list[float]]:
    """Each tree as three columns, three bounds and four leaves, see ``fusion.Ranker``."""

    def split(node: Mapping[str, Any]) -> tuple[int, float, Any, Any]:
        if "split_feature" not in node:
            return 0, float("inf"), node, node
        return node["split_feature"], node["threshold"], node["left_child"], node["right_child"]

    trees = []
    for each in model.dump_model()["tree_info"]:
        root, bound, left, right = split(each["tree_structure"])
        low, high = split(left), split(right)
        leaves = [leaf["leaf_value"] for leaf in (low[2], low[3], high[2], high[3])]
        bounds = [_below(value) for value in (bound, low[1], high[1])]
        trees.append([root, low[0], high[0], *bounds, *(round(value, 6) for value in leaves)])
    return trees


def _below(bound: float) -> float:
    """The greatest float32 that is no greater, in the fewest digits: bounds lie between values that are float32."""
    nearest = np.float32(min(bound, 1e9))
    if float(nearest) > bound:  # as float32 they would be equal
        nearest = np.nextafter(nearest, np.float32(-np.inf))
    return float(str(nearest))


def scored(each: Answers, ranks: NDArray[np.float64], questions: Sequence[int]) -> dict[str, float]:
    """Mean measures of the questions that have gold, by items in the order of ``ranks``."""
    found = []
    for q in questions:
        if each.gold[q]:
            a, b = each.starts[q], each.starts[q + 1]
            order = np.argsort(-ranks[a:b], kind="stable")
            found.append(measures(ranks_of(list(dict.fromkeys(each.items[a:b][order].tolist())), each.gold[q])))
    return {
        name: round(float(np.mean([one[name] for one in found])), 4) for name in ("recall@5", "recall@10", "ndcg@10")
    }


def calibrated(
    answers: Mapping[str, Answers], ranks: Mapping[str, NDArray[np.float64]], ranker: str
) -> tuple[float, float, dict[str, float]]:
    """bias, scale and certainty by logistic regression, each set and in it each question weighing the same, of its rows
    the first most: there a score is looked at."""
    from scipy.optimize import minimize

    x, y, weights = [], [], []
    for name, each in answers.items():
        known = [feature for feature in CERTAINTY if feature in (*RANKERS[ranker][0], *RANKERS[ranker][1])]
        for q in range(len(each.gold)):
            a, b = each.starts[q], each.starts[q + 1]
            if b > a:
                rank = ranks[name][a:b]
                best = [rank.max(), *(np.nan_to_num(each.features[feature][a:b]).max() for feature in known)]
                x.append(np.column_stack([rank - rank.max(), np.tile(best, (b - a, 1))]))
                y.append(each.labels[a:b] & each.answerable[q])
                first = 1 / (1 + np.argsort(np.argsort(-rank)))
                weights.append(first / first.sum() / len(each.gold))
    rows, labels, weight = np.concatenate(x), np.concatenate(y).astype(float), np.concatenate(weights)
    weight /= weight.sum()
    spread = rows.std(axis=0) + 1e-9

    def loss(p: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = (rows / spread) @ p[1:] + p[0]
        error = 1 / (1 + np.exp(-z)) - labels
        value = (weight * (np.logaddexp(0, z) - labels * z)).sum() + 1e-5 * (p[1:] ** 2).sum()
        return value, np.concatenate([[(weight * error).sum()], (rows / spread).T @ (weight * error) + 2e-5 * p[1:]])

    limits = [(None, None), *[(0, None)] * rows.shape[1]]  # better evidence never makes less sure
    fitted = minimize(loss, np.zeros(rows.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=limits).x
    scale, *certainty = (fitted[1:] / spread).tolist()
    named = zip(("rank", *known), certainty, strict=True)
    return round(float(fitted[0]), 4), round(scale, 4), {name: round(value, 4) for name, value in named if value > 1e-3}


def fit(answers: Mapping[str, Answers], ranker: str, say: Any = print) -> dict[str, Any]:
    """The values of a ranker, with its provenance."""
    columns = {name: tables(each, ranker) for name, each in answers.items()}
    every = {name: np.arange(len(each.gold)) for name, each in answers.items()}
    unseen = {name: np.zeros(len(each.items)) for name, each in answers.items()}
    for fold in range(FOLDS):
        model = train(answers, columns, {n: q[answers[n].folds() != fold] for n, q in every.items()}, ranker)
        for name, each in answers.items():
            questions = every[name][each.folds() == fold]
            if len(questions):
                rows = each.rows(questions)
                unseen[name][rows] = model.predict(columns[name][rows])
    model = train(answers, columns, every, ranker)
    scores: dict[str, Any] = {}
    for name, each in answers.items():
        others = train(answers, columns, {n: q for n, q in every.items() if n != name}, ranker)
        scores[name] = {
            "other folds": scored(each, unseen[name], every[name]),
            "other sets": scored(each, others.predict(columns[name]), every[name]),
            "learned from": scored(each, model.predict(columns[name]), every[name]),
        }
        say(ranker, name, scores[name])
    bias, scale, certainty = calibrated(answers, unseen, ranker)
    standard, plain = RANKERS[ranker]
    data = {
        "standard": standard,
        "plain": plain,
        "bias": bias,
        "scale": scale,
        "certainty": certainty,
        "trees": trees_of(model),
    }
    made = Ranker.of(data | {"provenance": {}})
    name = next(iter(answers))
    difference = np.abs(made.rank_table(columns[name]) - model.predict(columns[name])).max()
    assert difference < 1e-2, f"the trees that are written differ from those that were learned by {difference}"
    say(ranker, "calibration", bias, scale, certainty)
    for name, each in answers.items():
        tops: dict[bool, list[float]] = {True: [], False: []}
        for q in range(len(each.gold)):
            a, b = each.starts[q], each.starts[q + 1]
            if b > a:
                few = {feature: part[a:b] for feature, part in each.features.items()}
                tops[bool(each.answerable[q])].append(float(probability(made.logits(few)).max()))
        if tops[False]:
            scores[name]["abstention, AUROC"] = round(auroc(tops[True], tops[False]), 4)
            say(ranker, name, "abstention", scores[name]["abstention, AUROC"])
    gain: dict[str, float] = {}
    for feature, value in zip([*standard, *plain], model.feature_importance("gain"), strict=True):
        gain[feature] = round(float(value / model.feature_importance("gain").sum()), 4)
    return data | {
        "provenance": {
            "made by": "bench/fit_fusion.py",
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "commit": subprocess.run(
                ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
            ).stdout.strip(),
            "sets": {name: each.sha256 for name, each in answers.items()},
            "questions": {name: len(each.gold) for name, each in answers.items()},
            "part of each feature in what was gained": gain,
            "scores": scores,
        }
    }


def written(rankers: Mapping[str, Any]) -> str:
    """As JSON, a line for each tree."""
    parts = []
    for name, data in rankers.items():
        head = json.dumps({key: value for key, value in data.items() if key != "trees"}, indent=1)
        rows = ",\n".join("  " + json.dumps(tree) for tree in data["trees"])
        parts.append(f'"{name}": {head[:-2]},\n "trees": [\n{rows}\n ]\n}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--sets", default=f"locomo,realtalk,beam,musique,hotpotqa,cranfield,qmsum,{NEEDLES}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "src" / "memspan" / "fusion.json")
    parser.add_argument("--told", type=Path, help="keep the features in this folder, and take them from there")
    given = parser.parse_args()
    model = encoder_of(None)
    assert model is not None
    encoder = Cached(model, given.cache)
    answers: dict[str, dict[str, Answers]] = {ranker: {} for ranker in RANKERS}
    for name in given.sets.split(","):
        kept = {ranker: None if given.told is None else given.told / f"{name}-{ranker}.npz" for ranker in RANKERS}
        if all(file is not None and file.exists() for file in kept.values()):
            told = {ranker: load(file) for ranker, file in kept.items() if file is not None}
        else:
            told = collect(name, given.data, encoder)
            for ranker, file in kept.items():
                if file is not None:
                    save(file, told[ranker])
        for ranker, each in told.items():
            answers[ranker][name] = each
            print(ranker, name, len(each.gold), "questions", len(each.items), "rows", flush=True)
    fitted = {ranker: fit(each, ranker) for ranker, each in answers.items()}
    given.out.write_text(written(fitted), encoding="utf-8")


def save(file: Path, each: Answers) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        **{f"feature {name}": part for name, part in each.features.items()},
        starts=each.starts,
        items=each.items,
        gold=np.array([json.dumps(gold) for gold in each.gold]),
        collections=each.collections,
        answerable=each.answerable,
        sha256=np.array(each.sha256),
    )


def load(file: Path) -> Answers:
    held = np.load(file)
    return Answers(
        {name.removeprefix("feature "): held[name] for name in held.files if name.startswith("feature ")},
        held["starts"],
        held["items"],
        [tuple(json.loads(gold)) for gold in held["gold"].tolist()],
        held["collections"],
        held["answerable"],
        str(held["sha256"]),
    )


if __name__ == "__main__":
    main()
