"""What the best candidates are told apart by, beside how they were found: their tokens, the turns around them, who said
them, and how like the very best they are.

Each is a feature of rows by its name, float32[n], NaN where it is not known:

* ``maxsim``, ``window``: MaxSim between the tokens of query and segment (Khattab and Zaharia, SIGIR 2020); and of it
  and the turns beside it as one text.
* ``nearby``: the best keyword score within two turns, its own included.
* ``asks``: 1 for a turn that ends in a question mark. ``asked``: the ``maxsim`` of the turn before where that one asks:
  who answers seldom repeats the words of the question.
* ``speaker``: 1 where the query names who said it, and does not name all who speak here.
* ``user``: 1 for what the user said, where others spoke too: memory is asked for what its owner told it.
* ``echo``: the cosine with the mean vector of the three best (Rocchio 1971).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memspan.activations.tokens import TokenCodec
from memspan.channels import Question
from memspan.fusion import Features, or_zero, standardised
from memspan.ledger.base import Ledger, Seqs
from memspan.views.association import Graph
from memspan.views.base import Selection, find_sorted

REACH = 2  # turns
BEST = 3  # of which ``echo`` takes the mean
VOICED = frozenset(("asks", "asked", "speaker", "user"))
AGREEING = ("semantic", "keyword", "maxsim")  # say which those are, each counting the same

Floats = NDArray[np.float32]
_WORD = re.compile(r"\w+")


class Around(NamedTuple):
    """The turns around rows: (index of the row, seq, how many turns after it), int64[m] each."""

    rows: NDArray[np.int64]
    seqs: Seqs
    steps: NDArray[np.int64]


class LateInteraction:
    """MaxSim: for each of the query's tokens the best cosine with one of the segment's, averaged.

    A token of the query that something in every candidate is like tells none apart. So each weighs by the square of how
    far the candidates are from it on average: inverse document frequency (Spärck Jones 1972) for vectors, which also
    takes the weight from the marks an encoder puts around a text.
    """

    name = "maxsim"
    ASSUMED = 16  # candidates more that are half like each token, so that few candidates do not decide alone

    def __init__(self, ledger: Ledger, codec: TokenCodec) -> None:
        self.codec = codec
        self._ledger = ledger

    def score(
        self, question: Question, namespace: str, seqs: Seqs, beside: Around
    ) -> tuple[Floats, Floats, Floats] | None:
        """Of each of ``seqs`` itself, and of it and the turns ``beside`` it as one text: float32[n] both, in [0, 1],
        NaN where a row has no token matrix. And of each turn beside by itself. None where there is nothing to
        compare."""
        if question.tokens is None or not len(seqs):
            return None
        matrices = self._ledger.tokens_of(namespace, np.union1d(seqs, beside.seqs).tolist())
        best = self.codec.best(question.tokens, matrices)
        at, there = find_sorted(matrices.seqs, seqs)
        if not there.any():
            return None
        each = best[:, at]
        like = (each[:, there].sum(axis=1) + self.ASSUMED / 2) / (there.sum() + self.ASSUMED)
        weights = np.maximum(1 - like, np.float32(1e-6)) ** 2
        weights /= weights.sum()
        own = np.where(there, weights @ each, np.float32(np.nan))
        found, known = find_sorted(matrices.seqs, beside.seqs)
        if known.any():
            order = np.argsort(beside.rows[known], kind="stable")
            rows, starts = np.unique(beside.rows[known][order], return_index=True)
            most = np.maximum.reduceat(best[:, found[known][order]], starts, axis=1)
            each[:, rows] = np.maximum(each[:, rows], most)
        window = np.where(there, weights @ each, np.float32(np.nan))
        return own, window, np.where(known, (weights @ best)[found], np.float32(np.nan))


class Evidence:
    """Gives the features above. ``late`` is None where no tokens are kept."""

    def __init__(self, ledger: Ledger, graph: Graph, late: LateInteraction | None) -> None:
        self.late = late
        self._ledger = ledger
        self._graph = graph

    def of(
        self,
        question: Question,
        selection: Selection,
        seqs: Seqs,
        features: Features,
        keyword: Callable[[Seqs], Floats] | None,
        wanted: frozenset[str],
    ) -> Mapping[str, Floats]:
        """Those of the features ``wanted`` that can be had of ``seqs``, of which ``features`` are known already.
        ``keyword`` scores any rows by their words, for ``nearby``."""
        found: dict[str, Floats] = {}
        around = Around(*self._graph.beside(selection, seqs, REACH))
        beside = Around(*(part[np.abs(around.steps) == 1] for part in around))
        late = None
        if self.late is not None and LateInteraction.name in wanted:
            late = self.late.score(question, selection.namespace, seqs, beside)
        if late is not None:
            found |= {"maxsim": late[0], "window": late[1]}
        if keyword is not None and "nearby" in wanted:
            found["nearby"] = features["keyword"].copy()
            np.maximum.at(found["nearby"], around.rows, keyword(around.seqs))
        if wanted & VOICED:
            asked = None if late is None else late[2]
            found |= self._voiced(question, selection.namespace, seqs, beside, asked)
        if "echo" in wanted and question.vector is not None:
            found["echo"] = self._echo(selection.namespace, seqs, {**features, **found})
        return {name: part for name, part in found.items() if name in wanted}

    def _voiced(
        self,
        question: Question,
        namespace: str,
        seqs: Seqs,
        beside: Around,
        asked: Floats | None,
    ) -> Mapping[str, Floats]:
        before = beside.steps == -1
        every = self._ledger.voices(namespace, [*seqs.tolist(), *beside.seqs[before].tolist()])
        n = len(seqs)
        roles, speakers = every.roles[:n], every.speakers[:n]
        said = np.array(
            [role is not None or speaker is not None for role, speaker in zip(roles, speakers, strict=True)]
        )
        answers = np.zeros(n, np.float32)
        if asked is not None:
            np.maximum.at(answers, beside.rows[before], or_zero(asked[before]) * every.asks[n:])
        words = set(_WORD.findall(question.text.lower()))
        names = {speaker for speaker in speakers if speaker}
        named = {name for name in names if set(_WORD.findall(name.lower())[:1]) & words}
        some = len(named) < len(names)
        mixed = len(set(roles) - {None}) > 1
        return {
            "asks": (every.asks[:n] & said).astype(np.float32),
            "asked": answers,
            "speaker": np.array([some and speaker in named for speaker in speakers], np.float32),
            "user": np.array([mixed and role == "user" for role in roles], np.float32),
        }

    def _echo(self, namespace: str, seqs: Seqs, features: Features) -> Floats:
        found, vectors = self._ledger.vectors_of(namespace, seqs.tolist())
        echo = np.full(len(seqs), np.nan, np.float32)
        at, there = find_sorted(found, seqs)
        if there.any():
            agreed = sum(standardised(features[name]) for name in AGREEING if name in features)
            best = np.argsort(-np.where(there, agreed, -np.inf), kind="stable")[: min(BEST, int(there.sum()))]
            centre = vectors[at[best]].mean(axis=0)
            echo[there] = (vectors[at[there]] @ (centre / max(float(np.linalg.norm(centre)), 1e-9))).clip(0, 1)
        return echo
