"""Named ways of searching, as data: which channels propose, who goes on from there, what tells the best apart.

``fast`` stops at what the channels and the graph say. ``default`` reads the tokens of the best and ranks them anew.
``deep`` looks wider, and goes along the graph twice, where the answer of ``default`` is unsure of itself: the two
processes of D-Mem (arXiv:2603.18631). ``dsm`` is routed by the tree and weighs the whole priority vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from memspan.errors import InvalidInput
from memspan.fusion import Model
from memspan.segmenting import shown

CANDIDATES = 64  # per channel: recall@10 is on every set what it is with 100
RANKED = 64  # of which the tokens are read, and which are ranked anew
RERANK = "rerank"
TUNING = "tuning"
RERANKED = 32  # of which a reranker reads the text: some 0.6 s of a model of six layers on two busy cores
RERANKER = 2 / 3  # its part: it decides but between what it finds alike; by judgement, docs/decisions/0011-reranker.md
USUAL = {"importance": 0.5, "relevance": 0.5}  # what a segment has unless somebody says
EVIDENCE = {
    "maxsim": ("maxsim", "window", "asked"),
    "window": ("window",),
    "asked": ("asked",),
    "nearby": ("nearby",),
    "asks": ("asks",),
    "speaker": ("speaker",),
    "user": ("user",),
    "echo": ("echo",),
}
"""The features of ``memspan.evidence``, by the part of a recipe that they go with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which channels propose, which followers go on from what they found, and how their scores become one.

    ``models`` by the features a row has, most first. ``seeding`` scores what the channels found, for the followers, who
    go ``rounds`` times. ``ranked``: how many of the best are ranked anew by a ``Ranker`` with ``evidence``; 0 for none.
    ``updates``: of two statements about the same thing the newer goes first. ``priorities``: what importance and the
    like add to the logit of a score. ``tuned``: so does what was learned from judgements in the namespace. ``rerank``:
    of how many of the best of all a reranker, where the store has one, reads the text, and ``reranker`` in [0, 1] its
    part in their score, in logits. ``shared``: what others put in the namespace may move scores in a narrower scope:
    what categories are about. Where the best score is below ``gate``, the recipe ``wider`` answers instead.
    """

    channels: tuple[str, ...]
    models: tuple[Model, ...]
    followers: tuple[str, ...] = ()
    seeding: tuple[Model, ...] = ()
    rounds: int = 1
    candidates: int = CANDIDATES
    ranked: int = 0
    evidence: frozenset[str] = frozenset()
    updates: bool = False
    priorities: Mapping[str, float] = field(default_factory=dict)
    rerank: int = RERANKED
    reranker: float = RERANKER
    shared: bool = False
    tuned: bool = False
    gate: float = 0.0
    wider: Recipe | None = None

    @property
    def features(self) -> frozenset[str]:
        """The names of all features that count."""
        linear = (name for model in self.models for name in (*model.weights, *model.extras))
        return frozenset((*linear, *self.evidence, *self.priorities))

    @property
    def parts(self) -> tuple[str, ...]:
        """What can be left out of it by name."""
        evidence = [part for part, names in EVIDENCE.items() if self.evidence.issuperset(names)]
        own = [part for part, has in (("updates", self.updates), (TUNING, self.tuned)) if has]
        channels = self.channels if len(self.channels) > 1 else ()
        return (*channels, *self.followers, *evidence, *own, RERANK)

    def without(self, part: str) -> Recipe:
        """The same without one of ``parts``."""
        return replace(
            self,
            channels=tuple(name for name in self.channels if name != part),
            followers=tuple(name for name in self.followers if name != part),
            evidence=self.evidence.difference(EVIDENCE.get(part, ())),
            updates=self.updates and part != "updates",
            tuned=self.tuned and part != TUNING,
            rerank=0 if part == RERANK else self.rerank,
            wider=self.wider and self.wider.without(part),
        )


_FITTED = (
    "fitted by logistic regression on the candidates of the tuning halves of LoCoMo, RealTalk, BEAM 100K, MuSiQue,"
    " HotpotQA and Cranfield, each set weighing the same, rounded; 2026-11-21, docs/decisions/0005-first-fusion.md"
)
BOTH = Model(bias=-6.7, weights={"semantic": 5.0, "keyword": 5.5}, provenance=_FITTED)
KEYWORD = Model(bias=-5.2, weights={"keyword": 8.1}, provenance=_FITTED)
SEMANTIC = Model(bias=-7.0, weights={"semantic": 7.7}, provenance=_FITTED)

_ALONG = (
    "weights of margin, next and mentions chosen on the same sets and on 100 needles, scale and bias fitted;"
    " 2026-11-24, docs/decisions/0008-graph.md"
)
_GRAPH = {"margin": 10.0, "next": 2.3, "mentions": 1.15, "named": 0.6}
ALONG = (
    Model(bias=-5.9, weights={"semantic": 3.8, "keyword": 4.2}, extras=_GRAPH, provenance=_ALONG),
    Model(bias=-4.8, weights={"keyword": 6.2}, extras=_GRAPH, provenance=_ALONG),
    replace(SEMANTIC, extras=_GRAPH),
)
SEEDING = (replace(BOTH, extras={"margin": 10.0}), KEYWORD, SEMANTIC)
STATED = {"category": 0.5, "importance": 0.5}  # by judgement: no set tells
WHOLE = STATED | {"recency": 0.3, "frequency": 0.3, "relevance": 0.3, "strength": 0.3}
NEAR = {"graph": 0.3}

_FAST = Recipe(
    channels=("semantic", "keyword"),
    followers=("next", "mentions", "named"),
    seeding=SEEDING,
    models=ALONG,
    priorities=STATED,
)
_DEFAULT = replace(
    _FAST,
    ranked=RANKED,
    evidence=frozenset(name for names in EVIDENCE.values() for name in names),
    updates=True,
    tuned=True,
)
_WIDER = replace(_DEFAULT, candidates=256, ranked=192, rounds=2)

RECIPES: Mapping[str, Recipe] = {
    "default": _DEFAULT,
    "fast": _FAST,
    "deep": replace(_DEFAULT, gate=0.3, wider=_WIDER),
    "dsm": replace(
        _DEFAULT,
        channels=("tree", "semantic", "keyword"),
        followers=("next", "mentions", "named", "graph"),
        priorities=WHOLE | NEAR,
        shared=True,
    ),
    "flat": Recipe(channels=("semantic", "keyword"), models=(BOTH, KEYWORD)),
    "semantic": Recipe(channels=("semantic",), models=(SEMANTIC,)),
    "keyword": Recipe(channels=("keyword",), models=(KEYWORD,)),
}


def recipe_named(name: str) -> Recipe:
    """The recipe called ``name``; "default-next" is the default one without its part ``next``, "default-maxsim" the one
    without late interaction, "default-rerank" the one without a reranker.

    Raises InvalidInput.
    """
    known, *without = name.split("-") if isinstance(name, str) else ("",)
    recipe = RECIPES.get(known)
    if recipe is None:
        raise InvalidInput("recipe", f"there is no {shown(name)}", mend=f"use one of {', '.join(RECIPES)}")
    for part in without:
        if part not in recipe.parts:
            mend = f"of {known} these can be left out: {', '.join(recipe.parts)}"
            raise InvalidInput("recipe", f"{shown(name)} leaves out what is no part of {known}", mend=mend)
        recipe = recipe.without(part)
    return recipe
