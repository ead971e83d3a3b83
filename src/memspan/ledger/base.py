"""The ledger port: the one truth everything else is derived from.

Every call takes the namespace (alone or in a Scope), so no query can leave it out. A ledger keeps rows and never
searches by meaning: the views do that, from what the calls under "Feeding the views" hand them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from memspan.activations.tokens import Activation, Matrices
from memspan.entities import entities
from memspan.keys import Keys
from memspan.ledger.tables import Entry, Table, Whole
from memspan.records import (
    NOTHING,
    NOW,
    Added,
    AsOf,
    Document,
    Draft,
    Edge,
    Event,
    Filing,
    Filter,
    Judgement,
    Operation,
    Scope,
    Segment,
    Source,
    Tombstone,
    Usage,
    Verdict,
)

SEPARATOR = "\x1f"
DUPLICATE = "duplicate"  # links from what was merged into a segment to that segment
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MONTHS = (  # not by strftime, whose names follow the locale of the process
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip

VERDICT = ""
"""The kind by which a ``Relink`` from a newer to an older segment says what was decided of them: accepted (1)
or rejected (0). No link has it, for a name is never empty."""

Seqs = NDArray[np.int64]
Vectors = NDArray[np.float32]


def microseconds(time: datetime) -> int:
    """Microseconds since 1970 UTC of an aware datetime, exactly."""
    return (time - EPOCH) // timedelta(microseconds=1)


def now() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def instant(value: int) -> datetime:
    """The datetime ``microseconds`` came from."""
    return EPOCH + timedelta(microseconds=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentDraft:
    """A text cut into several segments, about to be written. ``owner`` says which document it is a version of."""

    id: str
    owner: bytes
    uri: str | None
    title: str | None
    media: str
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """A caller's key and the hash of what it came with."""

    key: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A view's file on disk: everything of one namespace up to ``position``."""

    namespace: str
    view: str
    position: int
    rows: int
    file: str
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unencoded:
    """A segment that waits for its vector."""

    seq: int
    namespace: str
    content: bytes
    text: str
    speaker: str | None
    heading: tuple[str, ...]
    occurred_at: datetime | None

    @property
    def encoded_text(self) -> str:
        return encoded_text(self.text, self.speaker, self.heading)

    @property
    def analysed_text(self) -> str:
        return analysed_text(self.encoded_text, self.occurred_at)


class Placed(NamedTuple):
    """Where a row stands: what the tree and the graph are made of, beside vectors.

    ``group`` names the session or document in which ``position`` counts, 8 bytes of which the first bit is set for a
    document; None for a text that stands alone. ``names`` are those it mentions, joined by U+001F, the title or an
    empty text first; None where they are not kept any more.
    """

    seq: int
    group: bytes | None
    position: int
    category: tuple[str, ...]
    names: str | None


class Link(NamedTuple):
    """An edge between two rows that are current now, in its own direction."""

    source: int
    target: int
    kind: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """What the segment ``id``, of which ``version`` is the last, shall say from now on; ``draft`` None: nothing any
    more. ``ended``: it says nothing now."""

    id: str
    version: int
    draft: Draft | None
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Relink:
    """What becomes of a link, or of a verdict (``kind`` VERDICT): its ``weight`` in [0, 1], or None where it goes."""

    source: str
    target: str
    kind: str
    weight: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """How the log tells of a change: by which ``verb``, ``detail`` as JSON values that say nothing of what segments
    say, the ``operation`` it goes on with, and the one it ``undoes``."""

    verb: str
    detail: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    operation: str | None = None
    undoes: str | None = None


ADD, UPDATE, ERASE, IMPORT = Why(verb="add"), Why(verb="update"), Why(verb="erase"), Why(verb="import")


