"""How each public verb of ``Memory`` goes over HTTP, as data: server and client are both made from it.

The path is below ``/v1/namespaces/{namespace}``, or, for what concerns the whole store, below ``/v1``. What stands in
braces is an argument of the verb; the other arguments are the JSON body of a POST or PATCH, or the query of a GET or
DELETE, where a filter is JSON. ``answer`` is the member of the JSON object that holds what the verb returns; None: what
it returns is that object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from memspan.access import Right

Method = Literal["GET", "POST", "PATCH", "DELETE"]
VERSION: Final = "/v1"
SPACE: Final = f"{VERSION}/namespaces"
OWN: Final = "-"
"""In the place of a namespace in a path: the one that the header or the key names."""
HEADER: Final = "X-Memory-Namespace"
"""The header that names a namespace, percent-encoded as UTF-8."""

EXPORTED: Final = "X-Memory-Exported"
"""The header of an export that tells what is in it, as JSON."""

LONG: Final = frozenset(
    {"conflicts", "erase", "extract", "prune", "resolve", "restore", "sleep", "summary", "themes", "tune", "undo"}
)
"""Verbs of a namespace that may take as long as it is large; all that concern the whole store may."""
SWEEPING: Final = frozenset({"delete_all", "erase"})
"""Verbs that could take a whole namespace: over HTTP, where it always has a name, ``all`` must say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One verb over HTTP. ``whole``: it concerns the whole store, and wants a key for every namespace.

    ``retry``: asked twice it does no more than once, so a client may ask again where a connection was lost.
    """

    verb: str
    method: Method
    path: str
    right: Right
    answer: str | None = None
    status: int = 200
    whole: bool = False
    retry: bool = False

    @property
    def body(self) -> bool:
        """Whether arguments travel in a JSON body."""
        return self.method in ("POST", "PATCH")


def _read(verb: str, method: Method, path: str, answer: str | None = None) -> Route:
    return Route(verb=verb, method=method, path=path, right="read", answer=answer, retry=True)


def _write(verb: str, method: Method, path: str, answer: str | None = None, *, retry: bool = False) -> Route:
    return Route(verb=verb, method=method, path=path, right="write", answer=answer, retry=retry)


def _care(verb: str, method: Method, path: str, answer: str | None = None, *, retry: bool = True) -> Route:
    return Route(verb=verb, method=method, path=path, right="admin", answer=answer, whole=True, retry=retry)


ROUTES: Final[tuple[Route, ...]] = (
    Route(verb="add", method="POST", path="/segments", right="write", status=201),
    Route(verb="add_document", method="POST", path="/documents", right="write", status=201, retry=True),
    _read("get_all", "GET", "/segments", "segments"),
    _read("get", "GET", "/segments/{id}"),
    _write("update", "PATCH", "/segments/{id}"),
    _write("delete", "POST", "/segments/delete", "deleted"),
    _write("delete_all", "DELETE", "/segments", "deleted"),
    _read("history", "GET", "/segments/{id}/history", "events"),
    _read("neighbors", "GET", "/segments/{id}/neighbors", "neighbors"),
    _read("repetitions", "GET", "/segments/{id}/repetitions", "segments"),
    _read("document", "GET", "/documents/{id}"),
    _read("search", "POST", "/search", "hits"),
    _read("context", "POST", "/context"),
    _read("active_context", "POST", "/active-context"),
    _read("summary", "POST", "/summary"),
    _read("timeline", "GET", "/timeline"),
    _read("tree", "GET", "/tree"),
    _read("themes", "GET", "/themes", "themes"),
    _write("move_category", "POST", "/categories/move", "moved"),
    _write("link", "POST", "/links", retry=True),
    _write("unlink", "DELETE", "/links", "unlinked"),
    _write("feedback", "POST", "/feedback", "feedback", retry=True),
    _write("supersede", "POST", "/supersede"),
    _read("operations", "GET", "/operations", "operations"),
    _write("undo", "POST", "/operations/{operation}/undo"),
    _write("restore", "POST", "/restore"),
    _read("conflicts", "GET", "/conflicts", "conflicts"),
    _write("accept", "POST", "/conflicts/accept"),
    _write("reject", "POST", "/conflicts/reject"),
    _write("resolve", "POST", "/conflicts/resolve"),
    _read("trust", "GET", "/trust", "trust"),
    _write("quarantine", "POST", "/quarantine", "quarantined"),
    _write("release", "POST", "/release", "released"),
    _write("extract", "POST", "/extract"),
    _write("sleep", "POST", "/sleep"),
    _write("tune", "POST", "/tune"),
    _write("untune", "POST", "/untune", "untuned"),
    Route(verb="prune", method="POST", path="/prune", right="admin"),
    Route(verb="erase", method="POST", path="/erase", right="admin", retry=True),
    _care("stats", "GET", "/stats"),
    _care("compact", "POST", "/compact"),
    _care("verify", "POST", "/verify"),
    _care("verify_erasure", "POST", "/verify-erasure"),
    _care("rebuild", "POST", "/rebuild"),
    _care("reencode", "POST", "/reencode"),
    _care("fit_tokens", "POST", "/fit-tokens"),
    _care("create_api_key", "POST", "/keys", retry=False),
    _care("api_keys", "GET", "/keys", "keys"),
    _care("revoke_api_key", "DELETE", "/keys/{id}"),
)
"""Every verb but those that move files: ``export_to``, ``import_from``, ``add_file`` and ``embeddings`` have ways of
their own, and ``backup`` is made where the store is."""
