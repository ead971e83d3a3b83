"""Arenas of an encrypted store: each record is sealed by itself, so that one can be read without the others.

What lies in the file in place of a payload is a random nonce, its ciphertext and the tag. The number of the arena is in
the key and the offset is authenticated, so a record that was moved or exchanged is not what was written. A place that
is written over, after a crash or an erasure, has another nonce. Callers go on to name places by the size of what they
gave; how long a record is can be seen in the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memspan.activations.arena import Arenas, Bytes, Places, placed
from memspan.errors import StoreCorrupt
from memspan.keys import NONCE, OVERHEAD, Keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class SealedArenas(Arenas):
    """``Arenas`` whose payloads are sealed by ``keys``."""

    overhead = OVERHEAD

    def __init__(self, directory: Path, keys: Keys, extent: int | None = None) -> None:
        super().__init__(directory, extent)
        self._place, self._keys = directory, keys
        self._ciphers: dict[int, AESGCM] = {}

    def forked(self) -> SealedArenas:
        return SealedArenas(self._place, self._keys, self.extent)

    def _append(
        self, number: int, at: int, payloads: Sequence[tuple[bytes, bytes]]
    ) -> tuple[int, int, list[tuple[bytes, int]]]:
        cipher, end = self._cipher(number), at
        sealed: list[tuple[bytes, bytes]] = []
        for key, payload in payloads:
            offset, end = placed(end, len(payload) + OVERHEAD)
            nonce = os.urandom(NONCE)
            sealed.append((key, nonce + cipher.encrypt(nonce, payload, _told(offset))))
        return super()._append(number, at, sealed)

    def gather(self, places: Places) -> Bytes:
        return np.frombuffer(b"".join(self.read(*place) for place in places.tolist()), np.uint8)

    def whole(self, number: int, offset: int, size: int) -> bool:
        if not super().whole(number, offset, size + OVERHEAD):
            return False
        try:
            self.read(number, offset, size)
        except StoreCorrupt:
            return False
        return True

    def digest(self, number: int, offset: int, size: int) -> bytes:
        return sha256(self.read(number, offset, size)).digest()

    def read(self, number: int, offset: int, size: int) -> bytes:
        """A payload. Raises StoreCorrupt when it is not what was written."""
        from cryptography.exceptions import InvalidTag

        sealed = self._file(number).read(offset, size + OVERHEAD).data
        try:
            return self._cipher(number).decrypt(sealed[:NONCE], sealed[NONCE:], _told(offset))
        except InvalidTag as error:
            problem = f"{self.name(number)} is damaged at byte {offset} ({size} bytes)"
            raise StoreCorrupt(problem, mend="encode that text again") from error

    def erase(self, number: int, offset: int, size: int) -> None:
        super().erase(number, offset, size + OVERHEAD)

    def _cipher(self, number: int) -> AESGCM:
        cipher = self._ciphers.get(number)
        if cipher is None:
            cipher = self._ciphers[number] = self._keys.arena(number)
        return cipher


def _told(offset: int) -> bytes:
    return offset.to_bytes(8, "little")