@dataclass(frozen=True, slots=True, kw_only=True)
class Revised:
    """The new versions, in the order asked, and the id of the operation."""

    segments: list[Segment]
    operation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """How many segments were removed, with how many versions; ``derived`` of them because others were. ``first`` is the
    least seq among them, None where there were no rows."""

    segments: int
    versions: int
    derived: int = 0
    operation: str | None = None
    first: int | None = None


class Due(NamedTuple):
    """Scrubbing that is left to do: the last ``operation`` that erased, and whether space is to be freed."""

    operation: str
    vacuum: bool


class Changed(NamedTuple):
    """What an operation did to the segment ``id``: its version ``before`` and ``after``, None where there was none or
    is none any more."""

    id: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Standing:
    """What else is known of rows, beside what they say: one entry a row, in the order asked.

    All float64[n] but ``kinds``: ``importance`` and ``relevance`` in [0, 1]; ``heard_at`` (when it happened, or where
    nobody said, was heard), ``stored_at`` (when it was heard) and ``accessed_at`` (0 where never) in microseconds since
    1970; ``accesses`` a count; ``categorised`` 1 where it has a category. A row that is gone has importance NaN.
    """

    importance: NDArray[np.float64]
    heard_at: NDArray[np.float64]
    accesses: NDArray[np.float64]
    accessed_at: NDArray[np.float64]
    relevance: NDArray[np.float64]
    categorised: NDArray[np.float64]
    stored_at: NDArray[np.float64]
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voices:
    """Who said rows, and how: one entry a row, in the order asked; of a row that is gone None and False.

    ``asks`` bool[n]: it ends in a question mark.
    """

    roles: tuple[str | None, ...]
    speakers: tuple[str | None, ...]
    asks: NDArray[np.bool_]


Stamp = tuple[Any, ...]
"""What changes with anything that is written of a segment: its versions, use, links, verdicts and judgements."""

Reference = Edge | Judgement | Verdict | Usage | Tombstone
"""What an archive holds beside documents and the versions of segments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restorable:
    """A version of the segment ``id`` that ``restore`` takes over; its draft has a position.

    ``dated``: ``recorded_at`` says when this version was recorded there; else it is only now. ``counted``: ``version``
    counts the versions of this segment as this ledger does.
    """

    id: str
    draft: Draft
    version: int = 1
    recorded_at: datetime
    heard_at: datetime | None = None
    ended_at: datetime | None = None
    repeats: int = 0
    dated: bool = True
    counted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """What one transaction of ``restore`` takes over. ``refiled`` are documents that another system has now: current
    here too, whatever was here since. ``same``: what earlier ones told under this name."""

    filings: Sequence[Filing] = ()
    refiled: Sequence[Filing] = ()
    versions: Sequence[Restorable] = ()
    references: Sequence[Reference] = ()
    same: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Restored:
    """What ``restore`` did, in versions: see ``records.Imported``. ``same``: the id here of what was left out because
    it is said here already."""

    added: int = 0
    updated: int = 0
    there: int = 0
    deleted: int = 0
    links: int = 0
    pending: int = 0
    operation: str | None = None
    changes: list[Any] = field(default_factory=list)
    same: dict[str, str] = field(default_factory=dict)
    conflicts: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How a segment was returned by searches: how often, when last, and the best of its scores."""

    times: int
    at: datetime
    relevance: float


def encoded_text(text: str, speaker: str | None, heading: tuple[str, ...]) -> str:
    """What the encoder reads of a segment: its text, after who said it or the heading it stands under.

    A question names the speaker or the topic, the answer often does not: see docs/decisions/0004-indexed-text.md.
    """
    if speaker:
        return f"{speaker}: {text}"
    return f"{heading[-1]}\n{text}" if heading and not text.startswith(heading[-1]) else text


def analysed_text(encoded: str, occurred_at: datetime | None) -> str:
    """What the analyser reads of it: the same, and the day it happened where that is known, as "30 May 2026"."""
    if occurred_at is None:
        return encoded
    return f"{encoded}\n{occurred_at.day} {MONTHS[occurred_at.month - 1]} {occurred_at.year}"


