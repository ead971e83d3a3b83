"""What every data set is read into: collections of items, and questions with the items they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from memspan.errors import InvalidInput


class Absent(InvalidInput):
    """The files of a set are not there; ``mend`` says where to get them."""


@dataclass(frozen=True, slots=True)
class Item:
    """What is looked for: a turn of a conversation, or a passage, which alone has a ``title``, "" where it has none.

    ``text`` is never blank. ``speaker`` is a name, or "user" or "assistant" where there are only these roles.
    """

    id: str
    text: str
    speaker: str | None = None
    session: str | None = None
    when: datetime | None = None
    title: str | None = None

    @property
    def rendered(self) -> str:
        """The item as a context would have it: after who said it, or under its title."""
        if self.speaker:
            return f"{self.speaker}: {self.text}"
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Ask:
    """A question; ``gold``: ids of items of its collection; ``kind``: its category or ability.

    ``answerable``: whether the collection answers it, or a system should notice that it does not. ``groups``: the gold
    by the part it has in the question, where a measure tells them apart. ``sessions``: those that hold an answer, where
    the set is also judged by session.
    """

    text: str
    gold: tuple[str, ...]
    kind: str
    answerable: bool = True
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """Items in order, their ids all different, and the questions about them: one store of its own.

    ``asks`` have at least one gold id each; ``unanswered`` have none and are not answerable.
    """

    id: str
    items: tuple[Item, ...]
    asks: tuple[Ask, ...]
    unanswered: tuple[Ask, ...] = ()


@dataclass(frozen=True, slots=True)
class Set:
    """A data set. ``sha256``: of the bytes of its files, one after the other by name."""

    name: str
    sha256: str
    collections: tuple[Collection, ...]


Read = tuple[list[Path], Iterable[Collection]]
"""The files of a set, and what is in them."""

Reader = Callable[[Path], Read]
"""Reads a set from the folder that holds the sets' folders."""


def collection(id: str, items: Iterable[Item], asked: Iterable[Ask]) -> Collection:
    """A collection with the gold that exists, each id once.

    A question that has none is left out, unless it is one that the items do not answer.
    """
    found = tuple(items)
    known = {item.id for item in found}
    scored, unanswered = [], []
    for ask in asked:
        gold = tuple(id for id in dict.fromkeys(ask.gold) if id in known)
        if gold:
            scored.append(replace(ask, gold=gold))
        elif not ask.answerable:
            unanswered.append(replace(ask, gold=()))
    return Collection(id, found, tuple(scored), tuple(unanswered))


def pooled(collections: Iterable[Collection]) -> Collection:
    """All ``collections`` as one; ids and sessions are then ``collection/id``."""
    items: list[Item] = []
    asks: list[Ask] = []
    unanswered: list[Ask] = []
    for each in collections:

        def within(ids: Iterable[str], name: str = each.id) -> tuple[str, ...]:
            return tuple(f"{name}/{id}" for id in ids)

        for item in each.items:
            session = item.session and f"{each.id}/{item.session}"
            items.append(replace(item, id=f"{each.id}/{item.id}", session=session))
        for ask in each.asks:
            groups = {name: within(ids) for name, ids in ask.groups.items()}
            asks.append(replace(ask, gold=within(ask.gold), groups=groups, sessions=within(ask.sessions)))
        unanswered += each.unanswered
    return Collection("pooled", tuple(items), tuple(asks), tuple(unanswered))


def files(folder: Path, pattern: str) -> list[Path]:
    """The files in ``folder`` by name, at least one. Raises Absent without a mend, which ``load`` knows."""
    found = sorted(folder.glob(pattern))
    if not found:
        raise Absent("data", f"{folder} has no {pattern}")
    return found


def time(text: str | None, form: str) -> datetime | None:
    """In UTC, for the files name no zone; None for what is not in ``form``: some chats have anchors of other kinds."""
    try:
        return None if text is None else datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        return None
