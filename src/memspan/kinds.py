"""The kinds of memory, as data: how long each lasts, and what a context makes of it.

The four of cognitive psychology as CoALA takes them over for agents (arXiv:2309.02427), and MemGPT's core memory, which
is always in view (arXiv:2310.08560).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a segment is remembered as.

    ``stability``, in days: a memory never recalled fades to 1/e of its strength in so many; infinite where it never
    does. ``growth``: each recall adds so many times that. ``ttl``: it is not seen any more so long after it was stored,
    unless it says otherwise; None for ever. ``prunable``: ``prune`` takes it without being asked for this kind.
    ``always``: in every context, asked for or not. ``share`` in (0, 1]: how much of a context's tokens all of its kind
    take together at most. ``place`` in a context: before what was found, with it, or behind it, next to the question.
    """

    name: str
    about: str
    stability: float
    growth: float = 1.0
    ttl: timedelta | None = None
    prunable: bool = True
    always: bool = False
    share: float = 1.0
    place: Literal["first", "found", "last"] = "found"


_KINDS = (
    Kind(name="episodic", about="what happened or was said, once", stability=30),
    Kind(name="semantic", about="a fact, apart from when it was learned", stability=180),
    Kind(name="procedural", about="how something is done", stability=365, prunable=False),
    Kind(
        name="core",
        about="what every answer needs: who the user is, what the agent must never do",
        stability=math.inf,
        prunable=False,
        always=True,
        share=0.25,
        place="first",
    ),
    Kind(
        name="working",
        about="what the task at hand needs, and nothing later",
        stability=1,
        growth=0.0,
        ttl=timedelta(days=1),
        place="last",
    ),
)
KINDS: Final[Mapping[str, Kind]] = MappingProxyType({kind.name: kind for kind in _KINDS})
USUAL_KIND: Final = "episodic"
"""What a segment is unless somebody says."""
