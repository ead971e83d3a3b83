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
class Trace:
    """A place where something of what was erased still stands: in ``file`` (relative to the store, with the member
    after a "!" where it is an archive), at byte ``offset`` of it; ``what``: "text", "word", "term", "name", "hash",
    "vector" or "tokens". What stands there is not told."""

    file: str
    offset: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What ``Memory.verify_erasure`` looked for and found: ``texts`` that were given, in ``needles`` forms, in so many
    ``files`` and ``bytes`` of the store; ``vectors``: also by what the encoder makes of them. ``operation`` erased it,
    ``log_hash`` is of the last of the log's ``log_entries``. It holds nothing of what was erased."""

    path: str
    checked_at: datetime
    operation: Operation | None
    log_entries: int
    log_hash: str | None
    texts: int
    needles: int
    vectors: bool
    files: tuple[str, ...]
    bytes: int
    found: tuple[Trace, ...]

    @property
    def ok(self) -> bool:
        """Whether no trace was found."""
        return not self.found


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What ``Memory.erase`` removed: so many ``segments`` with so many ``versions``; of the segments ``derived`` were
    made of others that went, and ``archived`` lay only in archives that ``prune`` made.

    ``rewritten`` are files of the store that were made anew without them, or removed. ``vacuumed``: free space too.
    ``due`` is what could not be finished yet, and why: it is done at the next open, or by the next erasure. ``receipt``
    tells of a look through the files afterwards, where that was asked for.
    """

    namespace: str
    segments: int
    versions: int
    derived: int = 0
    archived: int = 0
    operation: str | None = None
    rewritten: tuple[str, ...] = ()
    vacuumed: bool = False
    due: tuple[str, ...] = ()
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What somebody said of a segment a query found: that it was ``useful`` or not. ``at`` None is now, when it is
    stored."""

    query: str
    id: str
    useful: bool
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """That the ``newer`` of two statements of one speaker may have taken the place of the ``older``, and why: another
    number, date or name of the same, another liking, one denies what the other says, another word in nearly the same
    sentence, or nearly the same said again. ``score`` in [0, 1] orders proposals."""

    older: Segment
    newer: Segment
    reasons: tuple[Reason, ...]
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided of two segments: that ``newer`` took the place of ``older``, or did not."""

    older: str
    newer: str
    accepted: bool
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What ``Memory.resolve`` did, or with ``dry_run`` would do, as one ``operation``, None where there was nothing."""

    accepted: tuple[Conflict, ...]
    rejected: tuple[Conflict, ...]
    operation: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A source, by class and agent: how far it is to be believed, in [0, 1], how many ``segments`` are current that it
    said, and what that goes by: how many judgements found them ``useful`` or ``rejected`` them, how many were
    ``contradicted`` by another source that was found right, how many are ``quarantined``."""

    source: Source
    agent_id: str | None
    trust: float
    segments: int = 0
    useful: int = 0
    rejected: int = 0
    contradicted: int = 0
    quarantined: int = 0


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
class Problem:
    """Something in a file that could not be taken over: ``where``, as ``FILE:LINE`` or ``FILE[ROW]``, and why."""

    where: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What ``Memory.export_to`` wrote: ``segments`` that are current, ``versions`` with those they replaced, the
    ``bytes`` of all files, and the id of the ``encoder`` whose vectors are in them, None where there are none."""

    path: str
    format: str
    segments: int
    versions: int
    bytes: int
    encoder: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What ``Memory.import_from`` did, or with ``dry_run`` would do, counted in versions of segments.

    ``added`` are new; ``updated`` of them are newer versions of segments that were here; ``there`` were here already,
    under the same id or as the same content in the same scope; ``deleted`` were left out, as they were deleted here.
    ``conflicts``: ids of segments that went on differently here and there; both histories are kept, the later is
    current. ``vectors``: how many of those in the file were used. ``failed`` counts what could not be read, and
    ``problems`` tells of the first thousand. ``pending`` wait for the encoder.
    """

    path: str
    format: str
    read: int = 0
    added: int = 0
    updated: int = 0
    there: int = 0
    deleted: int = 0
    conflicts: tuple[str, ...] = ()
    links: int = 0
    vectors: int = 0
    pending: int = 0
    failed: int = 0
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    signed_by: str | None = None
    dry_run: bool = False
    operation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUp:
    """A backup: its ``number`` in the directory ``path``, counted from 1, and the moment ``at`` that it holds.

    Of the store then: its ``store_id``, ``schema``, current ``segments`` of all namespaces, and ``bytes`` of its files.
    ``memspan`` is the version that made the backup, ``written`` how many of those bytes no earlier one had.
    """

    path: str
    number: int
    at: datetime
    store_id: str
    schema: int
    memspan: str
    segments: int
    bytes: int
    written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What ``Memory.tune`` found for a namespace, from so many ``questions`` with a useful segment and all their
    ``judgements``.

    ``before`` and ``after`` are nDCG@10, each question ranked by weights fitted without it; ``noise`` is the standard
    error of their difference over the questions. ``better``: the gain is greater than that. ``weights`` by
    feature and ``bias`` are what is added to the logit of a score, empty and 0 where no change was found better.
    ``effects`` are the weights times the standard deviation of the feature among the candidates of a question: what
    counts more and what less. ``applied``: searches use it from now on.
    """

    namespace: str
    questions: int
    judgements: int
    before: float
    after: float
    noise: float
    weights: Mapping[str, float]
    effects: Mapping[str, float]
    bias: float
    better: bool
    applied: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fading:
    """A segment that ``Memory.prune`` takes, or would: it has ``expired``, or its ``strength`` in [0, 1] has ``faded``.

    ``time`` is when it happened, or else was heard; ``about`` the beginning of its text.
    """

    id: str
    kind: Kind
    reason: Literal["expired", "faded"]
    strength: float
    time: datetime
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What ``Memory.prune`` removed, or with ``dry_run`` would remove, of ``segments`` in scope: ``fading``, what has
    expired first, then the weakest.

    ``below`` is the strength from which a segment stays, by ``curve``. ``kept`` counts those that are weaker and stay
    all the same, by why: "important", "useful", or "document", of which another part stays. ``archive`` is the cube of
    ``bytes`` that holds what was removed, ``operation`` what ``undo`` takes to bring it back; None where nothing was.
    """

    namespace: str
    curve: str
    below: float
    segments: int
    fading: tuple[Fading, ...]
    kept: Mapping[str, int]
    archive: str | None = None
    bytes: int = 0
    operation: str | None = None
    dry_run: bool = True


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
class Quote:
    """A sentence of a summary: the characters ``start`` to ``end`` of the text of the segment ``id``."""

    id: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What so many ``segments`` of so many ``sessions`` are about, in their own sentences, in order, one turn a line.

    ``tokens`` counts ``text`` as a whole with ``tokenizer`` and is at most ``budget``. ``citations`` has one entry for
    each sentence, in the order of the text.
    """

    text: str
    tokens: int
    budget: int
    tokenizer: str
    citations: tuple[Quote, ...]
    segments: int
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slept:
    """What ``Memory.sleep`` did, or with ``dry_run`` would do, in a namespace.

    ``merged`` segments say no more than one of ``kept``, and are out of sight; ``duplicates`` names them: (merged,
    kept) ids. ``summaries`` of sessions were made, of the ``sessions`` there are. ``compacted``: the views that were
    written anew. ``operation`` is what ``undo`` takes to bring back what was merged, None where nothing was.
    """

    merged: int
    kept: int
    duplicates: tuple[tuple[str, str], ...]
    summaries: int
    sessions: int
    compacted: tuple[str, ...]
    operation: str | None
    dry_run: bool


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
