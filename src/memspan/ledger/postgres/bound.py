"""The ledger as a role sees it that is bound to one namespace at a time: what is asked of the whole store is answered
for the namespaces that were named to this ledger, one after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from typing import Any

from memspan.activations.tokens import Activation
from memspan.ledger.base import Unencoded
from memspan.ledger.postgres.ledger import PostgresLedger
from memspan.ledger.rows import namespace_number
from memspan.ledger.transactions import Connection


class BoundLedger(PostgresLedger):
    """``PostgresLedger`` for a role that row-level security applies to.

    Within ``reading()`` bound to a namespace, a statement about the whole store is about that namespace: so each method
    asks its own one for every namespace that was named. What changes the store itself is refused by the server.
    """

    def covers(self) -> list[str]:
        """The namespaces that were named so far and are there, in the order of their numbers."""
        with self.newest() as connection:
            numbers = {name: namespace_number(connection, name) for name in list(self._numbers)}
        return sorted((name for name, number in numbers.items() if number), key=numbers.__getitem__)

    def namespaces(self) -> list[str]:
        return self.covers()

    def each(self, *names: str) -> Iterator[str]:
        """Be bound to each of the namespaces that were named, or of ``names``, in turn."""
        for name in names or self.covers():
            with self.reading() as connection:
                namespace_number(connection, name)
                yield name

    # What is said of the whole store

    def counts(self) -> dict[str, Any]:
        whole: dict[str, Any] = {"namespaces": {}}
        for _ in self.each():
            for key, value in super().counts().items():
                if key == "namespaces":
                    whole[key] |= value
                else:
                    whole[key] = value if key == "schema" else whole.get(key, 0) + value
        return whole if len(whole) > 1 else super().counts()  # of none: nothing

    def log_head(self) -> dict[str, Any]:
        heads = [head for _ in self.each() if (head := super(BoundLedger, self).log_head())["hash"]]
        whole = sha256("".join(head["hash"] for head in heads).encode())
        return {"entries": sum(head["entries"] for head in heads), "hash": whole.hexdigest() if heads else None}

    def activation_bytes(self) -> dict[str, Any]:
        whole = super().activation_bytes()  # of none: nothing
        for _ in self.each():
            whole = {key: value + whole[key] for key, value in super().activation_bytes().items()}
        return whole

    def problems(self, *, log_only: bool = False) -> Iterator[tuple[int, int, str | None]]:
        before, whole = 0, 0
        for _ in self.each():
            done = total = 0
            for done, total, problem in super().problems(log_only=log_only):
                yield before + done, whole + total, problem
            before, whole = before + done, whole + total

    def said(self) -> Iterator[str]:
        for _ in self.each():
            yield from super().said()

    def keeps(self, activation: Activation) -> bool:
        return any(super(BoundLedger, self).keeps(activation) for _ in self.each())

    # What waits

    def pending(self, namespace: str | None, limit: int) -> list[Unencoded]:
        if namespace is not None:
            return super().pending(namespace, limit)
        return [row for name in self.each() for row in super(BoundLedger, self).pending(name, limit)][:limit]

    def count_pending(self, namespace: str | None) -> int:
        names = self.covers() if namespace is None else [namespace]
        return sum(super(BoundLedger, self).count_pending(name) for name in names)

    def lost(self, limit: int) -> list[Unencoded]:
        return [row for _ in self.each() for row in super(BoundLedger, self).lost(limit)][:limit]

    def encoded(
        self,
        activations: Mapping[bytes, Activation],
        encoder: str | None = None,
        namespaces: Collection[str] | None = None,
    ) -> int:
        return super().encoded(activations, encoder, self.covers() if namespaces is None else namespaces)

    # The store itself: what is kept under "what:namespace" is that namespace's

    def value(self, key: str) -> str | None:
        with self.reading() as connection:
            self._own(connection, key)
            return super().value(key)

    def put_values(self, values: Mapping[str, str], *, replace: bool) -> None:
        for key, value in values.items():
            known = self.value(key)
            if known is None or (replace and known != value):
                self.change_value(key, lambda _, value=value: value)  # type: ignore[misc]

    def alone(self, connection: Connection, key: str) -> None:
        self._own(connection, key)
        super().alone(connection, key)

    def _own(self, connection: Connection, key: str) -> None:
        if name := key.partition(":")[2]:
            namespace_number(connection, name)

    # Care, which is the owner's

    def scrub(self, *, vacuum: bool) -> list[str]:
        """Nothing: what could not be done, and why."""
        return ["the pages of the tables: only their owner may have them written anew (memspan compact as that role)"]

    def tidy(self) -> None:
        """Nothing: the server keeps its statistics by itself."""


def opened(url: str, actor: str | None, namespace: str | None = None) -> PostgresLedger:
    """The ledger in the database at ``url``, as the role that the address names sees it. ``namespace`` is one that it
    is going to be asked about."""
    ledger = PostgresLedger(url, actor)
    if not ledger.can.bound:
        return ledger
    ledger.close()
    bound = BoundLedger(url, actor)
    if namespace is not None:
        with bound.reading() as connection:
            namespace_number(connection, namespace)
    return bound
