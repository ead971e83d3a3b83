"""What the calls that take care of a memory tell of what they did, as values: frozen, slotted, keyword-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from memspan.records import Kind, Operation, Reason, Segment, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found of one thing. ``mend`` says what to do where ``ok`` is False."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


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
class Conflict:
    """That the ``newer`` of two statements of one speaker may have taken the place of the ``older``, and why: another
    number, date or name of the same, another liking, one denies what the other says, another word in nearly the same
    sentence, or nearly the same said again. ``score`` in [0, 1] orders proposals."""

    older: Segment
    newer: Segment
    reasons: tuple[Reason, ...]
    score: float


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in a file that could not be taken over: ``where``, as ``FILE:LINE`` or ``FILE[ROW]``, and why."""

    where: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What a bulk ingest has done so far: ``done`` of ``parts`` (files, or pieces of large tables), with so many texts
    ``read`` (documents and rows), of which ``unchanged`` were here already and were passed over.

    ``segments`` were stored, ``repeated`` were said here before, and texts of so many were ``encoded``; ``pending`` of
    those stored wait for the encoder, which refused them. ``stripped`` and ``skipped``: see ``Added``. ``failed`` files
    and rows could not be read: ``problems`` names the first thousand.
    """

    parts: int = 0
    done: int = 0
    read: int = 0
    unchanged: int = 0
    segments: int = 0
    repeated: int = 0
    encoded: int = 0
    pending: int = 0
    stripped: int = 0
    skipped: int = 0
    failed: int = 0
    problems: tuple[Problem, ...] = ()


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
class Copied:
    """What ``memspan.transfer.copy`` did: ``target`` is the store at ``source`` as it was ``at`` a moment, with so many
    ``namespaces``, current ``segments`` and ``versions``, unless there are ``differences``, which say what is not.

    This run ``brought`` so many versions and ``removed`` so many segments that are gone in the source. ``behind``: how
    many changes the source had since that moment.
    """

    source: str
    target: str
    at: datetime
    namespaces: int
    segments: int
    versions: int
    brought: int
    removed: int
    behind: int
    differences: tuple[str, ...]


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
