"""``Memory``: the one public door, and the only place where the parts are wired together."""

from __future__ import annotations

import json
import os
import shlex
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from memspan import arguments
from memspan.analysis import VERSION as ANALYSER
from memspan.analysis import terms
from memspan.channels import Channel, KeywordChannel, SemanticChannel
from memspan.config import Config
from memspan.context import Order, pack
from memspan.drafting import Batch, Common, content_key, identity
from memspan.encoders import make
from memspan.encoders.base import Encoder
from memspan.errors import EncoderMismatch, InvalidInput, NotAStore, NotWritable, StoreClosed
from memspan.filtering import parse_filter
from memspan.ledger.base import Operation, analysed_text, encoded_text
from memspan.ledger.sqlite import SqliteLedger
from memspan.projection import Projection
from memspan.records import (
    Added,
    Context,
    Document,
    Draft,
    Event,
    Hit,
    Message,
    Piece,
    Query,
    Scope,
    Segment,
    Source,
)
from memspan.retrieval import Retrieval, hit_of
from memspan.segmenting import (
    Tokenizer,
    WordTokenizer,
    check_text,
    cut,
    messages,
    parse_time,
    read_file,
    shown,
    tokenizer_of,
)
from memspan.views.base import Progress, Selections, View
from memspan.views.lexical import LexicalView
from memspan.views.vectors import VectorView

AUTO = "auto"
LARGE = 1_024  # segments of one add from which the texts become durable first and are encoded after
MARGIN = 16  # tokens of the encoder's window kept free for its own marks and the name of the speaker
LEXICAL_WINDOW = 256
MOST_TOKENS = 10_000_000


