"""The page at ``/``: a look inside a memory. Plain files from the wheel that speak to the REST API and to nothing else.

Their edition, a hash of all of them, is a part of their address, so a browser keeps them for as long as it likes and
one that is open over an update never mixes two of them. The policy lets nothing run but these files; with trusted
types not even they can make HTML of a text (https://www.w3.org/TR/trusted-types/).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from memspan.errors import NotFound

if TYPE_CHECKING:
    from memspan.server.door import Door

MEDIA = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
ENTRY = "index.html"  # the file that names the edition of the others
EDITION = "EDITION"  # where it does
FOREVER, ASK_FIRST = "public, max-age=31536000, immutable", "no-cache"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent: its bytes, what they are, and the tag by which a browser knows that it has them."""

    body: bytes
    media: str
    tag: str


@cache
def assets() -> tuple[str, dict[str, Asset]]:
    """The edition of the page, 16 hexadecimal digits, and its files by name."""
    folder = resources.files("memspan.server") / "page"
    raw = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in MEDIA}
    whole = hashlib.sha256()
    for name in sorted(raw):
        whole.update(f"{name}\0{len(raw[name])}\0".encode() + raw[name])
    edition = whole.hexdigest()[:16]
    raw[ENTRY] = raw[ENTRY].replace(EDITION.encode(), edition.encode())
    return edition, {
        name: Asset(body, MEDIA[name.rpartition(".")[2]], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        for name, body in raw.items()
    }


def router(door: Door) -> APIRouter:
    """The routes of the page. It needs no key: it holds nothing of a memory, and asks the API for all that it shows."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def start(request: Request) -> Response:
        return _sent(request, assets()[1][ENTRY], ASK_FIRST)

    @routes.api_route("/page/{edition}/{name}", methods=["GET", "HEAD"])
    async def part(request: Request, edition: str, name: str) -> Response:
        current, files = assets()
        if edition != current or name == ENTRY or name not in files:
            raise NotFound("there is no such file of the page", mend="load the page again: it may have been updated")
        return _sent(request, files[name], FOREVER)

    return routes


def _sent(request: Request, asset: Asset, caching: str) -> Response:
    headers = {**HEADERS, "Cache-Control": caching, "ETag": asset.tag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if asset.tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media, headers=headers)