def names_in(encoded: str) -> tuple[str, ...]:
    """What it mentions, for the graph: its title first, or an empty text, then the other names."""
    found = entities(encoded)
    return (found.title or "", *found.names)


def cites(metadata: Mapping[str, Any]) -> list[str]:
    """The ids of the segments of which a derived one cites passages: ``{"cites": [{"id", "start", "end"}, ...]}``."""
    listed = metadata.get("cites")
    given = [each.get("id") for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
    return [id for id in given if isinstance(id, str)]


class Ledger(Protocol):
    """All calls are safe from several threads; several processes may hold one store open. Errors are StoreErrors."""

    keys: Keys | None  # of an encrypted store: they seal what views keep beside the ledger

    # Writing: each call is one transaction, durable when it returns.
    def append(
        self,
        namespace: str,
        drafts: Sequence[Draft],
        *,
        documents: Sequence[DocumentDraft] = (),
        activations: Mapping[bytes, Activation] | None = None,
        encoder: str | None = None,
        idempotency: Idempotency | None = None,
        why: Why = ADD,
    ) -> Added: ...
    def revise(
        self,
        namespace: str,
        revisions: Sequence[Revision],
        activations: Mapping[bytes, Activation] | None,
        encoder: str | None = None,
        *,
        relinks: Sequence[Relink] = (),
        distinct: bool = False,
        why: Why = UPDATE,
    ) -> Revised | None: ...
    def delete(self, namespace: str, ids: Sequence[str]) -> int: ...
    def delete_scope(self, scope: Scope, filters: Filter | None) -> int: ...
    def erase(
        self,
        namespace: str,
        ids: Sequence[str],
        why: Why = ERASE,
        *,
        archived: Sequence[str] = (),
        vacuum: bool = False,
    ) -> Removal: ...
    def erase_scope(
        self, scope: Scope, filters: Filter | None, *, archived: Sequence[str] = (), vacuum: bool = False
    ) -> Removal: ...
    def derived(self, namespace: str, ids: Collection[str]) -> set[str]: ...
    def erased(self, namespace: str, ids: Collection[str]) -> set[str]: ...
    def due(self) -> Due | None: ...
    def scrub(self, *, vacuum: bool) -> list[str]: ...
    def done(self, due: Due) -> None: ...
    def said(self) -> Iterator[str]: ...
    def keeps(self, activation: Activation) -> bool: ...
    def contents(self) -> Iterator[tuple[str, Iterator[bytes]]]: ...
    def unaccounted(self) -> Iterator[tuple[str, int]]: ...
    def prune(self, namespace: str, stamps: Mapping[str, Stamp], why: Why) -> bool: ...
    def encoded(
        self,
        activations: Mapping[bytes, Activation],
        encoder: str | None = None,
        namespaces: Collection[str] | None = None,
    ) -> int: ...
    def link(self, namespace: str, edge: Edge) -> None: ...
    def unlink(self, namespace: str, source: str, target: str, kind: str | None) -> int: ...
    def used(self, namespace: str, uses: Mapping[str, Use]) -> None: ...
    def judge(self, namespace: str, judgements: Sequence[Judgement]) -> None: ...
    def forget_judgements(self, namespace: str, query: str | None, id: str | None) -> int: ...

    # Reading. Within ``reading()`` all reads of this thread see one moment of the store, ``newest()`` begins another.
    def reading(self) -> AbstractContextManager[object]: ...
    def newest(self) -> AbstractContextManager[object]: ...
    def moment(self) -> object | None: ...
    def get(self, namespace: str, id: str) -> Segment: ...
    def fetch(self, namespace: str, seqs: Sequence[int]) -> list[Segment]: ...
    def listing(
        self, scope: Scope, filters: Filter | None, limit: int, after: str | None, as_of: AsOf = NOW
    ) -> list[Segment]: ...
    def history(self, namespace: str, id: str) -> list[Event]: ...
    def versions(self, namespace: str, ids: Sequence[str]) -> dict[str, list[Segment]]: ...
    def operations(
        self, namespace: str, id: str | None = None, *, limit: int = 100, before: str | None = None
    ) -> list[Operation]: ...
    def operation(self, namespace: str, id: str) -> tuple[Operation, list[Changed], list[Relink]]: ...
    def forgotten(self, namespace: str, operation: str) -> bool: ...
    def relinked(self, namespace: str, since: datetime) -> list[Relink]: ...
    def log_head(self) -> dict[str, Any]: ...
    def document(self, namespace: str, id: str) -> Document: ...
    def unchanged(self, namespace: str, document_id: str) -> tuple[str, ...] | None: ...
    def outcomes(self, namespace: str) -> list[tuple[Source, str | None, int, int, int, int, int]]: ...
    def echoes(self, scope: Scope, turns: Sequence[tuple[bytes, bytes]]) -> set[bytes]: ...
    def titles(self, namespace: str, ids: Sequence[str]) -> dict[str, str]: ...
    def judgements(self, namespace: str) -> list[Judgement]: ...
    def verdicts(self, namespace: str) -> list[Verdict]: ...
    def replay(self, namespace: str, idempotency: Idempotency) -> Added | None: ...
    def namespaces(self) -> list[str]: ...

    # Feeding the views
    def select(
        self, scope: Scope, filters: Filter | None, as_of: AsOf | None, after: int
    ) -> tuple[Seqs, NDArray[np.int32]]: ...
    def times(
        self, scope: Scope, filters: Filter | None, as_of: AsOf | None, since: datetime | None, until: datetime | None
    ) -> tuple[Seqs, Seqs]: ...
    def changes_at(self, namespace: str) -> datetime | None: ...
    def of_kind(self, scope: Scope, kind: str, as_of: AsOf) -> list[Segment]: ...
    def rows(self, namespace: str) -> Seqs: ...
    def count_after(self, namespace: str, after: int) -> int: ...
    def last_row(self, namespace: str) -> int: ...
    def last_removal(self, namespace: str) -> int: ...
    def removals(self, namespace: str, after: int) -> tuple[int, Seqs]: ...
    def vectors(self, namespace: str, after: int, limit: int) -> tuple[Seqs, Vectors]: ...
    def vectors_of(self, namespace: str, seqs: Sequence[int]) -> tuple[Seqs, Vectors]: ...
    def tokens_of(self, namespace: str, seqs: Sequence[int]) -> Matrices: ...
    def known(self, namespace: str, contents: Sequence[bytes]) -> set[bytes]: ...
    def pending(self, namespace: str | None, limit: int) -> list[Unencoded]: ...
    def count_pending(self, namespace: str | None) -> int: ...
    def pending_seqs(self, namespace: str) -> Seqs: ...
    def tail_postings(self, namespace: str, term: str, after: int) -> Seqs: ...
    def tail_terms(self, namespace: str, after: int, limit: int) -> list[tuple[int, list[str]]]: ...
    def texts(self, namespace: str, after: int, upto: int, limit: int) -> list[Unencoded]: ...
    def structure(self, namespace: str, after: int, limit: int) -> list[Placed]: ...
    def links(self, namespace: str, seqs: Sequence[int], as_of: datetime | None = None) -> list[Link]: ...
    def standing(self, namespace: str, seqs: Sequence[int]) -> Standing: ...
    def voices(self, namespace: str, seqs: Sequence[int]) -> Voices: ...
    def snapshot(self, namespace: str, view: str) -> Snapshot | None: ...
    def put_snapshot(self, snapshot: Snapshot, encoder: str | None) -> None: ...
    def drop_snapshot(self, namespace: str, view: str) -> None: ...
    def trim_tail(self, namespace: str, upto: int) -> int: ...
    def trim_mentions(self, namespace: str, upto: int) -> int: ...

    # Archives
    def archive(self, scope: Scope, filters: Filter | None, *, history: bool) -> Seqs: ...
    def rows_of(self, namespace: str, ids: Sequence[str]) -> Seqs: ...
    def stamps(self, namespace: str, ids: Sequence[str]) -> dict[str, Stamp]: ...
    def named(self, namespace: str, seqs: Sequence[int]) -> tuple[set[str], set[str]]: ...
    def identities(self, namespace: str, seqs: Sequence[int]) -> dict[int, bytes]: ...
    def filings(self, namespace: str) -> Iterator[Filing]: ...
    def references(self, namespace: str) -> Iterator[Reference]: ...
    def restore(
        self,
        namespace: str,
        batch: Taking,
        activations: Mapping[bytes, Activation] | None = None,
        encoder: str | None = None,
        *,
        revive: bool = False,
        dry_run: bool = False,
        why: Why = IMPORT,
    ) -> Restored: ...

    # Copies of whole stores
    apart: bool  # whether each namespace has seqs and a log of its own; else those of all share one count and one chain

    def values(self) -> dict[str, str]: ...
    def table(self, namespace: str, table: Table, after: Sequence[Any] | None, limit: int) -> list[tuple[Any, ...]]: ...
    def whole(self, namespace: str, seqs: Sequence[int]) -> list[Whole]: ...
    def entries(self, namespace: str, after: int, limit: int) -> list[Entry]: ...
    def activations(self, namespace: str, contents: Sequence[bytes]) -> dict[bytes, Activation]: ...
    def settle_in(self, namespaces: Sequence[str]) -> None: ...
    def take_whole(
        self,
        namespace: str,
        rows: Sequence[tuple[Whole, Draft]],
        activations: Mapping[bytes, Activation] | None,
    ) -> int: ...
    def change_whole(self, namespace: str, rows: Sequence[tuple[Any, ...]], gone: Sequence[bytes]) -> None: ...
    def take_activations(
        self, namespace: str, activations: Mapping[bytes, Activation], waiting: Sequence[tuple[int, bytes]]
    ) -> None: ...
    def take_rows(
        self, namespace: str, table: Table, rows: Sequence[tuple[Any, ...]], gone: Sequence[tuple[Any, ...]]
    ) -> None: ...
    def take_entries(self, entries: Sequence[tuple[str, Entry]]) -> None: ...

    # The store itself
    def value(self, key: str) -> str | None: ...
    def put_values(self, values: Mapping[str, str], *, replace: bool) -> None: ...
    def change_value(self, key: str, change: Callable[[str | None], str]) -> None: ...
    def covers(self) -> list[str] | None: ...
    def counts(self) -> dict[str, Any]: ...
    def problems(self, *, log_only: bool = False) -> Iterator[tuple[int, int, str | None]]: ...

    # Activations as a whole: what was lost and is made again, what nothing refers to, another encoding beside this one
    @property
    def harmed(self) -> bool: ...
    def lose(self) -> None: ...
    def lost(self, limit: int) -> list[Unencoded]: ...
    def collect(self) -> None: ...
    def activation_bytes(self) -> dict[str, Any]: ...
    def begin_encoding(self, encoder: str) -> int: ...
    def unencoded(self, namespace: str, encoding: int, after: int, limit: int) -> list[Unencoded]: ...
    def keep_encoding(self, namespace: str, activations: Mapping[bytes, Activation], encoding: int) -> None: ...
    def use_encoding(
        self, encoding: int, encoder: str, basis: str, after: Mapping[str, int], *, vectors: bool
    ) -> bool: ...
    def sample(self, most: int) -> list[str]: ...
    def give_up_encoding(self) -> None: ...
    def count_unencoded(self, encoding: int) -> int: ...
    def drop_encodings(self) -> None: ...
    def forget_activations(self, encoder: str) -> None: ...
    def tidy(self) -> None: ...
    def turn(self, name: str, *, wait: bool = False) -> AbstractContextManager[bool]: ...
    def close(self) -> None: ...
