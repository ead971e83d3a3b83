"""Where a store is: in memory, in a directory, in a database; and the ledger that opens it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Final

from memspan.config import Database
from memspan.errors import InvalidInput, NotAStore, NotWritable, StoreBusy
from memspan.keys import ASIDE, FILE, LOCK, Key, secret_of, unlock
from memspan.ledger.base import Ledger
from memspan.ledger.connections import translated
from memspan.ledger.sqlite import SqliteLedger

COPIED: Final = "copied"
"""The value in which a store says what it is a copy of, and ``at`` which moment, None until it is whole."""


def exists(place: Path | Database | None) -> bool:
    """Whether there is a store; False where a new one can be made. Raises NotAStore for anything else."""
    if isinstance(place, Database):
        from memspan.ledger.postgres.schema import made

        return made(place.url)
    return place is not None and _is_store(place)


def ledger_at(
    place: Path | Database | None, actor: str | None, key: Key | None, namespace: str | None = None
) -> Ledger:
    """The ledger of the store, which is made where there is none. ``namespace``: one that it is going to be asked
    about; a role on a server may be told of those that were named only. Raises StoreError, and InvalidInput for a key
    where it is in a database."""
    if place is None:
        return SqliteLedger(None, actor)
    if isinstance(place, Path):
        secret = secret_of(key)  # before anything is made
        with translated(_directory(place)):
            keys = unlock(place, secret)
        return SqliteLedger(place / "ledger.db", actor, keys)
    if key is not None:
        mend = "leave the key out, and have the server's disk encrypted"
        raise InvalidInput("key", "is for stores in a directory: a database is not encrypted by memspan", mend=mend)
    from memspan.ledger.postgres.bound import opened

    return opened(place.url, actor, namespace)


def whole(ledger: Ledger, place: Path | Database | None) -> None:
    """Raises StoreBusy where the store at ``place`` is a copy of another one that is not whole yet."""
    told = ledger.value(COPIED)
    if told is not None and json.loads(told)["at"] is None:
        origin = json.loads(told)["from"]
        mend = f"finish it: {shlex.join(['memspan', 'copy', origin, str(place)])}"
        raise StoreBusy(f"{place} is a copy of {origin} that is not whole yet", mend=mend)


def _is_store(path: Path) -> bool:
    """Whether ``path`` holds a store; False where a new one can be made. Raises NotAStore for anything else."""
    try:
        inside = {entry.name for entry in path.iterdir()} - {LOCK, FILE, ASIDE}
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


def size(file: Path) -> int:
    """Bytes of a file, 0 where it is gone."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
