"""Ed25519 signatures of archives: making a key, signing with it, checking. Needs ``memspan[sign]``.

A key is named by its fingerprint: its 32 public bytes as 64 hexadecimal digits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memspan import arguments
from memspan.errors import InvalidInput, MissingExtra
from memspan.ledger.connections import translated
from memspan.segmenting import shown

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM = "ed25519"
MAKE = "make one with memspan cube keygen FILE; keys with a password cannot be used"
LARGEST_KEY = 1 << 16  # bytes of a PEM file
_FINGERPRINT = re.compile("[0-9a-f]{64}")


def keygen(path: str | os.PathLike[str]) -> str:
    """Make a private key, write it to ``path`` (PEM, PKCS 8, for its owner alone) and return its fingerprint.

    Raises InvalidInput where something is there already, MissingExtra, NotWritable.
    """
    _require()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    place = arguments.path(path)
    key = Ed25519PrivateKey.generate()
    written = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with translated(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            mend = "give another name: what was signed with a key can only be checked with that key"
            raise InvalidInput("path", f"there is something at {place} already", mend=mend) from error
        with os.fdopen(file, "wb") as opened:
            opened.write(written)
    return key.public_key().public_bytes_raw().hex()


def fingerprint(key: str | os.PathLike[str]) -> str:
    """The fingerprint of ``key``: one itself, or the path of a PEM file with a public or a private key.

    Raises InvalidInput naming ``signed_by``, MissingExtra where a file is to be read.
    """
    if isinstance(key, str) and _FINGERPRINT.fullmatch(key.strip().lower()):
        return key.strip().lower()
    mend = "give 64 hexadecimal digits, or the PEM file of an Ed25519 key"
    public = _public(_pem("signed_by", key, mend))
    if public is None:
        raise InvalidInput("signed_by", f"{shown(key)} holds no Ed25519 key", mend=mend)
    return public.public_bytes_raw().hex()


def private_key(path: str | os.PathLike[str]) -> bytes:
    """The PEM file at ``path``. Raises InvalidInput naming ``key``."""
    return _pem("key", path, MAKE)


def _pem(argument: str, path: str | os.PathLike[str], mend: str) -> bytes:
    try:
        with arguments.path(path).open("rb") as file:
            return file.read(LARGEST_KEY)
    except OSError as error:
        problem = f"{shown(path)} is no key, and no file that can be read"
        raise InvalidInput(argument, problem, mend=mend) from error


def signed(pem: bytes, message: bytes) -> dict[str, str]:
    """The signature of ``message`` by the private key in ``pem``: ``algorithm``, and in hexadecimal ``public_key`` and
    ``signature``. Raises InvalidInput naming ``key``, MissingExtra."""
    private = _private(pem)
    if private is None:
        raise InvalidInput("key", "is no Ed25519 private key", mend=MAKE)
    public = private.public_key().public_bytes_raw().hex()
    return {"algorithm": ALGORITHM, "public_key": public, "signature": private.sign(message).hex()}


def signer(signature: Mapping[str, Any], message: bytes, name: str) -> str:
    """The fingerprint of the key that made ``signature`` of ``message``. Raises InvalidInput naming the file ``name``
    where it did not, MissingExtra."""
    _require()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    mend = "do not trust it; ask whoever made it for another copy"
    if signature.get("algorithm") != ALGORITHM:
        problem = f"{name} is signed by {shown(signature.get('algorithm'))}, not by {ALGORITHM}"
        raise InvalidInput("path", problem, mend="upgrade memspan (pip install -U memspan)")
    try:
        raw, proof = (bytes.fromhex(signature[part]) for part in ("public_key", "signature"))
        Ed25519PublicKey.from_public_bytes(raw).verify(proof, message)
    except (InvalidSignature, KeyError, TypeError, ValueError) as error:
        problem = f"the signature of {name} is not that of what it says: it was altered, or forged"
        raise InvalidInput("path", problem, mend=mend) from error
    return raw.hex()


def _private(pem: bytes) -> Ed25519PrivateKey | None:
    """The private key in a PEM file, None where there is none that can be used."""
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return private if isinstance(private, Ed25519PrivateKey) else None


def _public(pem: bytes) -> Ed25519PublicKey | None:
    """The public key in a PEM file, or that of the private one there; None where there is neither."""
    if (private := _private(pem)) is not None:
        return private.public_key()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return public if isinstance(public, Ed25519PublicKey) else None


def _require() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingExtra("signatures need cryptography", mend='pip install "memspan[sign]"') from error
