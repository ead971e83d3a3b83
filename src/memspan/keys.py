"""The keys of an encrypted store: how the caller's key opens it, and what is sealed by what. ``memspan[encryption]``.

A store is encrypted by 32 random bytes of its own, the data key. ``encryption.json`` in its directory holds that key
wrapped by the caller's: AES-256-GCM under what scrypt makes of a passphrase, or HKDF of 32 random bytes; everything
else in the file is authenticated with it. So another key is one small file written anew, and a wrong one is told from a
damaged store. From the data key HKDF-SHA-256 derives one key for each purpose:

    the ledger          SQLCipher 4: AES-256-CBC and HMAC-SHA-512 of each page, of the log and the journal too
    an arena file       AES-256-GCM of each record, a random nonce each; the number of the arena is in the key
    any other file      AES-256-GCM of each MiB, a random salt and the file's name in the key; the nonce counts, and
                        says which piece is the last (STREAM, Hoang, Reyhanitabar, Rogaway, Vizar 2015)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from memspan.errors import InvalidInput, KeyNeeded, MissingExtra, NewerStore, NotEncrypted, StoreCorrupt, WrongKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Key = bytes | str | Callable[[], bytes | str]

FILE: Final = "encryption.json"
ASIDE: Final = "encryption.json.part"  # what a crash may leave while it is written
LOCK: Final = "open.lock"  # held by who makes or opens a store
FORMAT: Final = 1
NONCE: Final = 12
OVERHEAD: Final = NONCE + 16  # bytes that a sealed record has more: its nonce and its tag
CLEAR: Final = b"SQLite format 3\0"  # how a database begins that is not encrypted

_PATIENCE: Final = 60  # seconds
_SIZE: Final = 32
_SALT: Final = 16
_MARK: Final = b"memspan sealed 1"
_PIECE: Final = 1 << 20
_TAG: Final = 16
_SCRYPT: Final = {"n": 1 << 15, "r": 8, "p": 3}  # as much work as OWASP asks for, in 32 MiB of memory
_MOST_WORK: Final = 1 << 20  # of n, so that a file from elsewhere cannot take all memory
_HEXADECIMAL: Final = re.compile("[0-9a-fA-F]{64}")
_SERVICE: Final = "memspan"  # of the entries in the system's keyring


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Secret:
    """What the caller gave: 32 random bytes (``kdf`` "hkdf"), or the bytes of a passphrase ("scrypt")."""

    kdf: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Keys:
    """The data key of a store, and what is derived from it."""

    data: bytes

    @classmethod
    def fresh(cls) -> Keys:
        """Those of a new store, by a data key that no other has."""
        return cls(data=os.urandom(_SIZE))

    def ledger(self) -> str:
        """The key of the ledger for SQLCipher: 64 hexadecimal digits."""
        return _derived(self.data, b"memspan ledger 1").hex()

    def arena(self, number: int) -> AESGCM:
        """What seals the records of one arena file."""
        return _cipher(_derived(self.data, b"memspan arena 1 %d" % number))

    def sealed(self, name: str, raw: bytes) -> Iterator[bytes]:
        """The file ``name`` with the content ``raw`` as it is written, a piece at a time."""
        salt = os.urandom(_SALT)
        yield _MARK + salt
        cipher = self._of_file(name, salt)
        whole = memoryview(raw)
        for at in range(0, max(len(raw), 1), _PIECE):
            yield cipher.encrypt(_counted(at // _PIECE, at + _PIECE >= len(raw)), whole[at : at + _PIECE], None)

    def opened(self, path: Path, raw: bytes) -> bytes:
        """The content of the file at ``path``, that holds ``raw``. Raises StoreCorrupt unless it is all that was
        written under this name with this key."""
        from cryptography.exceptions import InvalidTag

        begin, piece = len(_MARK) + _SALT, _PIECE + _TAG
        try:
            if raw[: len(_MARK)] != _MARK:
                raise InvalidTag
            cipher = self._of_file(path.name, raw[len(_MARK) : begin])
            whole, end = memoryview(raw)[begin:], len(raw) - begin
            return b"".join(
                cipher.decrypt(_counted(at // piece, at + piece >= end), whole[at : at + piece], None)
                for at in range(0, max(end, 1), piece)
            )
        except InvalidTag as error:
            raise StoreCorrupt(f"{path} is not what was written", mend="it is rebuilt from the ledger") from error

    def _of_file(self, name: str, salt: bytes) -> AESGCM:
        return _cipher(_derived(self.data, b"memspan file 1 " + name.encode(), salt))


def secret_of(key: Key | None, argument: str = "key") -> Secret | None:
    """The secret that ``key`` is, or gives when it is called: 32 random bytes, the 64 hexadecimal digits of such, or a
    passphrase; None for None. Raises InvalidInput, MissingExtra."""
    if key is None:
        return None
    given = key() if callable(key) else key
    if isinstance(given, bytes) and len(given) == _SIZE:
        secret = Secret(kdf="hkdf", raw=given)
    elif isinstance(given, str) and _HEXADECIMAL.fullmatch(given):
        secret = Secret(kdf="hkdf", raw=bytes.fromhex(given))
    elif isinstance(given, str) and given:
        secret = Secret(kdf="scrypt", raw=unicodedata.normalize("NFKC", given).encode("utf-8", "surrogatepass"))
    else:
        what = f"{len(given)} bytes" if isinstance(given, bytes) else "empty" if given == "" else type(given).__name__
        mend = "give a passphrase as a text, 32 random bytes, or their 64 hexadecimal digits"
        raise InvalidInput(argument, f"is {what}", mend=mend)
    _require()
    return secret


def unlock(directory: Path, secret: Secret | None) -> Keys | None:
    """The keys of the store in ``directory``; None for one that is not encrypted. With a ``secret``, a directory
    without a store is made one that is.

    Where there is no secret and the store says that its key is in the system's keyring, it comes from there. Raises
    KeyNeeded, WrongKey, NotEncrypted (a secret for a store in clear), StoreCorrupt, NewerStore, MissingExtra, OSError,
    and filelock's Timeout.
    """
    about = _read(directory)
    if about is None:
        if secret is None:
            return None
        with FileLock(directory / LOCK, timeout=_PATIENCE):
            about = _read(directory)
            if about is None:
                _refuse(directory)
                keys = Keys.fresh()
                write(directory, keys, secret)
                return keys
    if _is_clear(directory):
        problem = f"{directory / 'ledger.db'} is in clear beside {FILE}"
        raise StoreCorrupt(problem, mend=f"restore the ledger that belongs to it, or remove {FILE}")
    _require()
    return _unwrapped(directory, about, secret or _from_keyring(directory, about))


def write(directory: Path, keys: Keys, secret: Secret, keyring: str | None = None) -> None:
    """Have ``secret`` open the store, whose data key stays: one file, written aside and swapped. ``keyring``: the entry
    of the system's keyring that holds the secret. The caller holds the lock, or a directory that nobody knows of."""
    about: dict[str, Any] = {"format": FORMAT, "cipher": "AES-256-GCM", "kdf": {"name": secret.kdf}, "keyring": keyring}
    if secret.kdf == "scrypt":
        about["kdf"] |= _SCRYPT | {"salt": os.urandom(_SALT).hex()}
    nonce = os.urandom(NONCE)
    wrapped = _cipher(_wrapping(about["kdf"], secret)).encrypt(nonce, keys.data, _told(about))
    aside = directory / ASIDE
    with aside.open("w", encoding="utf-8") as file:
        json.dump({**about, "key": (nonce + wrapped).hex()}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(directory / FILE)
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def into_keyring() -> tuple[Secret, str]:
    """A new random secret in a new entry of the system's keyring, and the entry's name. Raises MissingExtra, KeyNeeded
    where this system has no keyring."""
    name = str(uuid.uuid4())
    raw = os.urandom(_SIZE)
    _require()
    with _Keyring("the new key") as ring:
        ring.set_password(_SERVICE, name, raw.hex())
    return Secret(kdf="hkdf", raw=raw), name


def _from_keyring(directory: Path, about: Mapping[str, Any]) -> Secret:
    name = about["keyring"]
    if name is None:
        raise KeyNeeded(
            f"{directory} is encrypted and no key was given", mend="pass key=, or set MEMSPAN_KEY or MEMSPAN_KEY_FILE"
        )
    with _Keyring(f"the key of {directory}") as ring:
        held = ring.get_password(_SERVICE, name)
    if held is None or (secret := secret_of(held)) is None:
        problem = f"the keyring of this user has no key of {directory}"
        raise KeyNeeded(problem, mend=f"put it there as {_SERVICE!r}, {name!r}, or pass key=")
    return secret


class _Keyring:
    """The library of the system's keyring, its errors as memspan's."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> Any:
        try:
            import keyring
        except ImportError as error:
            mend = 'pip install "memspan[keyring]"'
            raise MissingExtra(f"{self.what} is in the system's keyring, which needs keyring", mend=mend) from error
        return keyring

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from keyring.errors import KeyringError

        if isinstance(error, KeyringError):
            problem = f"the system's keyring cannot be used for {self.what} ({error})"
            raise KeyNeeded(problem, mend="unlock it, or pass key= or set MEMSPAN_KEY") from error


def _read(directory: Path) -> dict[str, Any] | None:
    path = directory / FILE
    try:
        about = json.loads(path.read_bytes())
        version = about["format"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if version != FORMAT:
        raise NewerStore(f"{path} is of format {version!r}, this memspan knows {FORMAT}", mend="upgrade memspan")
    return dict(about)


def _unwrapped(directory: Path, about: Mapping[str, Any], secret: Secret) -> Keys:
    from cryptography.exceptions import InvalidTag

    told = {name: value for name, value in about.items() if name != "key"}
    try:
        kind, raw = told["kdf"]["name"], bytes.fromhex(about["key"])
        if kind != secret.kdf:
            was = "a passphrase" if kind == "scrypt" else "32 random bytes (64 hexadecimal digits)"
            raise WrongKey(f"the key does not open {directory}", mend=f"give the right one, which is {was}")
        return Keys(data=_cipher(_wrapping(told["kdf"], secret)).decrypt(raw[:NONCE], raw[NONCE:], _told(told)))
    except InvalidTag as error:
        mend = f"give the right one; if it is, {FILE} was changed: restore it from a backup"
        raise WrongKey(f"the key does not open {directory}", mend=mend) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(directory / FILE) from error


def _damaged(path: Path) -> StoreCorrupt:
    return StoreCorrupt(f"{path} is damaged", mend="restore it from a backup: without it no key opens the store")


def _refuse(directory: Path) -> None:
    """Raises what keeps a new data key from being made here: a ledger that is there already."""
    ledger = directory / "ledger.db"
    if _is_clear(directory):
        command = shlex.join(["memspan", "encrypt", "--store", str(directory), "--to", "DIRECTORY"])
        raise NotEncrypted(f"{directory} is not encrypted", mend=f"open it without a key, or encrypt it: {command}")
    if ledger.exists() and ledger.stat().st_size:
        raise StoreCorrupt(f"{directory / FILE} is gone", mend="restore it from a backup: no key opens it without")


def _is_clear(directory: Path) -> bool:
    try:
        with (directory / "ledger.db").open("rb") as file:
            return file.read(len(CLEAR)) == CLEAR
    except FileNotFoundError:
        return False


def _told(about: Mapping[str, Any]) -> bytes:
    """What is authenticated with the wrapped key."""
    return json.dumps(about, sort_keys=True, separators=(",", ":")).encode()


def _wrapping(kdf: Mapping[str, Any], secret: Secret) -> bytes:
    """The key that wraps the data key."""
    if kdf["name"] == "hkdf":
        return _derived(secret.raw, b"memspan key 1")
    n, r, p = kdf["n"], kdf["r"], kdf["p"]
    if not (0 < n <= _MOST_WORK and 0 < r <= 16 and 0 < p <= 16):
        raise ValueError("more work than any memspan asks for")
    salt = bytes.fromhex(kdf["salt"])
    return hashlib.scrypt(secret.raw, salt=salt, n=n, r=r, p=p, maxmem=132 * r * (n + p), dklen=_SIZE)


def _derived(key: bytes, purpose: bytes, salt: bytes | None = None) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=_SIZE, salt=salt, info=purpose).derive(key)


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _counted(number: int, last: bool) -> bytes:
    return number.to_bytes(NONCE - 1, "big") + bytes([last])


def _require() -> None:
    try:
        import cryptography  # noqa: F401
        import sqlcipher3  # noqa: F401
    except ImportError as error:
        problem = "an encrypted store needs sqlcipher3 and cryptography"
        raise MissingExtra(problem, mend='pip install "memspan[encryption]"') from error
