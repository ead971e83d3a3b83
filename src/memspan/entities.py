"""Names of things that a text mentions (placeholder: being written)."""

from __future__ import annotations

import re
from typing import NamedTuple

_CAPITALS = re.compile(r"\b[A-Z][\w'’-]*(?:\s+(?:of\s+|the\s+|de\s+)*[A-Z0-9][\w'’-]*)*")


class Mentions(NamedTuple):
    """The title of a text, if it has one, and the names in it."""

    title: str | None
    names: tuple[str, ...]


def entities(text: str) -> Mentions:
    """The names in ``text``."""
    first, _, rest = text.partition("\n")
    title = re.sub(r"\s*\(.*?\)", "", first).strip().lower() if rest and len(first) < 80 and first[-1:] not in ".!?:" else None
    names = dict.fromkeys(match[0].lower().removesuffix("'s") for match in _CAPITALS.finditer(text))
    return Mentions(title or None, tuple(names)[:64])
