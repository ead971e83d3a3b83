"""The commands about who is believed, and what is kept from being read: quarantine, release, trust."""

from __future__ import annotations

from typing import Annotated

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.records import as_dict

Ids = Annotated[list[str], typer.Argument(metavar="ID", help="Ids, as search and list print them.")]


def quarantine(
    ids: Ids,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.", show_default=False)
    ] = None,
    namespace: o.Namespace = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Keep memories from every search and context without removing them; list --filter state=quarantined shows them."""
    with o.open_memory(store, "none", namespace) as memory:
        _tell("quarantined", memory.quarantine(ids, reason), json)


def release(ids: Ids, namespace: o.Namespace = None, store: o.Store = None, json: o.Json = False) -> None:
    """Have quarantined memories found again."""
    with o.open_memory(store, "none", namespace) as memory:
        _tell("released", memory.release(ids), json)


def trust(namespace: o.Namespace = None, store: o.Store = None, json: o.Json = False) -> None:
    """Show who said what is stored, how far each is to be believed, and what that goes by."""
    with o.open_memory(store, "none", namespace) as memory:
        sources = memory.trust()
    if json:
        output.emit({"sources": [as_dict(each) for each in sources]})
    else:
        output.show_trust(sources)


def _tell(what: str, count: int, json: bool) -> None:
    if json:
        output.emit({what: count})
    else:
        print(f"{output.plural(count, 'segment')} {what}")
