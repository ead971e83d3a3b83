"""How a picture becomes a file: its name is checked, a page or a static picture made, and all of it written or nothing.

Stored text was written by others. It goes into a page as data: JSON without a character that HTML knows, shown as
text. A page needs no network and may not use one: its policy names the hash of its own style and script.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memspan import arguments
from memspan.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGES, PICTURES = (".html", ".htm"), (".svg", ".png")
PAPER, INK, SOFT, PALE, RULE = "#fbfaf8", "#2b2e36", "#6d727f", "#aeb3bf", "#e4e2dd"  # as in page.css and map.html
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "PingFang SC", "Microsoft YaHei", "Malgun Gothic")  # those there are
DPI = 150


def target(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a file that can be drawn. Raises InvalidInput for another suffix or a missing directory."""
    file = arguments.path(path)
    suffix = file.suffix.lower()
    if suffix not in PAGES + PICTURES:
        mend = f"end its name in {', '.join((PAGES[0], *PICTURES))}"
        raise InvalidInput("path", f"cannot draw a {suffix or 'file without a suffix'}", mend=mend)
    if not file.parent.is_dir():
        raise InvalidInput("path", f"there is no directory {file.parent}", mend="make it first, or name another")
    return file


def is_page(file: Path) -> bool:
    return file.suffix.lower() in PAGES


def put(file: Path, raw: bytes) -> None:
    """Write the whole file or none of it."""
    aside = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(raw)
        os.replace(aside, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise InvalidInput(
            "path", f"{file} cannot be written ({error.strerror})", mend="name a file you can write"
        ) from error


def line(text: str, limit: int) -> str:
    """Text on one line of at most ``limit`` characters, without those that control or reorder what is around them."""
    head = _joined(text[: 4 * limit])  # of a book no more needs to be read
    joined = head if len(head) > limit or len(text) <= 4 * limit else _joined(text)
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def _joined(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        text = "".join(" " if sign.isspace() else sign for sign in text if sign.isspace() or _shown(sign))
    return " ".join(text.split())


@cache
def _shown(sign: str) -> bool:
    return not unicodedata.category(sign).startswith("C")


def titled(drawn: int, total: int, namespace: str) -> str:
    """What a picture is called: how many segments of how many are in it, and whose they are."""
    some = "" if drawn == total else f"{drawn:,} of "
    return f"{some}{total:,} {'segment' if total == 1 else 'segments'} in {line(namespace, 60)}"


# The page


def page(name: str, data: dict[str, Any]) -> bytes:
    """The page ``name`` of this package with ``data`` in it, as one HTML file.

    ``{page.css}`` and ``{page.js}`` in it stand for what several pages share.
    """
    text = _resource(name)
    for shared in ("page.css", "page.js"):
        if (mark := f"{{{shared}}}") in text:
            text = text.replace(mark, _resource(shared))
    for tag in ("style", "script"):
        inside = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        text = text.replace(f"'{tag}-hash'", f"'sha256-{digest}'")
    raw = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("{data}", re.sub("[<>&]", lambda sign: f"\\u{ord(sign[0]):04x}", raw)).encode()


def _resource(name: str) -> str:
    return resources.files("memspan.pictures").joinpath(name).read_text(encoding="utf-8")


def packed(values: NDArray[Any]) -> str:
    """An array as the page's ``unpack`` takes it: its little-endian bytes, deflated, in base64."""
    raw = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def packed_lines(lines: Iterable[str]) -> str:
    """Texts without line ends, as the page's ``unpackLines`` takes them."""
    return base64.b64encode(zlib.compress("\n".join(lines).encode(), 9)).decode()


# The static picture


def still(kind: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> bytes:
    """What ``paint`` draws on a figure of ``size`` inches, as "svg" or "png". Raises MissingExtra."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.font_manager import get_font_names
    except ImportError as error:
        raise MissingExtra(f"drawing a {kind} needs matplotlib", mend='pip install "memspan[pictures]"') from error
    there = set(get_font_names())
    settings: Any = {
        "font.family": [name for name in FONTS if name in there],
        "svg.fonttype": "none",
        "svg.hashsalt": "memspan",  # or its ids would differ each time
        "text.parse_math": False,  # what was stored is text, dollar signs too
        "text.color": INK,
        "axes.edgecolor": PALE,
        "axes.facecolor": PAPER,
        "axes.labelcolor": SOFT,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "font.size": 8.0,
    }
    raw = io.BytesIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # no font here has it: drawn as a box
        figure = Figure(figsize=size, facecolor=PAPER)
        paint(figure)
        figure.savefig(raw, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return raw.getvalue()
