"""The values that travel between the modules: frozen, slotted, keyword-only; no behaviour beyond reading them.

Times are timezone-aware ``datetime`` in UTC. Scores are floats in [0, 1], higher is better. Ids are UUIDv7 strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOTHING: Mapping[str, Any] = MappingProxyType({})

Source = Literal["user", "assistant", "tool", "document", "web", "derived", "system"]
Kind = Literal["episodic", "semantic", "procedural", "core", "working"]
"""What a memory is: what happened, what is so, how something is done, what is always in the context, what is only for
now. See ``memspan.kinds.KINDS``."""
State = Literal["quarantined", "merged"]
"""What became of a segment that searches leave out. None: nothing, it is active."""
Reason = Literal["number", "date", "name", "preference", "negation", "wording", "said again"]
"""Why a later statement may have taken the place of an earlier one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose memory. ``namespace`` always holds; each other part, where given, must match too.

    On a write the parts are stored; on a read a part that is None means "any".
    """

    namespace: str = "default"
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    session: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One cut of a text: ``gap + text + tail`` of all pieces in order is the text again, to the character.

    ``gap`` is the white space before the piece, ``tail`` the white space after the last one. ``heading`` is the path of
    headings the piece stands under, outermost first. ``tokens`` counts ``text`` by the tokenizer it was cut with.
    """

    text: str
    gap: str = ""
    tail: str = ""
    heading: tuple[str, ...] = ()
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation, as given: who, what, when (None where the source does not say)."""

    content: str
    role: str = "user"
    name: str | None = None
    time: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceText:
    """A document read from a file: its text, what kind of text it is, and its title."""

    text: str
    media: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A segment about to be written: everything the ledger does not assign itself (ids, seq, recorded_at)."""

    piece: Piece
    scope: Scope
    document_id: str | None = None
    position: int | None = None
    role: str | None = None
    speaker: str | None = None
    category: tuple[str, ...] = ()
    importance: float = 0.5
    source: Source = "user"
    occurred_at: datetime | None = None
    kind: Kind = "episodic"
    state: State | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    content: bytes = b""
    identity: bytes = b""
    terms: tuple[str, ...] = ()
    names: tuple[str, ...] = ("",)
    derived_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The unit of memory, one version of it. Rows are never changed: an update is a new version with the same id.

    ``seq`` is its place in commit order, ``position`` its place in its document or session. ``repeats`` counts how
    often the same content was added again. ``recorded_at`` is when this version was stored, ``heard_at`` when what it
    says was: another category or importance changes only the first. ``ended_at`` is set when a newer version or
    document replaced it, or when it was deleted.

    What it says holds from ``valid_from`` (None: ever since) to ``valid_to`` (None: still); after ``expires_at`` it is
    not found any more. ``state`` is None for what is active.
    """

    id: str
    seq: int
    version: int
    text: str
    namespace: str
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    session: str | None = None
    document_id: str | None = None
    position: int = 0
    role: str | None = None
    speaker: str | None = None
    heading: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    importance: float = 0.5
    source: Source = "user"
    occurred_at: datetime | None = None
    recorded_at: datetime
    heard_at: datetime | None = None
    ended_at: datetime | None = None
    kind: Kind = "episodic"
    state: State | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None
    repeats: int = 0
    tokens: int = 0
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    gap: str = field(default="", repr=False)
    tail: str = field(default="", repr=False)

    @property
    def time(self) -> datetime:
        """When it happened, or where nobody said, when we heard it."""
        return self.occurred_at or self.heard_at or self.recorded_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit(Segment):
    """A segment found by a search, with its score in [0, 1], and, if asked to explain, each channel's part.

    ``path`` says by which hops the graph added most to its score: empty where it added nothing.
    """

    score: float
    channels: Mapping[str, float] | None = None
    path: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A stated link from one segment to another: ``kind`` is the relation, ``weight`` in (0, 1] how strong it is.

    ``at`` None is now, when it is stored.
    """

    source: str
    target: str
    kind: str
    weight: float = 1.0
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One hop in the graph, from the segment ``id`` onward: by ``kind``, for ``mentions`` over the name ``via``."""

    id: str
    kind: str
    via: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbor(Segment):
    """A segment reached from another one: ``strength`` in (0, 1], and the ``path`` that led there, one step a hop."""

    strength: float
    path: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of the category tree: a category somebody named, or a cluster that grew by itself.

    ``path`` is the category's path (a cluster's: of the category it lies in); ``label`` its last step, or a cluster's
    most telling words. ``segments`` counts everything below it. ``examples`` are texts from it.
    """

    key: str
    kind: Literal["category", "cluster"]
    path: tuple[str, ...]
    label: str
    segments: int
    children: tuple[Node, ...] = ()
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """A community of the graph: what its segments are about, how many they are, and the most central of them."""

    label: str
    segments: int
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """How much happened when: ``segments`` of them from ``start`` up to, not including, ``end``, and how many in each
    of equal parts of that time. ``page`` are some of them, in the order of their times. Where there is nothing, start
    and end are those that were asked for."""

    start: datetime | None
    end: datetime | None
    segments: int
    counts: tuple[int, ...]
    page: tuple[Segment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text that was cut into segments, put back together exactly."""

    id: str
    uri: str | None
    title: str | None
    media: str
    sha256: str
    text: str
    segments: tuple[str, ...]
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What an ``add`` did. ``ids`` holds one id per segment in order, new and repeated alike.

    ``stripped``: how many contexts of memspan's own were found in it and left out. ``skipped``: how many texts were not
    stored, as they were nothing but that, or turns of the assistant that repeat what somebody else had said.
    """

    ids: tuple[str, ...]
    added: int
    repeated: int
    document_id: str | None = None
    pending: int = 0
    operation: str | None = None
    stripped: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of a segment's history. Of an erased segment nothing is left but that it was erased.

    ``operation`` is what ``undo`` takes; None where it happened before there was a log.
    """

    event: Literal["ADD", "UPDATE", "DELETE", "ERASE"]
    id: str
    version: int
    at: datetime
    text: str | None = None
    metadata: Mapping[str, Any] | None = None
    operation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one call changed: how many ``segments``, when, and by whom where that was said.

    ``undoes`` is the operation that it took back, ``undone_by`` the one that took it back.
    """

    id: str
    verb: str
    namespace: str
    at: datetime
    segments: int
    actor: str | None = None
    undoes: str | None = None
    undone_by: str | None = None
    detail: Mapping[str, Any] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What somebody said of a segment a query found: that it was ``useful`` or not. ``at`` None is now, when it is
    stored."""

    query: str
    id: str
    useful: bool
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided of two segments: that ``newer`` took the place of ``older``, or did not."""

    older: str
    newer: str
    accepted: bool
    at: datetime


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Version:
    """A version of a segment as an archive holds it, with what makes it the same when it comes back.

    ``identity``: 16 bytes where they do not follow from what the segment says (equal turns of one call), else empty.
    ``pooled`` float16[dim] and the bytes of its token matrix, where the archive has them.
    """

    segment: Segment
    identity: bytes = b""
    pooled: NDArray[np.float16] | None = None
    tokens: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filing:
    """A document as an archive holds it: everything but its text, which is that of its segments. ``owner`` (16 bytes)
    says which document it is a version of, ``sha256`` (32 bytes) is of its text."""

    id: str
    owner: bytes
    uri: str | None
    title: str | None
    media: str
    sha256: bytes
    recorded_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How often searches returned a segment, when last, and the best of its scores."""

    id: str
    times: int
    at: datetime
    relevance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """That a segment was deleted: how many versions it had, and when."""

    id: str
    version: int
    at: datetime


Archived = Version | Filing | Edge | Judgement | Verdict | Usage | Tombstone
"""All that a namespace holds, in the order in which archives have it: documents before their segments, the versions of
segments by time, then what refers to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOf:
    """Of which time memory is asked.

    ``known``: what was known then (None: now). ``valid``: what was true then (None: the time of ``known``).
    ``superseded``: also what was not, what has expired, and what was merged into another segment.
    """

    known: datetime | None = None
    valid: datetime | None = None
    superseded: bool = False


NOW = AsOf()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One search: what is asked, of whose memory, as of when, and how many hits with at least which score."""

    text: str
    scope: Scope
    filters: Filter | None = None
    as_of: AsOf = NOW
    k: int = 10
    threshold: float = 0.0
    recipe: str = "default"
    explain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """``[number]`` in a context's text, and the segments it stands for."""

    number: int
    ids: tuple[str, ...]
    score: float
    time: datetime
    speaker: str | None = None
    document_id: str | None = None
    title: str | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A context to hand to a model. ``tokens`` counts ``text`` as a whole with ``tokenizer`` and is at most ``budget``.

    ``complete`` is True when everything in scope is in it.
    """

    text: str
    tokens: int
    budget: int
    tokenizer: str
    citations: tuple[Citation, ...]
    complete: bool
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One comparison of a filter: ``field`` is a segment's column or a path into its metadata."""

    field: str
    path: tuple[str, ...]
    operator: Literal["eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains"]
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Junction:
    """``AND``, ``OR`` or ``NOT`` (none of) over filters."""

    kind: Literal["AND", "OR", "NOT"]
    parts: Sequence[Filter]


Filter = Condition | Junction


def as_dict(record: Any) -> dict[str, Any]:
    """A record as plain JSON-ready values: times as ISO 8601, tuples as lists, nested records as dicts.

    Fields that only matter to the machine (``seq``, ``gap``, ``tail``) are left out.
    """
    return {f.name: _plain(getattr(record, f.name)) for f in fields(record) if f.name not in {"seq", "gap", "tail"}}


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return as_dict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
