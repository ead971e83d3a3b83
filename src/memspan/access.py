"""``Access``: the part of ``Memory`` by which API keys are made and known again: who may do what through a server.

A key is ``ms_ID_SECRET``: SECRET is 32 random bytes. Of it the store keeps only the SHA-256, which is enough, as a
random secret of that size cannot be guessed from its hash (NIST SP 800-63B, 3.1.2 for look-up secrets); what is kept
is compared in constant time.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, Literal, get_args

from memspan import arguments
from memspan.errors import InvalidInput, NotFound
from memspan.ledger.log import ACTING
from memspan.records import as_dict
from memspan.segmenting import parse_time, shown
from memspan.store import Store

Right = Literal["read", "write", "admin"]
"""What a key is for: to read, to write, and to remove for good, to care for the store and to make keys."""
RIGHTS: Final[tuple[Right, ...]] = get_args(Right)
EVERY: Final = "*"
"""In the place of a namespace: all of them."""
_KEPT: Final = "api_keys"
KEY: Final = re.compile(r"ms_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
"""How a key is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key of a store: for which ``namespaces`` (``"*"`` is all) and with which ``rights``.

    ``secret`` is what a client sends. It is told once, when the key is made, and None ever after.
    """

    id: str
    name: str
    namespaces: tuple[str, ...]
    rights: tuple[Right, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    secret: str | None = field(default=None, repr=False)

    @property
    def valid(self) -> bool:
        """Whether it opens something now: it was not revoked and has not expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > datetime.now(UTC))

    def reaches(self, namespace: str) -> bool:
        """Whether it is for that namespace."""
        return EVERY in self.namespaces or namespace in self.namespaces


class Access(Store):
    """An open store that has API keys."""

    def create_api_key(
        self,
        name: str,
        *,
        namespaces: str | Sequence[str],
        rights: str | Sequence[str] = ("read", "write"),
        expires_at: datetime | str | float | None = None,
    ) -> ApiKey:
        """Make an API key called ``name`` for ``namespaces``, ``"*"`` for all; its ``secret`` is not told again.

        As soon as a store has a key, a server on it answers nobody without one. Raises InvalidInput.
        """
        self._scope(None, None, None, None, None)
        called = arguments.name("name", name)
        if called is None:
            raise InvalidInput("name", "is None", mend="say whose key it is, such as 'laptop'")
        spaces = tuple(dict.fromkeys([namespaces] if isinstance(namespaces, str) else namespaces))
        if not spaces:
            raise InvalidInput("namespaces", "names none", mend="name one or more, or '*' for all")
        for space in spaces:
            arguments.scope(space, None, None, None, None)
        given = [rights] if isinstance(rights, str) else list(rights)
        unknown = [right for right in given if right not in RIGHTS]
        if unknown or not given:
            problem = f"there is no {shown(unknown[0])}" if unknown else "names none"
            raise InvalidInput("rights", problem, mend=f"use some of {', '.join(RIGHTS)}")
        now, end = datetime.now(UTC), parse_time(expires_at, "expires_at")
        if end is not None and end <= now:
            raise InvalidInput("expires_at", "is in the past", mend="name a later time, or leave it out")
        id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        made = ApiKey(
            id=id,
            name=called,
            namespaces=spaces,
            rights=tuple(right for right in RIGHTS if right in given),
            created_at=now,
            expires_at=end,
        )
        entry = {**as_dict(made), "sha256": sha256(secret.encode()).hexdigest()}
        self._ledger.change_value(_KEPT, lambda raw: json.dumps([*json.loads(raw or "[]"), entry]))
        return replace(made, secret=f"ms_{id}_{secret}")

    def api_keys(self) -> list[ApiKey]:
        """All API keys of the store, also those that expired or were revoked, in the order they were made."""
        self._scope(None, None, None, None, None)
        return [_key(entry) for entry in self._kept()]

    def revoke_api_key(self, id: str) -> ApiKey:
        """Have an API key open nothing any more, from the next request on. Raises NotFound."""
        self._scope(None, None, None, None, None)
        now = datetime.now(UTC).isoformat()
        revoked: list[ApiKey] = []

        def change(raw: str | None) -> str:
            entries = json.loads(raw or "[]")
            for entry in entries:
                if entry["id"] == id:
                    entry["revoked_at"] = entry["revoked_at"] or now
                    revoked.append(_key(entry))
            if not revoked:
                raise NotFound(f"there is no API key {shown(id)}", mend="`memspan keys list` shows their ids")
            return json.dumps(entries)

        self._ledger.change_value(_KEPT, change)
        return revoked[0]

    def api_key(self, secret: str) -> ApiKey | None:
        """The valid key of which this is the secret, None where there is none."""
        self._scope(None, None, None, None, None)
        parts = KEY.fullmatch(secret)
        if parts is None:
            return None
        digest = sha256(parts[2].encode()).hexdigest()
        found = None
        for entry in self._kept():  # all of them, so that the time taken tells nothing of which there are
            if hmac.compare_digest(entry["sha256"], digest) and hmac.compare_digest(entry["id"], parts[1]):
                found = _key(entry)
        return found if found is not None and found.valid else None

    @contextmanager
    def acting_as(self, actor: str | None) -> Iterator[None]:
        """Have ``operations`` say that it was ``actor`` who did what is done within, in this thread or task."""
        token = ACTING.set(arguments.name("actor", actor))
        try:
            yield
        finally:
            ACTING.reset(token)

    def _kept(self) -> Sequence[Mapping[str, Any]]:
        return _read(self._ledger.value(_KEPT) or "[]")


@lru_cache(maxsize=8)
def _read(raw: str) -> Sequence[Mapping[str, Any]]:
    """The keys as they are kept: read from the store for each request, but the same text parsed once only."""
    return tuple(json.loads(raw))


def _key(entry: Mapping[str, Any]) -> ApiKey:
    times = {name: parse_time(entry[name], name) for name in ("created_at", "expires_at", "revoked_at")}
    assert times["created_at"] is not None  # noqa: S101 - every key was made at some time
    return ApiKey(
        id=entry["id"],
        name=entry["name"],
        namespaces=tuple(entry["namespaces"]),
        rights=tuple(entry["rights"]),
        created_at=times["created_at"],
        expires_at=times["expires_at"],
        revoked_at=times["revoked_at"],
    )
