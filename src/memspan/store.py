"""``Store``: what is behind a ``Memory``: how a store is opened, the only place where its parts are wired, its care."""

from __future__ import annotations

import base64
import json
import os
import shlex
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from memspan import arguments, encoders, opening, redaction, rerankers, tuning
from memspan.activations.tokens import DEFAULT, OWN, SHIPPED, Basis, TokenCodec, basis_named, checked, shipped
from memspan.analysis import VERSION as ANALYSER
from memspan.channels import (
    Channel,
    GraphFollower,
    KeywordChannel,
    MentionsFollower,
    NamedFollower,
    NextFollower,
    SemanticChannel,
    TreeChannel,
)
from memspan.config import Config, Database
from memspan.encoders.base import Encoder
from memspan.errors import EncoderError, EncoderMismatch, InvalidInput, NotFound, StoreClosed
from memspan.evidence import Evidence, LateInteraction
from memspan.keys import Key
from memspan.ledger.base import Seqs
from memspan.projection import Projection
from memspan.records import Judgement, Query, Scope
from memspan.redaction import Redactor, redacted
from memspan.reencoding import alone, fitted, reencode
from memspan.reports import Tuned
from memspan.rerankers.base import Reranker
from memspan.retrieval import Retrieval
from memspan.scrubbing import Scrubbed, scrub
from memspan.segmenting import Tokenizer, WordTokenizer, shown, tokenizer_of
from memspan.views.association import Graph, NearestIn
from memspan.views.base import Progress, Selecting, Selection, Selections, View
from memspan.views.graph import GraphView
from memspan.views.lexical import LexicalIndex, LexicalView
from memspan.views.tree import TreeView
from memspan.views.vectors import VectorIndex, VectorView

T = TypeVar("T")

AUTO = "auto"
SAMPLE = 4_096
MOST_ROWS = 1_000_000_000
MOST_SAMPLED = 1_000_000  # texts that a projection is fitted to
SHIPPED_RECIPE = "default-rerank-tuning"
COMPARED = 16_384  # rows up to which every one is compared to find the similar ones of another
COPIED = "copied"  # of the store: what it is a copy of, and of when, None until it is whole
BEAM = 16  # leaves looked into beyond: .94 of the nearest eight are found there


