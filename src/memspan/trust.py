"""How far a source is to be believed: what is thought of its kind beforehand, moved by what became of what it said.

The Beta reputation system (Jøsang and Ismail, Bled 2002): a source is right with a probability of which so many good
and bad outcomes are evidence; expected is ``good / (good + bad)``, with the prior counted as outcomes seen before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from memspan.records import Source, Trust

STRENGTH: Final = 10.0  # outcomes that what is thought beforehand weighs as much as
PRIORS: Final[Mapping[Source, float]] = {
    "user": 0.9,  # whose memory it is
    "system": 0.9,  # set by who runs it
    "document": 0.8,
    "tool": 0.7,
    "assistant": 0.6,  # says what is likely, too
    "derived": 0.5,  # made of others by a rule or a model
    "web": 0.4,  # anybody may have written it, for the reader or against
}
"""What is believed of a source of which nothing is known, by judgement: no data set tells."""

JUDGED: Final = 0.5  # of an outcome: what is of no use to one question need not be wrong
DECIDED: Final = 1.0


def trusted(
    source: Source,
    agent_id: str | None,
    *,
    segments: int = 0,
    useful: int = 0,
    rejected: int = 0,
    contradicted: int = 0,
    quarantined: int = 0,
) -> Trust:
    """A source with its trust, from so many outcomes of what it said."""
    good = STRENGTH * PRIORS[source] + JUDGED * useful
    bad = STRENGTH * (1 - PRIORS[source]) + JUDGED * rejected + DECIDED * (contradicted + quarantined)
    return Trust(
        source=source,
        agent_id=agent_id,
        trust=good / (good + bad),
        segments=segments,
        useful=useful,
        rejected=rejected,
        contradicted=contradicted,
        quarantined=quarantined,
    )
