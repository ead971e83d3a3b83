"""``Memory``: the one public door. What is behind it is in ``memspan.store``, and how it goes out
and comes in in ``memspan.portability``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from memspan import arguments, redaction
from memspan.access import Access
from memspan.browsing import Browsing
from memspan.consolidating import Consolidating
from memspan.context import Order, pack, pack_active
from memspan.drafting import Common
from memspan.erasing import Erasing
from memspan.errors import EncoderMismatch, InvalidInput
from memspan.extraction import Extracting
from memspan.filtering import parse_filter
from memspan.kinds import KINDS
from memspan.ledger.base import Idempotency
from memspan.pruning import Pruning
from memspan.quarantine import Quarantine
from memspan.records import (
    NOW,
    Added,
    AsOf,
    Context,
    Document,
    Edge,
    Hit,
    Judgement,
    Kind,
    Message,
    Query,
    Scope,
    Segment,
    Source,
)
from memspan.redaction import Redactor, all_redacted, redacted
from memspan.resolving import Conflicts
from memspan.retrieval import hit_of
from memspan.segmenting import (
    Tokenizer,
    check_text,
    messages,
    parse_time,
    read_file,
    shown,
    tokenizer_of,
)
from memspan.store import MOST_ROWS
from memspan.views.base import Progress

MOST_TOKENS = 10_000_000
BULK = 4_096  # vectors read at once
ALWAYS = tuple(kind.name for kind in KINDS.values() if kind.always)


class Memory(Erasing, Consolidating, Conflicts, Pruning, Quarantine, Extracting, Browsing, Access):
    """A store of memories: a directory, ``":memory:"``, or, where no path is given, the default data directory; or
    that of a server, as ``"http://HOST:PORT"``: see ``memspan.remote``.

    Safe to use from several threads and to open from several processes at once. ``encoder`` is ``"auto"`` (what the
    store was made with; for a new one the configured one, ``"minilm"`` by default), a spec such as ``"hash"``, an
    Encoder, or None for keywords only. ``reranker`` reads the best candidates of a search once more, together with the
    question: ``"auto"`` (the configured one, none by default), a spec of ``memspan.rerankers``, a Reranker, or None;
    when it fails, searches answer as without it. ``tokenizer`` counts a context's tokens: None for the encoder's own, a
    path to a ``tokenizer.json``, a function ``str -> int``, or a Tokenizer. ``actor``: who ``operations`` says it was.
    ``key`` opens an encrypted store, and makes a new one that is: a passphrase, 32 random bytes or their 64 hexadecimal
    digits, or a function that gives one of these; None for MEMSPAN_KEY, what MEMSPAN_KEY_FILE holds, or the keyring
    where the store says so.
    ``redact`` replaces ``"secrets"``, ``"personal"`` data or ``"all"`` of that in texts, titles and judged questions
    before they are stored (see ``memspan.redaction``), or is a function ``str -> str`` or a Redactor; ``"auto"`` is the
    configured one, none by default. Names, ids, categories and metadata are stored as they are given.

    Raises NotAStore, NotWritable, NewerStore, StoreCorrupt, EncoderMismatch, ModelNotFound, RerankerError, KeyNeeded,
    WrongKey, NotEncrypted, MissingExtra, InvalidInput.
    """

    def __new__(cls, path: str | os.PathLike[str] | None = None, **_: Any) -> Self:
        if cls is Memory and isinstance(path, str) and path.startswith(("http://", "https://")):
            from memspan.remote import Remote

            return cast(Self, super().__new__(Remote))
        return super().__new__(cls)

    # Writing

    def add(
        self,
        content: str | Sequence[Mapping[str, Any] | Message],
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        category: str | Sequence[str] | None = None,
        importance: float = 0.5,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | str | float | None = None,
        kind: Kind | None = None,
        valid_from: datetime | str | float | None = None,
        valid_to: datetime | str | float | None = None,
        expires_at: datetime | str | float | None = None,
        source: Source | None = None,
        idempotency_key: str | None = None,
        wait: bool = True,
    ) -> Added:
        """Remember a text, or messages ``{"role", "content", "name", "time"}`` in order.

        Durable when it returns. The same content again in the same scope is counted, not copied. What ``context`` gave
        is taken out again; what is nothing but that, or the assistant repeating word for word what is stored, is left
        out (see ``Added``). With ``wait=False`` it returns before the text is encoded: keywords find it at once,
        meaning a moment later. ``occurred_at`` is when it happened (a message's own time goes before it); a time
        without a zone is UTC. What it says holds from ``valid_from`` to ``valid_to``, and is not found after
        ``expires_at``. ``kind`` is "episodic" (what happened; the usual one), "semantic" (what is so; documents),
        "procedural", "core" or "working". ``idempotency_key`` makes a retry safe. Raises InvalidInput,
        IdempotencyConflict, StoreError; then nothing was written.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        said_by = None if source is None else arguments.source(source)
        times = _times(occurred_at=occurred_at, valid_from=valid_from, valid_to=valid_to, expires_at=expires_at)
        common = _common(scope, category, importance, metadata, times, said_by, kind)
        batch = self._batch(common)
        if isinstance(content, str):
            batch.text(check_text(content, "content"))
        elif isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
            turns = messages(content)
            if not turns:
                raise InvalidInput("content", "holds no messages", mend="give at least one message with content")
            for index, turn in enumerate(turns):
                batch.message(turn, f"messages[{index}]")
            if repeating := batch.echoes():
                batch.leave_out(self._ledger.echoes(scope, repeating))
        else:
            mend = "give a text or a list of messages; add_file takes files"
            raise InvalidInput("content", f"is a {type(content).__name__}", mend=mend)
        idempotency = None
        if idempotency_key is not None:
            key = arguments.name("idempotency_key", idempotency_key)
            idempotency = Idempotency(key=str(key), payload=batch.fingerprint())
        return self._write(scope, batch, idempotency, wait, None)

    def add_file(
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        category: str | Sequence[str] | None = None,
        importance: float = 0.5,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | str | float | None = None,
        kind: Kind | None = None,
        valid_from: datetime | str | float | None = None,
        valid_to: datetime | str | float | None = None,
        expires_at: datetime | str | float | None = None,
        wait: bool = True,
        progress: Progress | None = None,
    ) -> Added:
        """Remember a document: txt, md, html and source code; pdf, docx and the like with ``memspan[documents]``.

        A file that has not changed is not read into the store again; one that has replaces what it said before, which
        stays in the history. Raises InvalidInput, MissingExtra, StoreError; then nothing was written.
        """
        file = arguments.path(path)
        document = read_file(file)
        return self.add_document(
            check_text(document.text, "path"),
            uri=file.resolve().as_uri(),
            title=document.title,
            media=document.media,
            namespace=namespace,
            user_id=user_id,
            agent_id=agent_id,
            run_id=run_id,
            session=session,
            category=category,
            importance=importance,
            metadata=metadata,
            occurred_at=occurred_at,
            kind=kind,
            valid_from=valid_from,
            valid_to=valid_to,
            expires_at=expires_at,
            wait=wait,
            progress=progress,
        )

    def add_document(
        self,
        text: str,
        *,
        uri: str | None = None,
        title: str | None = None,
        media: str = "text",
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        category: str | Sequence[str] | None = None,
        importance: float = 0.5,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | str | float | None = None,
        kind: Kind | None = None,
        valid_from: datetime | str | float | None = None,
        valid_to: datetime | str | float | None = None,
        expires_at: datetime | str | float | None = None,
        wait: bool = True,
        progress: Progress | None = None,
    ) -> Added:
        """Remember a document that was read already: its ``text``, of the kind ``media`` ("text", "markdown", "code"),
        and where it comes from. What came from that ``uri`` before is replaced, and stays in the history.

        Raises InvalidInput, StoreError; then nothing was written.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        times = _times(occurred_at=occurred_at, valid_from=valid_from, valid_to=valid_to, expires_at=expires_at)
        common = _common(scope, category, importance, metadata, times, "document", kind)
        named = arguments.name("title", title or None, longest=arguments.LONGEST_PLACE)
        source = arguments.name("uri", uri, longest=arguments.LONGEST_PLACE)
        batch = self._batch(common)
        admitted = batch.admitted(check_text(text, "text"))
        if not admitted:
            return Added(ids=(), added=0, repeated=0, stripped=batch.stripped, skipped=batch.skipped)
        called = None if named is None else redacted(named, self._redactor)
        known = batch.claim(admitted, media, uri=source, title=called)
        if (already := self._ledger.unchanged(scope.namespace, known.id)) is not None:
            return Added(ids=already, added=0, repeated=len(already), document_id=known.id)
        batch.document(admitted, media, known)
        return self._write(scope, batch, None, wait, progress)

    def link(
        self, a: str, b: str, relation: str = "related", weight: float = 1.0, *, namespace: str | None = None
    ) -> Edge:
        """State that segment ``a`` is linked to ``b``: by "reply", "supersedes", or a relation of your own.

        It holds for every later version of both, and goes when one is deleted. Stated again, the ``weight`` in (0, 1]
        is replaced. Raises NotFound, InvalidInput.
        """
        scope = self._scope(namespace, None, None, None, None)
        kind, strength = arguments.relation(relation), arguments.weight(weight)
        source, target = (a, b) if a == b else (self._ledger.get(scope.namespace, id).id for id in (a, b))
        if source == target:  # however it is written
            raise InvalidInput("b", "is the segment itself", mend="link two different segments")
        edge = Edge(source=source, target=target, kind=kind, weight=strength)
        self._ledger.link(scope.namespace, edge)
        return edge

    def unlink(self, a: str, b: str, relation: str | None = None, *, namespace: str | None = None) -> int:
        """Take back what ``link`` stated from ``a`` to ``b``, one relation or all; returns how many there were."""
        scope = self._scope(namespace, None, None, None, None)
        kind = None if relation is None else arguments.relation(relation)
        return self._ledger.unlink(scope.namespace, a, b, kind)

    def feedback(self, query: str, id: str, useful: bool | None = True, *, namespace: str | None = None) -> None:
        """Say that segment ``id`` was of use to ``query``, or was not; ``tune`` learns from it.

        Durable when it returns. It is kept for the namespace, holds for every version of the segment, and goes with
        it. Said again of the same two, the later word counts; None takes it back. Raises NotFound, InvalidInput.
        """
        scope = self._scope(namespace, None, None, None, None)
        text = redacted(check_text(query, "query"), self._redactor)
        segment = self._ledger.get(scope.namespace, id)
        if useful is None:
            self._ledger.forget_judgements(scope.namespace, text, segment.id)
        else:
            said = Judgement(query=text, id=segment.id, useful=arguments.useful("useful", useful))
            self._ledger.judge(scope.namespace, [said])

    # Reading

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
        threshold: float = 0.0,
        as_of: datetime | str | float | None = None,
        valid_at: datetime | str | float | None = None,
        include_superseded: bool = False,
        explain: bool = False,
        recipe: str = "default",
        redact: str | Redactor | Callable[[str], str] | None = None,
    ) -> list[Hit]:
        """The ``k`` segments that answer ``query`` best, best first, with scores in [0, 1] of at least ``threshold``.

        ``as_of`` searches what was known then, ``valid_at`` what was true then; ``include_superseded`` also what is
        not true any more, has expired, or was merged into another segment. ``explain`` gives each channel's part, and
        the path through the graph that led to a hit. ``recipe`` is "default", "fast" (no tokens read, nothing ranked
        anew), "deep" (wider where the default is unsure), "dsm" (routed by the tree, graph distance and the whole
        priority vector), "flat" (without the graph), "semantic" or "keyword"; "default-next" is without that part,
        "default-rerank" without the reranker, "default-tuning" without what ``tune`` learned. Filters: see
        ``memspan.filtering``. ``redact`` replaces secrets and personal data in what is returned, as that of Memory does
        before it is stored. Raises InvalidInput, MissingExtra, StoreError.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        count, redactor = arguments.count("k", k), redaction.make(redact)
        then = _as_of(as_of, valid_at, include_superseded)
        wanted = _query(query, scope, filters, threshold, then, recipe, count, bool(explain))
        return all_redacted(self._steadily(lambda engine: engine.search(wanted)), redactor)

    def context(
        self,
        query: str,
        *,
        budget: int = 1000,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
        threshold: float = 0.0,
        as_of: datetime | str | float | None = None,
        valid_at: datetime | str | float | None = None,
        include_superseded: bool = False,
        without: Sequence[str] = (),
        order: Order = "time",
        tokenizer: str | os.PathLike[str] | Tokenizer | Callable[[str], int] | None = None,
        recipe: str = "default",
        redact: str | Redactor | Callable[[str], str] | None = None,
    ) -> Context:
        """What a model should read to answer ``query``: quoted, cited, at most ``budget`` tokens as a whole string.

        When everything in scope fits, it is everything, in order (ConvoMem, arXiv:2511.10523: up to there nothing beats
        it). Otherwise the best hits, neighbours merged, duplicates dropped, in time order or by ``order="score"``. Core
        memories of the same user and agent are always in it, first, up to a quarter of the budget; working ones last.
        ``without``: texts that the model reads anyway, such as the conversation so far; what they say word for word is
        left out. ``redact``: as in ``search``. Raises BudgetTooSmall, InvalidInput, MissingExtra, StoreError.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        budget = arguments.count("budget", budget, most=MOST_TOKENS)
        if order not in ("time", "score"):
            raise InvalidInput("order", f"there is no {shown(order)}", mend="use 'time' or 'score'")
        read = arguments.texts("without", without)
        counter = self._tokenizer if tokenizer is None else tokenizer_of(tokenizer)
        redactor = redaction.make(redact)
        enough = min(max(20, budget // 8), 1_000)
        then = _as_of(as_of, valid_at, include_superseded)
        wanted = _query(query, scope, filters, threshold, then, recipe, enough)
        selection = self._retrieval.select(wanted)
        few = selection.rows <= min(budget // 2, arguments.MOST_HITS) and selection.total_terms <= 2 * budget
        asked = replace(wanted, k=max(1, selection.rows)) if few else wanted
        hits = self._steadily(lambda engine: engine.search(asked))
        whose = Scope(namespace=scope.namespace, user_id=scope.user_id, agent_id=scope.agent_id)
        core = [hit_of(row, 0.0) for kind in ALWAYS for row in self._ledger.of_kind(whose, kind, then)]
        core.sort(key=lambda hit: (-hit.importance, -hit.seq))
        always = all_redacted(core, redactor)
        if few and not threshold:
            scores = {hit.seq: hit for hit in hits}
            rows = self._ledger.fetch(scope.namespace, selection.seqs.tolist())
            everything = [scores.get(row.seq) or hit_of(row, 0.0) for row in rows]
            found = all_redacted(everything, redactor)
            whole = self._pack(found, wanted, budget, counter, order, read, complete=True, always=always)
            if whole is not None:
                return whole
        best = all_redacted(hits[: wanted.k], redactor)
        packed = self._pack(best, wanted, budget, counter, order, read, always=always)
        assert packed is not None  # noqa: S101 - only a complete packing may be refused
        return packed

    def _pack(
        self,
        hits: Sequence[Hit],
        query: Query,
        budget: int,
        counter: Tokenizer,
        order: Order,
        without: Sequence[str],
        *,
        complete: bool = False,
        always: Sequence[Hit] = (),
    ) -> Context | None:
        documents = {hit.document_id for hit in (*always, *hits) if hit.document_id is not None}
        titles = self._ledger.titles(query.scope.namespace, sorted(documents))
        return pack(
            hits,
            query=query.text,
            budget=budget,
            tokenizer=counter,
            titles=titles,
            order=order,
            complete=complete,
            always=always,
            without=without,
        )

    def active_context(
        self,
        query: str,
        *,
        budget: int = 1000,
        k: int | None = None,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
        threshold: float = 0.0,
        as_of: datetime | str | float | None = None,
        valid_at: datetime | str | float | None = None,
        include_superseded: bool = False,
        tokenizer: str | os.PathLike[str] | Tokenizer | Callable[[str], int] | None = None,
        recipe: str = "dsm",
        redact: str | Redactor | Callable[[str], str] | None = None,
    ) -> Context:
        """DSM's active context: the query, one line for each segment, then each segment with its category, scores and
        text; at most ``k`` segments and ``budget`` tokens as a whole string, best first.

        The text of each is quoted. ``redact``: as in ``search``. Raises BudgetTooSmall, InvalidInput, MissingExtra,
        StoreError.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        budget = arguments.count("budget", budget, most=MOST_TOKENS)
        counter = self._tokenizer if tokenizer is None else tokenizer_of(tokenizer)
        count = min(max(5, budget // 32), 200) if k is None else arguments.count("k", k)
        then = _as_of(as_of, valid_at, include_superseded)
        redactor = redaction.make(redact)
        wanted = _query(query, scope, filters, threshold, then, recipe, count, explain=True)
        hits = all_redacted(self._steadily(lambda engine: engine.search(wanted)), redactor)
        return pack_active(hits, query=wanted.text, budget=budget, tokenizer=counter)

    def get(self, id: str, *, namespace: str | None = None) -> Segment:
        """The current version of a segment. Raises NotFound."""
        return self._ledger.get(self._scope(namespace, None, None, None, None).namespace, id)

    def get_all(
        self,
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
        as_of: datetime | str | float | None = None,
        valid_at: datetime | str | float | None = None,
        include_superseded: bool = False,
        limit: int = 100,
        after: str | None = None,
    ) -> list[Segment]:
        """Segments in the order they were written; ``after`` the last id of a page gives the next page. ``as_of``,
        ``valid_at``, ``include_superseded``: as in ``search``. A filter that asks for the ``state`` sees every one."""
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        most, then = arguments.count("limit", limit, most=100_000), _as_of(as_of, valid_at, include_superseded)
        return self._ledger.listing(scope, parse_filter(filters), most, after, then)

    def embeddings(
        self,
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[list[Segment], NDArray[np.float32]]:
        """What searches see of what has a vector, in the order it was written, and the vectors: float32[n, dim].

        A vector has length 1, to the half precision it is kept in, or 0. ``limit`` takes so many of them, spread evenly
        over all, the same ones each time. Needs no model; what waits for its vector is left out. Raises EncoderMismatch
        where the store has no encoder and so no vectors, InvalidInput.
        """
        scope, parsed = self._scope(namespace, user_id, agent_id, run_id, session), parse_filter(filters)
        if self._recorded == "null":
            mend = "name one: reencode(encoder='minilm')"
            raise EncoderMismatch("this store has no encoder, so its segments have no vectors", mend=mend)
        space, rows, vectors = scope.namespace, list[Segment](), list[NDArray[np.float32]]()
        with self._ledger.reading():
            seqs, _ = self._ledger.select(scope, parsed, NOW, -1)
            seqs = np.setdiff1d(seqs, self._ledger.pending_seqs(space), assume_unique=True)
            if limit is not None and (most := arguments.count("limit", limit, most=MOST_ROWS)) < len(seqs):
                seqs = seqs[np.linspace(0, len(seqs) - 1, most).round().astype(np.int64)]
            for start in range(0, len(seqs), BULK):
                known, found = self._ledger.vectors_of(space, seqs[start : start + BULK].tolist())
                rows += self._ledger.fetch(space, known.tolist())
                vectors += [found] if len(known) else []
                if progress is not None:
                    progress(min(start + BULK, len(seqs)), len(seqs), "reading vectors")
        return rows, np.concatenate(vectors or [np.zeros((0, json.loads(self._recorded)["dim"]), np.float32)])

    def document(self, id: str, *, namespace: str | None = None) -> Document:
        """A document put back together from its segments, to the character. Raises NotFound."""
        return self._ledger.document(self._scope(namespace, None, None, None, None).namespace, id)


def _common(
    scope: Scope,
    category: object,
    importance: object,
    metadata: object,
    times: Mapping[str, datetime | None],
    source: Source | None,
    kind: object,
) -> Common:
    return Common(
        scope=scope,
        category=arguments.category(category),
        importance=arguments.importance(importance),
        metadata=arguments.metadata(metadata),
        source=source,
        kind=None if kind is None else arguments.kind(kind),
        **times,
    )


def _times(**given: object) -> dict[str, datetime | None]:
    """Times by name. Raises InvalidInput, also where what shall hold ends before it begins."""
    times = {name: parse_time(value, name) for name, value in given.items()}
    arguments.interval(times["valid_from"], times["valid_to"])
    return times


def _as_of(known: object, valid: object, superseded: object) -> AsOf:
    arguments.flags(include_superseded=superseded)
    return AsOf(known=parse_time(known, "as_of"), valid=parse_time(valid, "valid_at"), superseded=bool(superseded))


def _query(
    text: object,
    scope: Scope,
    filters: Mapping[str, Any] | None,
    threshold: float,
    as_of: AsOf,
    recipe: str,
    k: int,
    explain: bool = False,
) -> Query:
    return Query(
        text=check_text(text, "query"),
        scope=scope,
        filters=parse_filter(filters),
        as_of=as_of,
        k=k,
        threshold=arguments.threshold(threshold),
        recipe=recipe,
        explain=explain,
    )