class Memory:
    """A store of memories: a directory, ``":memory:"``, or, where no path is given, the default data directory.

    Safe to use from several threads and to open from several processes at once. ``encoder`` is ``"auto"`` (what the
    store was made with; for a new one the configured one, ``"minilm"`` by default), a spec such as ``"hash"``, an
    Encoder, or None for keywords only. ``tokenizer`` counts a context's tokens: None for the encoder's own, a path to a
    ``tokenizer.json``, a function ``str -> int``, or a Tokenizer.

    Raises NotAStore, NotWritable, NewerStore, StoreCorrupt, EncoderMismatch, ModelNotFound, InvalidInput.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        encoder: str | Encoder | None = AUTO,
        namespace: str | None = None,
        tokenizer: str | os.PathLike[str] | Tokenizer | Callable[[str], int] | None = None,
        config: Config | None = None,
    ) -> None:
        config = config or Config.load()
        named = config.namespace if namespace is None else namespace
        self.namespace = arguments.scope(named, None, None, None, None).namespace
        self.path = None if path == ":memory:" else arguments.path(config.store if path is None else path)
        self._closed = False
        exists = self.path is not None and _is_store(self.path)
        wanted = encoder if exists or encoder != AUTO else config.encoder
        made = None if exists else _made(wanted)  # a missing model must not leave an empty store behind
        counter = None if tokenizer is None else tokenizer_of(tokenizer)
        self._ledger = SqliteLedger(None if self.path is None else _directory(self.path) / "ledger.db")
        try:
            self._encoder = self._agreed(wanted if exists else made, config.encoder)
            self._wire()
            self._tokenizer = counter or self._default_tokenizer()
        except BaseException:
            self._ledger.close()
            raise

    # Wiring

    def _wire(self) -> None:
        self._process = os.getpid()
        views_path = None if self.path is None else self.path / "views"
        lexical = LexicalView(self._ledger, views_path)
        views: list[View] = [lexical]
        channels: list[Channel] = [KeywordChannel(lexical)]
        if self._encoder is not None:
            vectors = VectorView(self._ledger, views_path, self._encoder.dim)
            views.append(vectors)
            channels.append(SemanticChannel(vectors))
        self._selections = Selections(self._ledger)
        self._projection = Projection(self._ledger, self._encoder, views, self.path)
        self._retrieval = Retrieval(self._ledger, self._selections, channels, self._projection)

    def _agreed(self, wanted: str | Encoder | None, configured: str) -> Encoder | None:
        """The encoder this store's vectors come from; the first to open a new store decides."""
        encoder: Encoder | None = None
        wanted = None if wanted == "none" else wanted
        if self._ledger.value("encoder") is None:
            encoder = _made(configured if wanted == AUTO else wanted)
            self._ledger.put_values(
                {
                    "store_id": str(uuid.uuid4()),
                    "created_at": datetime.now(UTC).isoformat(),
                    "analyser": ANALYSER,
                    "encoder": _about(encoder),
                },
                replace=False,
            )
        self._recorded = str(self._ledger.value("encoder"))
        known = json.loads(self._recorded)
        if encoder is None and (wanted is None or (known is None and wanted == AUTO)):
            return None  # keywords only: what is added waits for its vector until an encoder is there again
        if encoder is None and wanted == AUTO:
            if known["spec"] is None:
                raise EncoderMismatch(
                    f"{self.path} was made with the encoder {known['id']!r}, which has no name to find it by",
                    mend="pass it: Memory(path, encoder=...)",
                )
            wanted = known["spec"]
        encoder = encoder or _made(wanted)
        if known is None or encoder is None or encoder.id != known["id"]:
            self._mismatch(known, encoder)
        return encoder

    def _mismatch(self, known: Mapping[str, Any] | None, encoder: Encoder | None) -> None:
        spec = getattr(encoder, "spec", None) or "SPEC"
        command = ["memspan", "rebuild", "--store", str(self.path), "--encoder", spec]
        was = "no encoder" if known is None else f"encoder {known['id']!r}"
        raise EncoderMismatch(
            f"{self.path or 'the store'} was made with {was}, not {None if encoder is None else encoder.id!r}",
            mend=f"open it without encoder=, or re-encode it: {shlex.join(command)}",
        )

    def _default_tokenizer(self) -> Tokenizer:
        return WordTokenizer() if self._encoder is None else self._encoder.tokenizer

    def _scope(
        self, namespace: str | None, user_id: str | None, agent_id: str | None, run_id: str | None, session: str | None
    ) -> Scope:
        if self._closed:
            raise StoreClosed("this memory was closed", mend="open a new Memory on the same path")
        if self._process != os.getpid():  # a forked child: its parent's threads, and the locks they held, are not here
            self._wire()
        if self._ledger.value("encoder") != self._recorded:
            problem = f"{self.path} was given another encoder since this Memory opened it"
            raise EncoderMismatch(problem, mend="close this Memory and open it again")
        return arguments.scope(self.namespace if namespace is None else namespace, user_id, agent_id, run_id, session)

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
        source: Source | None = None,
        idempotency_key: str | None = None,
        wait: bool = True,
    ) -> Added:
        """Remember a text, or messages ``{"role", "content", "name", "time"}`` in order.

        Durable when it returns. The same content again in the same scope is counted, not copied. With ``wait=False`` it
        returns before the text is encoded: keywords find it at once, meaning a moment later. ``occurred_at`` is when it
        happened (a message's own time goes before it); a time without a zone is UTC. ``idempotency_key`` makes a retry
        safe. Raises InvalidInput, IdempotencyConflict, StoreError; then nothing was written.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        said_by = None if source is None else arguments.source(source)
        common = _common(scope, category, importance, metadata, occurred_at, said_by)
        batch = Batch(self._cut, common)
        if isinstance(content, str):
            batch.text(check_text(content, "content"))
        elif isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
            turns = messages(content)
            if not turns:
                raise InvalidInput("content", "holds no messages", mend="give at least one message with content")
            for index, turn in enumerate(turns):
                batch.message(turn, f"messages[{index}]")
        else:
            mend = "give a text or a list of messages; add_file takes files"
            raise InvalidInput("content", f"is a {type(content).__name__}", mend=mend)
        operation = None
        if idempotency_key is not None:
            key = arguments.name("idempotency_key", idempotency_key)
            operation = Operation(key=str(key), payload=batch.fingerprint())
        return self._write(scope, batch, operation, wait, None)

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
        wait: bool = True,
        progress: Progress | None = None,
    ) -> Added:
        """Remember a document: txt, md, html and source code; pdf, docx and the like with ``memspan[documents]``.

        A file that has not changed is not read into the store again; one that has replaces what it said before, which
        stays in the history. Raises InvalidInput, MissingExtra, StoreError; then nothing was written.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        common = _common(scope, category, importance, metadata, occurred_at, "document")
        file = arguments.path(path)
        document = read_file(file)
        check_text(document.text, "path")
        batch = Batch(self._cut, common)
        uri = file.resolve().as_uri()
        known = batch.claim(document.text, document.media, uri=uri, title=document.title)
        if (already := self._ledger.unchanged(scope.namespace, known.id)) is not None:
            return Added(ids=already, added=0, repeated=len(already), document_id=known.id)
        batch.document(document.text, document.media, known)
        return self._write(scope, batch, None, wait, progress)

    def _cut(self, text: str, media: str) -> list[Piece]:
        encoder = self._encoder
        tokenizer = WordTokenizer() if encoder is None else encoder.tokenizer
        window = LEXICAL_WINDOW if encoder is None else encoder.window
        return cut(text, tokenizer=tokenizer, window=max(window - MARGIN, 8), media=media)

    def _write(
        self, scope: Scope, batch: Batch, operation: Operation | None, wait: bool, progress: Progress | None
    ) -> Added:
        if operation is not None and (done := self._ledger.replay(scope.namespace, operation)) is not None:
            return done
        large = len(batch.drafts) > LARGE
        vectors = self._projection.vectors(batch.texts) if wait and not large else {}
        added = self._ledger.append(
            scope.namespace,
            batch.drafts,
            documents=batch.documents,
            vectors=None if self._recorded == "null" else vectors,
            operation=operation,
        )
        pending = added.pending
        if pending and large and wait:
            self._projection.settle(scope.namespace, progress=progress)
            pending = self._ledger.count_pending(scope.namespace)
        self._projection.written(scope.namespace, added.added, pending=pending)
        return replace(added, pending=pending)

    def update(
        self,
        id: str,
        text: str | None = None,
        *,
        category: str | Sequence[str] | None = None,
        importance: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | str | float | None = None,
        namespace: str | None = None,
    ) -> Segment:
        """A new version of segment ``id`` with what is given changed; ``history`` keeps every version.

        Raises NotFound, InvalidInput (also when the text no longer fits one segment).
        """
        scope = self._scope(namespace, None, None, None, None)
        old = self._ledger.get(scope.namespace, id)
        piece = Piece(text=old.text, gap=old.gap, tail=old.tail, heading=old.heading, tokens=old.tokens)
        if text is not None:
            pieces = self._cut(check_text(text, "text"), "text")
            if len(pieces) > 1:
                mend = "delete it and add the new text instead"
                raise InvalidInput("text", f"is too long for one segment (needs {len(pieces)})", mend=mend)
            piece = replace(pieces[0], gap=old.gap, tail=old.tail, heading=old.heading)
        draft = Draft(
            piece=piece,
            scope=Scope(
                namespace=old.namespace,
                user_id=old.user_id,
                agent_id=old.agent_id,
                run_id=old.run_id,
                session=old.session,
            ),
            document_id=old.document_id,
            position=old.position,
            role=old.role,
            speaker=old.speaker,
            category=old.category if category is None else arguments.category(category),
            importance=old.importance if importance is None else arguments.importance(importance),
            source=old.source,
            occurred_at=old.occurred_at if occurred_at is None else parse_time(occurred_at, "occurred_at"),
            metadata=old.metadata if metadata is None else arguments.metadata(metadata),
        )
        encoded = encoded_text(piece.text, old.speaker, piece.heading)
        unchanged = (piece.text, draft.occurred_at) == (old.text, old.occurred_at)
        draft = replace(
            draft,
            terms=tuple(terms(analysed_text(encoded, draft.occurred_at))),
            content=content_key(encoded),
            identity=b"" if unchanged else identity(draft),
        )
        texts = {draft.content: encoded}
        vectors = None if self._recorded == "null" else self._projection.vectors(texts)
        new = self._ledger.revise(scope.namespace, id, draft, vectors)
        self._projection.written(scope.namespace, 1, pending=self._ledger.count_pending(scope.namespace))
        return new

    def delete(self, id: str | Sequence[str], *, namespace: str | None = None) -> int:
        """Remove one segment or several: text, vectors and index entries of every version. Returns how many there were.

        What is left is a tombstone without content. An id that is not there counts 0.
        """
        scope = self._scope(namespace, None, None, None, None)
        return self._ledger.delete(scope.namespace, arguments.ids(id))

    def delete_all(
        self,
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> int:
        """Remove everything in a scope, in one statement; returns how many segments it held.

        The scope must be said: raises InvalidInput when no argument is given.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        parsed = parse_filter(filters)
        if namespace is None and parsed is None and not (user_id or agent_id or run_id or session):
            mend = "say what: user_id=, agent_id=, run_id=, session=, filters=, or namespace= for all of it"
            raise InvalidInput("scope", "delete_all() would remove a whole namespace nobody named", mend=mend)
        return self._ledger.delete_scope(scope, parsed)

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
        explain: bool = False,
        recipe: str = "default",
    ) -> list[Hit]:
        """The ``k`` segments that answer ``query`` best, best first, with scores in [0, 1] of at least ``threshold``.

        ``as_of`` searches what was known then. ``explain`` gives each channel's part. ``recipe`` is "default",
        "semantic" or "keyword". Filters: see ``memspan.filtering``. Raises InvalidInput, StoreError.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        count = arguments.count("k", k)
        return self._retrieval.search(_query(query, scope, filters, threshold, as_of, recipe, count, bool(explain)))

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
        order: Order = "time",
        tokenizer: str | os.PathLike[str] | Tokenizer | Callable[[str], int] | None = None,
        recipe: str = "default",
    ) -> Context:
        """What a model should read to answer ``query``: quoted, cited, at most ``budget`` tokens as a whole string.

        When everything in scope fits, it is everything, in order (ConvoMem, arXiv:2511.10523: up to there nothing beats
        it). Otherwise the best hits, neighbours merged, duplicates dropped, in time order or by ``order="score"``.
        Raises BudgetTooSmall, InvalidInput, StoreError.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        budget = arguments.count("budget", budget, most=MOST_TOKENS)
        if order not in ("time", "score"):
            raise InvalidInput("order", f"there is no {shown(order)}", mend="use 'time' or 'score'")
        counter = self._tokenizer if tokenizer is None else tokenizer_of(tokenizer)
        enough = min(max(20, budget // 8), 1_000)
        wanted = _query(query, scope, filters, threshold, as_of, recipe, enough)
        selection = self._retrieval.select(wanted)
        few = len(selection.seqs) <= min(budget // 2, arguments.MOST_HITS) and selection.total_terms <= 2 * budget
        hits = self._retrieval.search(replace(wanted, k=max(1, len(selection.seqs))) if few else wanted)
        if few and not threshold:
            scores = {hit.seq: hit for hit in hits}
            rows = self._ledger.fetch(scope.namespace, selection.seqs.tolist())
            everything = [scores.get(row.seq) or hit_of(row, 0.0) for row in rows]
            whole = self._pack(everything, wanted, budget, counter, order, complete=True)
            if whole is not None:
                return whole
        packed = self._pack(hits[: wanted.k], wanted, budget, counter, order)
        assert packed is not None  # noqa: S101 - only a complete packing may be refused
        return packed

    def _pack(
        self, hits: Sequence[Hit], query: Query, budget: int, counter: Tokenizer, order: Order, complete: bool = False
    ) -> Context | None:
        documents = {hit.document_id for hit in hits if hit.document_id is not None}
        titles = self._ledger.titles(query.scope.namespace, sorted(documents))
        return pack(
            hits, query=query.text, budget=budget, tokenizer=counter, titles=titles, order=order, complete=complete
        )

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
        limit: int = 100,
        after: str | None = None,
    ) -> list[Segment]:
        """Current segments in the order they were written; ``after`` the last id of a page gives the next page."""
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        return self._ledger.listing(scope, parse_filter(filters), arguments.count("limit", limit, most=100_000), after)

    def history(self, id: str, *, namespace: str | None = None) -> list[Event]:
        """Every version of a segment, oldest first; of a deleted one only that it was deleted. Raises NotFound."""
        return self._ledger.history(self._scope(namespace, None, None, None, None).namespace, id)

    def document(self, id: str, *, namespace: str | None = None) -> Document:
        """A document put back together from its segments, to the character. Raises NotFound."""
        return self._ledger.document(self._scope(namespace, None, None, None, None).namespace, id)

    # Care

    def stats(self) -> dict[str, Any]:
        """Where the store is, what is in it, what it weighs, how far each view is and what last failed."""
        self._scope(None, None, None, None, None)
        counts = self._ledger.counts()
        namespaces = list(counts["namespaces"])
        views = self._projection.status(namespaces)
        ledger_bytes = 0 if self.path is None else sum(_size(file) for file in self.path.glob("ledger.db*"))
        views_bytes = sum(view["bytes"] for view in views.values())
        segments = sum(space["segments"] for space in counts["namespaces"].values())
        about = json.loads(self._recorded)
        return {
            "path": ":memory:" if self.path is None else str(self.path),
            "store_id": self._ledger.value("store_id"),
            "created_at": self._ledger.value("created_at"),
            "schema": counts["schema"],
            "segments": segments,
            "tokens": sum(space["tokens"] for space in counts["namespaces"].values()),
            "documents": counts["documents"],
            "versions": counts["versions"],
            "repeats": counts["repeats"],
            "tombstones": counts["tombstones"],
            "namespaces": counts["namespaces"],
            "encoder": None
            if about is None
            else {**about, "active": self._encoder is not None, "failure": self._projection.failure},
            "channels": self._retrieval.active(),
            "search_failure": self._retrieval.failure,
            "pending": self._ledger.count_pending(None),
            "views": views,
            "bytes": {
                "ledger": ledger_bytes,
                "views": views_bytes,
                "total": ledger_bytes + views_bytes,
                "per_segment": round((ledger_bytes + views_bytes) / segments) if segments else 0,
            },
        }

    def compact(self, *, progress: Progress | None = None) -> dict[str, Any]:
        """Encode what waits, fold the views' tails into snapshots where that pays, shrink the log. Never needed, only
        faster: it happens in the background too. Returns what was rewritten, and bytes before and after."""
        before = self.stats()["bytes"]["total"]
        outdated = self._ledger.value("analyser") != ANALYSER
        rewritten = self._projection.compact(self._ledger.namespaces(), force=outdated, progress=progress)
        self._ledger.put_values({"analyser": ANALYSER}, replace=True)
        self._ledger.tidy()
        return {"rewritten": rewritten, "bytes_before": before, "bytes_after": self.stats()["bytes"]["total"]}

    def verify(self, *, progress: Progress | None = None) -> dict[str, Any]:
        """Read everything back the way searches do and compare it with what was written.

        Returns ``{"ok": bool, "segments": int, "problems": [str]}``; ``problems`` names each damaged segment or file.
        """
        self._scope(None, None, None, None, None)
        problems, done = [], 0
        for done, total, problem in self._ledger.problems():
            if problem is not None:
                problems.append(problem)
            if progress is not None:
                progress(done, total, "verifying")
        problems += self._projection.problems(self._ledger.namespaces())
        return {"ok": not problems, "segments": done, "problems": problems}

    def rebuild(self, *, encoder: str | Encoder | None = AUTO, progress: Progress | None = None) -> dict[str, Any]:
        """Build every view anew from the ledger; with another ``encoder``, from vectors of that one.

        Searches go on meanwhile, by keywords where vectors are still missing; it can be interrupted and goes on at the
        next ``compact``. Returns the encoder's id and what was rewritten.
        """
        self._scope(None, None, None, None, None)
        if encoder != AUTO:
            new = _made(encoder)
            if _about(new) != self._recorded:
                self._projection.close()
                self._ledger.forget_activations(_about(new), encode=new is not None)
                self._recorded = _about(new)
                self._encoder = new
                self._wire()
                self._tokenizer = self._default_tokenizer()
        rewritten = self._projection.compact(self._ledger.namespaces(), force=True, progress=progress)
        self._ledger.put_values({"analyser": ANALYSER}, replace=True)
        self._ledger.tidy()
        return {"encoder": None if self._encoder is None else self._encoder.id, "rewritten": rewritten}

    def close(self) -> None:
        """Finish what the background worker is at and close the store. Calling it twice does nothing."""
        if not self._closed:
            self._closed = True
            if self._process == os.getpid():
                self._projection.close()
            self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        encoder = None if self._encoder is None else self._encoder.id
        return f"<Memory {str(self.path or ':memory:')!r} namespace={self.namespace!r} encoder={encoder!r}>"


def _made(spec: str | Encoder | None) -> Encoder | None:
    return make("minilm" if spec == AUTO else spec)


def _common(
    scope: Scope,
    category: object,
    importance: object,
    metadata: object,
    occurred_at: object,
    source: Source | None,
) -> Common:
    return Common(
        scope=scope,
        category=arguments.category(category),
        importance=arguments.importance(importance),
        metadata=arguments.metadata(metadata),
        occurred_at=parse_time(occurred_at, "occurred_at"),
        source=source,
    )


def _query(
    text: object,
    scope: Scope,
    filters: Mapping[str, Any] | None,
    threshold: float,
    as_of: datetime | str | float | None,
    recipe: str,
    k: int,
    explain: bool = False,
) -> Query:
    return Query(
        text=check_text(text, "query"),
        scope=scope,
        filters=parse_filter(filters),
        as_of=parse_time(as_of, "as_of"),
        k=k,
        threshold=arguments.threshold(threshold),
        recipe=recipe,
        explain=explain,
    )


def _about(encoder: Encoder | None) -> str:
    """What the store records of its encoder."""
    if encoder is None:
        return "null"
    about = {"spec": getattr(encoder, "spec", None), "id": encoder.id, "dim": encoder.dim, "window": encoder.window}
    return json.dumps({**about, "normalised": True})


def _is_store(path: Path) -> bool:
    """Whether ``path`` holds a store; False where a new one can be made. Raises NotAStore for anything else."""
    try:
        inside = {entry.name for entry in path.iterdir()} - {"open.lock"}
        lost = bool(inside & {"views", "activations"})
        if "ledger.db" in inside and not (lost and (path / "ledger.db").stat().st_size == 0):
            return True
    except FileNotFoundError:
        return False
    except NotADirectoryError as error:
        raise NotAStore(f"{path} is a file", mend="give a directory (it is created), or ':memory:'") from error
    except OSError as error:
        raise NotWritable(f"cannot read {path} ({error.strerror})", mend="choose a place you can write") from error
    if lost:
        raise NotAStore(f"{path} was a store but its ledger.db is gone", mend="restore ledger.db from a backup")
    if inside:
        raise NotAStore(f"{path} holds other files and no store", mend="give an empty or new directory")
    return False


def _directory(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotWritable(f"cannot make {path} ({error.strerror})", mend="choose a place you can write") from error
    return path


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
