"""``Portability``: the part of ``Memory`` by which it goes out to archives and backups and comes in from archives."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memspan import archives, arguments, backups
from memspan.archives.signing import fingerprint, private_key
from memspan.drafting import Batch, Common, admitted, pieces_for
from memspan.errors import EncoderMismatch, InvalidInput, StoreError
from memspan.exporting import export
from memspan.filtering import parse_filter
from memspan.importing import Import
from memspan.ledger.sqlite import SqliteLedger
from memspan.records import Piece, as_dict
from memspan.reports import BackedUp, Exported, Imported
from memspan.store import Store
from memspan.views.base import Progress


class Portability(Store):
    """An open store that archives are made of and taken into."""

    def export_to(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
        history: bool = True,
        compat: bool = False,
        key: str | os.PathLike[str] | None = None,
        about: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Exported:
        """Write a namespace, or the part in scope that passes ``filters``, to an archive at ``path``, which is replaced
        whole or not at all.

        ``format`` is one of ``memspan.archives.FORMATS`` that can be written; None goes by the suffix. All of it is of
        one moment. ``history`` False leaves out what current segments said before, and what is only history.
        ``compat`` writes Latent Memory's formats exactly as it did, which loses what they have no room for. ``key`` is
        the file of a private key to sign a cube with, ``about`` what a cube shall say beside where it comes from, JSON
        values. Raises InvalidInput, MissingExtra, StoreError.
        """
        arguments.flags(history=history, compat=compat)
        arguments.progress(progress)
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        target = arguments.path(path)
        chosen = archives.for_writing(target, format)
        if compat and not chosen.matrix:
            problem = f"{chosen.name} is none of Latent Memory's formats"
            raise InvalidInput("compat", problem, mend="export without it, or as csv, npy, hdf5, pickle or faiss")
        if chosen.vectors:
            self._projection.settle(scope.namespace, progress=progress)
        if key is not None and chosen.name != "cube":
            raise InvalidInput("key", f"{chosen.name} has no place for a signature", mend="export a cube: NAME.memspan")
        own = {"store_id": self._ledger.value("store_id"), "schema": self._ledger.counts()["schema"]}
        part = {name: getattr(scope, name) for name in ("user_id", "agent_id", "run_id", "session")}
        part = {name: value for name, value in part.items() if value is not None}
        return export(
            self._ledger,
            scope,
            parse_filter(filters),
            target,
            chosen,
            history=history,
            compat=compat,
            key=None if key is None else private_key(key),
            recorded=self._recorded,
            about={
                **own,
                "scope": part,
                "filters": None if filters is None else dict(filters),
                "history": history,
                **arguments.metadata(about, "about"),
            },
            progress=progress,
        )

    def import_from(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        restore_deleted: bool = False,
        signed_by: str | os.PathLike[str] | None = None,
        vectors: bool = True,
        strict: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Imported:
        """Take over what is in an archive, or in what another system wrote, at ``path``, into a namespace.

        ``format`` is one of ``memspan.archives.FORMATS``; None finds out by looking. Each batch is written whole or not
        at all; run again after an interruption it goes on, and what is here already is passed over. What cannot be read
        is left out, counted and told with its place; ``strict`` looks at everything first, and then imports nothing.
        ``dry_run`` only tells. What was deleted here stays deleted unless ``restore_deleted``. ``signed_by`` is the
        key that must have signed a cube: its fingerprint, or its PEM file. ``user_id`` and so on say whose it is where
        the file does not.

        Texts become durable first and are encoded after, unless the archive has vectors of this store's encoder: some
        are compared with what the encoder makes of the text, the others believed. ``vectors`` False encodes every text
        here, as you should where you do not trust who wrote it.

        Raises NotFound, InvalidInput, MissingExtra, StoreError.
        """
        arguments.flags(restore_deleted=restore_deleted, vectors=vectors, strict=strict, dry_run=dry_run)
        arguments.progress(progress)
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        source = arguments.path(path)
        chosen = archives.of(source, format)
        required = None if signed_by is None else fingerprint(signed_by)
        while True:
            taking = Import(
                self._ledger, self._projection, source, chosen, scope, self._cut, required, vectors, self._redactor
            )
            if strict:
                taking.check(progress)
            try:
                done = taking.run(revive=restore_deleted, dry_run=dry_run, progress=progress)
                break
            except EncoderMismatch:  # another process has just switched the store over: what is here is passed over
                self._follow()
        if dry_run:
            return done
        self._projection.settle(scope.namespace, progress=progress)
        if done.vectors:
            self._projection.restore(progress=progress)
        return replace(done, pending=self._ledger.count_pending(scope.namespace))

    def _admitted(self, text: str, argument: str) -> str:
        """What of ``text`` may be stored. Raises InvalidInput where nothing is left."""
        if not (left := admitted(text, self._redactor).text):
            mend = "give what was said beside it"
            raise InvalidInput(argument, "holds nothing but recalled memory", mend=mend)
        return left

    def _batch(self, common: Common) -> Batch:
        return Batch(self._cut, common, redactor=self._redactor)

    def backup(
        self, path: str | os.PathLike[str], *, keep: int | None = None, progress: Progress | None = None
    ) -> BackedUp:
        """Back the whole store up into the directory ``path``, which is made where it is not there.

        It holds one moment: all that was acknowledged before the call, and nothing half. Others go on writing. What an
        earlier backup in ``path`` has already is not written again, and each can be restored: ``memspan.restore(path,
        target)``. ``keep``: remove all but so many of the newest afterwards; None, and nothing is ever removed. What is
        erased from the memory later is still in the backups of before. Raises InvalidInput where ``path`` is in the
        store, or holds something else or another store's backups; StoreError where the store is in memory only;
        StoreBusy, StoreFull, NotWritable; then the earlier backups are as they were.
        """
        arguments.progress(progress)
        kept = None if keep is None else arguments.count("keep", keep)
        self._scope(None, None, None, None, None)
        if self.database is not None:
            raise StoreError("a database is backed up by its server", mend=f"pg_dump -Fc --dbname={self.where}")
        if self.path is None or not isinstance(self._ledger, SqliteLedger):
            mend = "write it to an archive: memory.export_to('all.memspan')"
            raise StoreError("a store in memory has no files to back up", mend=mend)
        done = backups.make(self._ledger, self.path, arguments.path(path), keep=kept, progress=progress)
        self._ledger.put_values({"backup": json.dumps(as_dict(done))}, replace=True)
        return done

    def _cut(self, text: str, media: str) -> list[Piece]:
        return pieces_for(self._encoder, text, media)
