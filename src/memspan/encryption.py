"""Encrypting a store, and giving an encrypted one another key. Needs ``memspan[encryption]``; docs/encryption.md."""

from __future__ import annotations

import os
import shlex
import shutil
import uuid
from contextlib import closing, suppress
from pathlib import Path

from filelock import FileLock

from memspan import arguments
from memspan.errors import InvalidInput, NotAStore, NotEncrypted, StoreCorrupt
from memspan.keys import FILE, LOCK, Key, Keys, Secret, into_keyring, secret_of, unlock, write
from memspan.ledger.connections import BUSY_SECONDS, connected, translated
from memspan.ledger.sqlite import SqliteLedger


def is_encrypted(path: str | os.PathLike[str]) -> bool:
    """Whether the store at ``path`` says that it is encrypted."""
    return (arguments.path(path) / FILE).exists()


def rekey(
    path: str | os.PathLike[str], *, key: Key | None = None, new_key: Key | None = None, keyring: bool = False
) -> None:
    """Have another key open the store at ``path``: ``new_key``, or with ``keyring`` a random one that is put into the
    system's keyring and found there. ``key``: the one that opens it now; None where that is in the keyring.

    One small file is written aside and swapped: a crash leaves the one or the other, and processes that hold the store
    open go on. What is encrypted stays as it is; who has copied the old file and knows the old key can still read it,
    so after a leak make a copy by ``encrypt``. Raises NotEncrypted, KeyNeeded, WrongKey, InvalidInput, StoreError.
    """
    place = arguments.path(path)
    secret = secret_of(key)
    with translated(place), FileLock(_store(place) / LOCK, timeout=BUSY_SECONDS):
        keys = unlock(place, secret) if is_encrypted(place) else None
        if keys is None:
            command = shlex.join(["memspan", "encrypt", "--store", str(place), "--to", "DIRECTORY"])
            raise NotEncrypted(f"{place} is not encrypted", mend=f"make an encrypted copy: {command}")
        write(place, keys, *_new(new_key, keyring))


def encrypt(
    path: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    key: Key | None = None,
    new_key: Key | None = None,
    keyring: bool = False,
) -> None:
    """Make an encrypted copy of the store at ``path`` at ``to``, where nothing is yet, with a data key of its own.

    ``new_key``, ``keyring``: as in ``rekey``. ``key`` opens a store that is encrypted already. All is copied, history
    and token activations and what the views have made of it; writers of the store wait meanwhile, and its files are not
    touched. The copy is there whole or not at all. Raises InvalidInput, KeyNeeded, WrongKey, StoreError.
    """
    place, target = arguments.path(path), arguments.path(to)
    secret = secret_of(key) if is_encrypted(_store(place)) else None
    if target.exists():
        raise InvalidInput("to", f"there is something at {target} already", mend="name a directory that is not there")
    fresh = Keys.fresh()
    aside = target.with_name(f"{target.name}.{uuid.uuid4().hex[:12]}.part")
    with translated(target):
        old = unlock(place, secret)
        new = _new(new_key, keyring)
        try:
            aside.mkdir(parents=True)
            write(aside, fresh, *new)
            with closing(SqliteLedger(place / "ledger.db", keys=old)) as source, source.held():
                _copy_ledger(place / "ledger.db", old, aside / "ledger.db", fresh)
                with closing(SqliteLedger(aside / "ledger.db", keys=fresh)) as copy:
                    copy.take_tensors(source)
            for file in (place / "views").glob("*.safetensors"):
                with suppress(StoreCorrupt, FileNotFoundError):  # what cannot be read is made anew where it is needed
                    raw = file.read_bytes()
                    _write(aside / "views" / file.name, raw if old is None else old.opened(file, raw), fresh)
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def _store(place: Path) -> Path:
    if not (place / "ledger.db").exists():
        raise NotAStore(f"there is no memory at {place}", mend="name the directory of a store")
    return place


def _new(key: Key | None, keyring: bool) -> tuple[Secret, str | None]:
    """The secret that is to open a store, and the entry of the keyring that holds it."""
    if keyring and key is None:
        return into_keyring()
    secret = secret_of(key, "new_key")
    if secret is None or keyring:
        raise InvalidInput("new_key", "is given and keyring too" if keyring else "is missing", mend="give one of them")
    return secret, None


def _copy_ledger(path: Path, old: Keys | None, target: Path, new: Keys) -> None:
    """The database at ``target``: every table and index of that at ``path``, in one moment."""
    with closing(connected(path, old)) as connection:
        connection.execute(f"ATTACH ? AS copy KEY \"x'{new.ledger()}'\"", (str(target),))
        connection.execute("BEGIN")
        connection.execute("SELECT sqlcipher_export('copy')").fetchone()
        for name in ("application_id", "user_version"):
            (value,) = connection.execute(f"PRAGMA main.{name}").fetchone()
            connection.execute(f"PRAGMA copy.{name} = {value}")
        connection.execute("COMMIT")


def _write(path: Path, raw: bytes, keys: Keys) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.writelines(keys.sealed(path.name, raw))
        file.flush()
        os.fsync(file.fileno())