class Store:
    """An open store: the ledger, the encoder it was made with, the views, and what retrieval makes of them."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        encoder: str | Encoder | None = AUTO,
        tokens: str = AUTO,
        namespace: str | None = None,
        reranker: str | Reranker | None = AUTO,
        tokenizer: str | os.PathLike[str] | Tokenizer | Callable[[str], int] | None = None,
        key: Key | None = None,
        redact: str | Redactor | Callable[[str], str] | None = AUTO,
        config: Config | None = None,
        actor: str | None = None,
    ) -> None:
        config = config or Config.load()
        named = config.namespace if namespace is None else namespace
        self.namespace = arguments.scope(named, None, None, None, None).namespace
        place = None if path == ":memory:" else arguments.place(config.store if path is None else path)
        self.path = place if isinstance(place, Path) else None
        self.database = place if isinstance(place, Database) else None
        self._configured_llm = config.llm
        self._closed = False
        self._turning = threading.RLock()
        self._own_choice = encoder == AUTO  # whether the store, and not the caller, says which encoder
        self._counted = tokenizer is not None
        exists = opening.exists(place)
        level = config.tokens if tokens == AUTO and not exists else checked(tokens)
        wanted = encoder if exists or encoder != AUTO else config.encoder
        made = None if exists else _made(wanted)  # a missing model must not leave an empty store behind
        self._redactor = redaction.make(config.redact if redact == AUTO else redact)
        self._reranker = rerankers.make(config.reranker if reranker == AUTO else reranker)
        counter = None if tokenizer is None else tokenizer_of(tokenizer)
        who = arguments.name("actor", actor)
        self._ledger = opening.ledger_at(place, who, config.secret() if key is None else key, self.namespace)
        try:
            opening.whole(self._ledger, place)
            self._encoder = self._agreed(wanted if exists else made, config.encoder, level)
            self._wire(self._recorded)
            self._tokenizer = counter or self._default_tokenizer()
            if self._ledger.due() is not None:  # a crash, or somebody who was reading, kept an erasure from its end
                self._scrub(wait=False)
        except BaseException:
            self._ledger.close()
            raise

    # Wiring

    def _wire(self, recorded: str) -> None:
        self._process = os.getpid()
        views_path = None if self.path is None else self.path / "views"
        known = json.loads(recorded)
        dim = 1 if known is None else known["dim"]
        self._selections, lexical, vectors, self._tree, graph = self._indexes(views_path, dim)
        views: list[View] = [lexical]
        channels: list[Channel] = [KeywordChannel(lexical)]
        self._nearest: NearestIn | None = None
        if vectors is not None:
            views.append(vectors)
            routed = TreeChannel(self._tree, vectors)
            channels += [SemanticChannel(vectors, routed), routed]
            led = self._tree if self.database is None else None
            self._nearest = partial(_nearest, vectors, led, self._selections)
        views.append(self._tree)
        self._graph = graph(self._nearest)
        views.append(self._graph)
        followers = (
            NextFollower(self._graph),
            MentionsFollower(self._graph),
            NamedFollower(self._graph),
            GraphFollower(self._graph),
        )
        codec = None if self._encoder is None else _codec(known, self._ledger.value("basis"))
        late = None if codec is None else LateInteraction(self._ledger, codec)
        self._projection = Projection(self._ledger, self._encoder, recorded, views, codec)
        self._retrieval = Retrieval(
            self._ledger,
            self._selections,
            channels,
            followers,
            self._tree,
            self._graph,
            Evidence(self._ledger, self._graph, late),
            self._projection,
            self._reranker,
        )

    def _indexes(
        self, directory: Path | None, dim: int
    ) -> tuple[Selecting, LexicalIndex, VectorIndex | None, TreeView, Callable[[NearestIn | None], Graph]]:
        """Who gives selections; the view by words, the one by meaning where there is an encoder, that of categories and
        clusters, and what makes the one of edges; a database has its own of each."""
        meant = self._encoder is not None
        if self.database is None:
            return (
                Selections(self._ledger),
                LexicalView(self._ledger, directory),
                VectorView(self._ledger, directory, dim) if meant else None,
                TreeView(self._ledger, directory, dim),
                partial(GraphView, self._ledger, directory),
            )
        from memspan.ledger.postgres.ledger import PostgresLedger
        from memspan.views.postgres.graph import PostgresGraph
        from memspan.views.postgres.lexical import PostgresLexical
        from memspan.views.postgres.selections import PostgresSelections
        from memspan.views.postgres.tree import PostgresTree
        from memspan.views.postgres.vectors import PostgresVectors

        ledger = self._ledger
        assert isinstance(ledger, PostgresLedger)  # noqa: S101 - what a database was opened with
        return (
            PostgresSelections(ledger),
            PostgresLexical(ledger),
            PostgresVectors(ledger, dim) if meant else None,
            PostgresTree(ledger, dim),
            partial(PostgresGraph, ledger),
        )

    def _agreed(self, wanted: str | Encoder | None, configured: str, level: str) -> Encoder | None:
        """The encoder this store's vectors come from; the first to open a new store decides, and on the ``level`` of
        its token activations."""
        encoder: Encoder | None = None
        wanted = None if wanted == "none" else wanted
        if self._ledger.value("encoder") is None:
            encoder = _made(configured if wanted == AUTO else wanted)
            about, basis = _about(encoder, level)
            self._ledger.put_values(
                {
                    "store_id": str(uuid.uuid4()),
                    "created_at": datetime.now(UTC).isoformat(),
                    "analyser": ANALYSER,
                    "encoder": about,
                    "basis": basis,
                },
                replace=False,
            )
        self._recorded = str(self._ledger.value("encoder"))
        known = json.loads(self._recorded)
        if known is not None and level not in (AUTO, known.get("tokens", "none")):
            command = ["memspan", "reencode", "--store", self.where, "--tokens", level]
            kept = known.get("tokens", "none")
            raise EncoderMismatch(
                f"{self.where} keeps its token activations as {kept!r}, not {level!r}",
                mend=f"open it without tokens=, or change that: {shlex.join(command)}",
            )
        if encoder is None and (wanted is None or (known is None and wanted == AUTO)):
            return None  # keywords only: what is added waits for its vector until an encoder is there again
        if encoder is None and wanted == AUTO:
            if known["spec"] is None:
                raise EncoderMismatch(
                    f"{self.where} was made with the encoder {known['id']!r}, which has no name to find it by",
                    mend="pass it: Memory(path, encoder=...)",
                )
            wanted = known["spec"]
        encoder = encoder or _made(wanted)
        if known is None or encoder is None or encoder.id != known["id"]:
            self._mismatch(known, encoder)
        return encoder

    def _mismatch(self, known: Mapping[str, Any] | None, encoder: Encoder | None) -> None:
        spec = getattr(encoder, "spec", None) or "SPEC"
        command = ["memspan", "rebuild", "--store", self.where, "--encoder", spec]
        was = "no encoder" if known is None else f"encoder {known['id']!r}"
        raise EncoderMismatch(
            f"{self.where} was made with {was}, not {None if encoder is None else encoder.id!r}",
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
            self._wire(self._recorded)
        if self._ledger.value("encoder") != self._recorded:
            self._follow()
        return arguments.scope(self.namespace if namespace is None else namespace, user_id, agent_id, run_id, session)

    # Care

    def stats(self) -> dict[str, Any]:
        """Where the store is, what is in it, what it weighs, how far each view is and what last failed.

        On a server, a role that is bound to namespaces is told of those that were named to this Memory: ``covers``.
        """
        self._scope(None, None, None, None, None)
        counts = self._ledger.counts()
        namespaces = list(counts["namespaces"])
        views = self._projection.status(namespaces)
        ledger_bytes = 0 if self.path is None else sum(opening.size(file) for file in self.path.glob("ledger.db*"))
        views_bytes = sum(view["bytes"] for view in views.values())
        activations = self._ledger.activation_bytes()
        segments = sum(space["segments"] for space in counts["namespaces"].values())
        about = json.loads(self._recorded)
        return {
            "path": self.where,
            "store_id": self._ledger.value("store_id"),
            "created_at": self._ledger.value("created_at"),
            "encrypted": self._ledger.keys is not None,
            "schema": counts["schema"],
            "segments": segments,
            "tokens": sum(space["tokens"] for space in counts["namespaces"].values()),
            "documents": counts["documents"],
            "versions": counts["versions"],
            "repeats": counts["repeats"],
            "tombstones": counts["tombstones"],
            "namespaces": counts["namespaces"],
            **self._covering(),
            "encoder": None
            if about is None
            else {**about, "active": self._encoder is not None, "failure": self._projection.failure},
            "reencoding": self._begun(),
            "reranker": None
            if self._reranker is None
            else {"id": self._reranker.id, "failure": self._retrieval.unranked},
            "channels": self._retrieval.active(),
            "search_failure": self._retrieval.failure,
            "judgements": counts["judgements"],
            "log": self._ledger.log_head(),
            "backup": None if (told := self._ledger.value("backup")) is None else json.loads(told),
            "tuning": {
                name: learned.plain()
                for name in namespaces
                if (learned := tuning.current(self._ledger.value(tuning.key(name)))) is not None
            },
            "pending": self._ledger.count_pending(None),
            "views": views,
            "activations": activations,
            "bytes": {
                "ledger": ledger_bytes,
                "activations": activations["bytes"],
                "views": views_bytes,
                "total": (total := ledger_bytes + activations["bytes"] + views_bytes),
                "per_segment": round(total / segments) if segments else 0,
            },
        }

    def _covering(self) -> dict[str, Any]:
        """Which namespaces are covered, where that is not all of them."""
        covers = self._ledger.covers()
        return {} if covers is None else {"covers": covers}

    def _begun(self) -> dict[str, Any] | None:
        """What is being encoded anew beside what is in use: by which encoder, tokens at which level, how many texts are
        left; None where nothing is."""
        if (begun := self._ledger.value("next")) is None:
            return None
        about = json.loads(json.loads(begun)["encoder"])
        left = self._ledger.count_unencoded(json.loads(begun)["number"])
        return {"encoder": about["id"], "tokens": about["tokens"], "left": left}

    def compact(self, *, progress: Progress | None = None) -> dict[str, Any]:
        """Encode what waits, fold the views' tails into snapshots where that pays, shrink the log. Never needed, only
        faster: it happens in the background too. Returns what was rewritten, and bytes before and after."""
        before = self.stats()["bytes"]["total"]
        outdated = self._ledger.value("analyser") != ANALYSER
        rewritten = self._projection.compact(self._ledger.namespaces(), force=outdated, progress=progress)
        self._ledger.put_values({"analyser": ANALYSER}, replace=True)
        self._ledger.tidy()
        self._scrub(wait=False)
        after = self.stats()["bytes"]["total"]
        return {"rewritten": rewritten, "bytes_before": before, "bytes_after": after, **self._covering()}

    def _scrub(self, first: dict[str, int] | None = None, *, wait: bool) -> Scrubbed:
        """Do what erasures have left to do: see ``memspan.scrubbing``. ``wait`` where another process is at it."""
        known, views = json.loads(self._recorded), list(self._projection.views)
        if (
            self._encoder is None and known is not None and self.path is not None
        ):  # its vectors have an index all the same
            views.append(VectorView(self._ledger, self.path / "views", known["dim"]))
        with self._ledger.turn("scrub", wait=wait) as mine:
            return scrub(self._ledger, views, self.path, first) if mine else Scrubbed(due=["another process is at it"])

    def verify(self, *, log_only: bool = False, progress: Progress | None = None) -> dict[str, Any]:
        """Read everything back the way searches do and compare it with what was written; with ``log_only`` only walk
        the log, and compare the rows it names.

        Returns ``{"ok": bool, "segments": int, "problems": [str]}``; ``problems`` names each damaged segment or file.
        A role that is bound to namespaces reads those that were named to this Memory: ``covers``.
        """
        self._scope(None, None, None, None, None)
        arguments.flags(log_only=log_only)
        problems, done = [], 0
        for done, total, problem in self._ledger.problems(log_only=log_only):
            if problem is not None:
                problems.append(problem)
            if progress is not None:
                progress(done, total, "verifying")
        if not log_only:
            problems += self._projection.problems(self._ledger.namespaces())
        if self._ledger.harmed:
            self._ledger.lose()
        return {"ok": not problems, "segments": done, "problems": problems, **self._covering()}

    def rebuild(self, *, encoder: str | Encoder | None = AUTO, progress: Progress | None = None) -> dict[str, Any]:
        """Build every view anew from the ledger; with another ``encoder``, after ``reencode`` with it.

        Searches go on meanwhile; it can be interrupted and goes on when it is called again. Returns the encoder's id
        and what was rewritten. Raises EncoderError, or what the new encoder raises, where it fails; then nothing was
        changed.
        """
        self._scope(None, None, None, None, None)
        if encoder is None or encoder == "none":
            if self._recorded != "null":
                with self._turning, alone(self._ledger):
                    self._projection.close()
                    self._ledger.forget_activations("null")
                    self._rewire(None)
        elif encoder != AUTO:
            self._reencoded(self._present(encoder), AUTO, None, progress)
        rewritten = self._projection.compact(self._ledger.namespaces(), force=True, progress=progress)
        self._ledger.put_values({"analyser": ANALYSER}, replace=True)
        self._ledger.tidy()
        return {"encoder": None if self._encoder is None else self._encoder.id, "rewritten": rewritten}

    def reencode(
        self, *, encoder: str | Encoder = AUTO, tokens: str = AUTO, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Encode every text anew, by another ``encoder`` or to keep token activations at another level: ``tokens`` is
        "none", "1bit", "4bit", "int8", "f16", or "auto" for the level in use, else the default one.

        Searches and writes go on, also of other processes, which follow by themselves; one transaction switches over
        when all is made. Interrupted, it goes on where it was when it is called again. Texts are not cut again. Returns
        ``encoder``, ``tokens``, and how many texts were ``encoded``. Raises InvalidInput, EncoderError, or what the new
        encoder raises, and StoreBusy where another process is at it; then the store is as it was.
        """
        self._scope(None, None, None, None, None)
        made = self._reencoded(self._present(encoder), checked(tokens), None, progress)
        if made:
            self._projection.compact(self._ledger.namespaces(), progress=progress)
        about = json.loads(self._recorded)
        return {"encoder": about["id"], "tokens": about["tokens"], "encoded": made}

    def fit_tokens(
        self, *, dims: int | None = None, tokens: str = AUTO, sample: int = SAMPLE, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Fit the projection of token activations to what is stored, and ``reencode`` with it.

        ``dims``: of the projected vectors, a multiple of 8; None keeps the encoder's own, all of them. ``sample``: how
        many texts are looked at. For an encoder that has none shipped, or a language or field unlike what that was
        fitted on. Returns as ``reencode`` does, and the ``basis``. Raises as it does, and EncoderError for an encoder
        without token activations.
        """
        self._scope(None, None, None, None, None)
        encoder = self._present(AUTO)
        least = encoder.dim if dims is None else dims
        if not isinstance(least, int) or least % 8 or not 0 < least <= encoder.dim:
            mend = f"give a multiple of 8 up to {encoder.dim}"
            raise InvalidInput("dims", f"{shown(least)} does not fit", mend=mend)
        most = arguments.count("sample", sample, most=MOST_SAMPLED)
        basis = fitted(encoder, self._ledger.sample(most), dims, progress)
        made = self._reencoded(encoder, checked(tokens), basis, progress)
        about = json.loads(self._recorded)
        return {"encoder": about["id"], "tokens": about["tokens"], "basis": about["basis"], "encoded": made}

    def tune(
        self,
        judgements: Iterable[Mapping[str, Any] | Judgement] | None = None,
        *,
        namespace: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Tuned:
        """Learn how much each feature of a score counts in a namespace from its feedback and from ``judgements``
        ({"query", "id", "useful"}), which are kept as feedback too.

        Each judged query is ranked anew over the whole namespace, without the reranker and what was learned before. The
        weights move from the shipped ones only as far as the judgements bear out, and searches of all processes use
        them from their next one on, if questions they were not fitted on gain by more than its noise; else nothing
        changes, and the answer says so. ``dry_run`` only tells. ``untune`` takes it back. Raises NotFound, and
        InvalidInput where fewer than 10 questions have a useful segment, then nothing was written; EncoderError.
        """
        scope = self._scope(namespace, None, None, None, None)
        space = scope.namespace
        given = [] if judgements is None else arguments.judgements(judgements)
        given = [
            replace(each, query=redacted(each.query, self._redactor), id=self._ledger.get(space, each.id).id)
            for each in given
        ]
        said = {(each.query, each.id): each for each in (*self._ledger.judgements(space), *given)}
        seqs = {}
        for id in {id for _, id in said}:
            with suppress(NotFound):  # of a document that was read again: it is history
                seqs[id] = self._ledger.get(space, id).seq
        asked = tuning.questions((said[each] for each in sorted(said)), seqs)
        if given and not dry_run:
            self._ledger.judge(space, given)
        examined = []
        for done, (text, marks) in enumerate(asked.items(), 1):
            examined.append(self._examined(Query(text=text, scope=scope, k=tuning.DEPTH, recipe=SHIPPED_RECIPE), marks))
            if progress is not None:
                progress(done, len(asked), "ranking")
        fitted = tuning.fit(examined)
        learned = tuning.Adjustment(
            weights=fitted.weights,
            bias=fitted.bias,
            fitted_at=datetime.now(UTC),
            questions=len(asked),
            judgements=sum(map(len, asked.values())),
            before=fitted.before,
            after=fitted.after,
        )
        if applied := fitted.better and not dry_run:
            self._ledger.change_value(tuning.key(space), lambda raw: tuning.changed(raw, learned))
        return Tuned(
            namespace=space,
            questions=learned.questions,
            judgements=learned.judgements,
            before=fitted.before,
            after=fitted.after,
            noise=fitted.noise,
            weights=fitted.weights,
            effects=fitted.effects,
            bias=fitted.bias,
            better=fitted.better,
            applied=applied,
        )

    def _examined(self, query: Query, marks: Mapping[int, bool]) -> tuning.Examined:
        """The candidates of a judged query, with what was said of them by seq."""
        ranked = self._steadily(lambda engine: engine.ranked(query))
        if (failure := self._retrieval.failure) is not None:  # a search does without; what is learned must not
            raise EncoderError(f"the encoder failed: {failure}", mend="run `memspan doctor`, and tune again")
        useful = [seq for seq, good in marks.items() if good]
        useless = [seq for seq, good in marks.items() if not good]
        return tuning.Examined(
            scores=ranked.scores,
            features=ranked.features,
            useful=np.isin(ranked.seqs, useful),
            useless=np.isin(ranked.seqs, useless),
            wanted=len(useful),
        )

    def untune(self, namespace: str | None = None) -> bool:
        """Go back to what was learned in the namespace before the last ``tune`` that changed something, at last to the
        shipped weights; whether there was anything to take back."""
        name = tuning.key(self._scope(namespace, None, None, None, None).namespace)
        if tuning.current(self._ledger.value(name)) is None:
            return False
        taken: list[tuning.Adjustment] = []

        def back(raw: str | None) -> str:
            taken.extend(tuning.history(raw)[-1:])
            return tuning.changed(raw, None)

        self._ledger.change_value(name, back)
        return bool(taken)

    def _present(self, encoder: str | Encoder) -> Encoder:
        """The encoder meant: a new one, or for AUTO the store's own. Raises InvalidInput where a new one is none,
        EncoderMismatch where the store has none."""
        if encoder != AUTO:
            if (made := _made(encoder)) is None:
                raise InvalidInput("encoder", "names none", mend="rebuild(encoder=None) does without one")
            return made
        known = json.loads(self._recorded)
        made = self._encoder
        if made is None and known is not None:
            made = _made(known["spec"])
        if made is None:
            raise EncoderMismatch("this store has no encoder", mend="name one: reencode(encoder='minilm')")
        return made

    def _reencoded(self, encoder: Encoder, level: str, basis: Basis | None, progress: Progress | None) -> int:
        """Have the store encoded by ``encoder``, tokens at ``level`` on ``basis``; how many texts that took."""
        recorded = json.loads(self._recorded) or {}
        known = {"tokens": "none", **recorded}
        same = known.get("id") == encoder.id
        if same and basis is None and known.get("basis", "").startswith(OWN):
            basis = Basis.loads(base64.b64decode(self._ledger.value("basis") or ""))
        if level == AUTO and "tokens" in recorded and (known["tokens"] != "none" or shipped(known["id"])):
            level = known["tokens"] if basis or shipped(encoder.id) else AUTO
        about, packed = _about(encoder, level, basis)
        if json.loads(about) == known:
            if self._ledger.value("next") is not None:
                with alone(self._ledger):
                    self._ledger.give_up_encoding()
            return 0
        target = Projection(self._ledger, encoder, about, (), _codec(json.loads(about), packed))
        with self._turning:  # whoever meets the switch in this process waits here until all is wired anew
            made = reencode(self._ledger, target, packed, vectors=not same, progress=progress)
            self._projection.close()
            self._rewire(encoder)
        self._ledger.drop_encodings()
        return made

    def _rewire(self, encoder: Encoder | None) -> None:
        """Go on with what the store records now. Others ask what is recorded first, so that is said last."""
        recorded = str(self._ledger.value("encoder"))
        self._encoder = encoder
        self._wire(recorded)
        self._recorded = recorded
        if not self._counted:
            self._tokenizer = self._default_tokenizer()

    def _steadily(self, ask: Callable[[Retrieval], T]) -> T:
        """What ``ask`` gets; asked again where the store was switched to another encoding meanwhile, for a question of
        one encoder tells nothing about vectors of another."""
        while True:
            retrieval = self._retrieval
            try:
                found = ask(retrieval)
            except Exception:
                if self._ledger.value("encoder") == retrieval.recorded:
                    raise
            else:
                if self._ledger.value("encoder") == retrieval.recorded:
                    return found
            self._follow()

    def _follow(self) -> None:
        """Go on with the encoding another process has switched the store to. Raises EncoderMismatch where this Memory
        was told to use another encoder, or where that one has no name to make it by."""
        with self._turning:
            recorded = str(self._ledger.value("encoder"))
            if recorded == self._recorded:
                return None
            known, own = json.loads(recorded), self._encoder
            if own is None and not self._own_choice:  # it was told to do without one
                self._projection.close()
                return self._rewire(None)
            if own is None or known is None or known["id"] != own.id:
                if not self._own_choice or known is None or known["spec"] is None:
                    problem = f"{self.where} was given another encoder since this Memory opened it"
                    raise EncoderMismatch(problem, mend="close this Memory and open it again")
                own = _made(known["spec"])
            self._projection.close()
            return self._rewire(own)

    @property
    def where(self) -> str:
        """Where the store is: its directory, its database without a password, or ":memory:"."""
        return str(self.path or self.database or ":memory:")

    @property
    def address(self) -> str:
        """What opens it again."""
        return self.where if self.database is None else self.database.url

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
        return f"<{type(self).__name__} {self.where!r} namespace={self.namespace!r} encoder={encoder!r}>"


def _nearest(
    vectors: VectorIndex, tree: TreeView | None, selections: Selecting, within: str | Selection, seqs: Seqs, k: int
) -> tuple[Seqs, NDArray[np.float32]]:
    """The rows of a namespace, as they are now, or of a selection, that are nearest to each of ``seqs``; to one that is
    not in it only itself. Among many they are looked for where the ``tree`` leads to, so that it takes no longer; None
    where the vectors have a way of their own."""
    now = selections.of(Scope(namespace=within)) if isinstance(within, str) else within
    if tree is None or now.rows <= COMPARED:
        near, cosines = vectors.nearest(now, seqs, k)
    else:
        near, cosines = np.full((len(seqs), k), -1, np.int64), np.zeros((len(seqs), k), np.float32)
        own, known = vectors.own(now.namespace, seqs)
        for at, vector, around in zip(np.flatnonzero(known), own, tree.around(now, own, BEAM), strict=True):
            best = vectors.among(now, around, vector, k)
            near[at, : len(best.seqs)], cosines[at, : len(best.seqs)] = best.seqs, best.scores
    current = now.inside(seqs)
    near[~current, 0], near[~current, 1:] = seqs[~current], -1
    return near, cosines


def _made(spec: str | Encoder | None) -> Encoder | None:
    return encoders.make("minilm" if spec == AUTO else spec)


def _about(encoder: Encoder | None, level: str, basis: Basis | None = None) -> tuple[str, str]:
    """What the store records of its encoder, and of the ``basis`` of token activations: the one that is shipped for
    that encoder where none is given. Raises InvalidInput where there is none either and ``level`` asks for one."""
    if encoder is None:
        return "null", ""
    basis = basis or shipped(encoder.id)
    if basis is None or len(basis.mean) != encoder.dim:
        if level not in (AUTO, "none"):
            problem = f"no projection of token activations comes with memspan for encoder {encoder.id!r}"
            raise InvalidInput(
                "tokens", problem, mend="leave it out; `memspan fit-tokens` makes one from what is stored"
            )
        level, basis = "none", None
    about: dict[str, Any] = {
        "spec": getattr(encoder, "spec", None),
        "id": encoder.id,
        "dim": encoder.dim,
        "window": encoder.window,
        "normalised": True,
        "tokens": DEFAULT if level == AUTO else level,
    }
    if basis is None or about["tokens"] == "none":
        return json.dumps(about), ""
    packed = "" if basis.id in SHIPPED else base64.b64encode(basis.dumps()).decode()
    return json.dumps({**about, "basis": basis.id}), packed


def _codec(about: Mapping[str, Any] | None, basis: str | None) -> TokenCodec | None:
    """How the store that records these keeps token activations, None where it does not; ``basis`` is empty for one that
    comes with memspan. Raises NewerStore."""
    if about is None or about.get("tokens", "none") == "none":
        return None
    own = Basis.loads(base64.b64decode(basis)) if basis else basis_named(about["basis"])
    return TokenCodec(about["tokens"], own)
