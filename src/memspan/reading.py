"""Files → text: plain text and code as they are, web pages and notebooks as Markdown, the rest through markitdown."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from memspan.borders import outline
from memspan.errors import InvalidInput, MissingExtra
from memspan.records import SourceText

MAX_CHARACTERS: Final = 32 * 1024 * 1024
"""The longest text taken at once, in characters."""

_CODE: Final = """
py pyi pyx js mjs cjs jsx ts tsx c h cc cpp cxx hpp hh cu m mm cs java kt kts scala groovy go rs swift rb pl
pm php r jl lua sh bash zsh fish ps1 bat sql hs ml mli ex exs erl clj cljs lisp el scm f90 f95 pas d dart zig
nim v vhd sv tf proto graphql css scss less vue svelte json jsonl ndjson toml yaml yml ini cfg conf env xml
xsl svg cmake gradle mk
"""
CONVERTIBLE: Final = frozenset(f".{suffix}" for suffix in ["pdf", "docx", "pptx", "xlsx", "xls", "epub", "msg"])
"""Suffixes of documents that are read through markitdown, an extra, and come out as Markdown."""

SUFFIXES: Final[Mapping[str, str]] = {
    **dict.fromkeys(CONVERTIBLE, "markdown"),
    **{f".{suffix}": "code" for suffix in _CODE.split()},
    **dict.fromkeys((".txt", ".text", ".log", ".csv", ".tsv", ".rst", ".org", ".tex", ".srt", ".vtt"), "text"),
    **dict.fromkeys((".md", ".markdown", ".mdx", ".mdown", ".qmd", ".rmd", ".ipynb"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
}
"""Suffix in lower case → the media of the text that ``read_file`` makes of such a file. Any other is tried as text."""

_MARKS: Final = (  # byte order marks, the longer first
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")


def readable(path: str | os.PathLike[str]) -> bool:
    """Whether ``read_file`` can be expected to make a text of this file, judged by its suffix and first 8 KiB."""
    file = Path(path)
    try:
        if not file.is_file():
            return False
        if file.suffix.lower() in CONVERTIBLE:
            return True
        with file.open("rb") as stream:
            start = stream.read(8192)
    except OSError:
        return False
    if not start.strip():
        return False
    return any(start.startswith(mark) for mark, _ in _MARKS) or _decoded(start) is not None


def read_file(path: str | os.PathLike[str]) -> SourceText:
    """The text of a file, its media and its title (of the page, of the first heading, else the file's name).

    Text is UTF-8, UTF-16 or UTF-32 with a byte order mark, else Windows-1252 or Latin-1. HTML becomes plain text with
    Markdown headings; notebooks, PDF and office documents become Markdown. Raises InvalidInput naming ``path``, and
    MissingExtra where markitdown is needed and not installed.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    data = _bytes_of(file)
    if suffix in CONVERTIBLE:
        text, title = _converted(file)
        media = "markdown"
    else:
        decoded = _decoded(data, html=SUFFIXES.get(suffix) == "html")
        if decoded is None:
            raise InvalidInput("path", f"{str(file)!r} is not text", mend="convert it to text first")
        text, title, media = decoded, "", SUFFIXES.get(suffix, "text")
        if media == "html":
            page = _Page(text)
            text, title = page.text, page.title
        elif suffix == ".ipynb":
            text = _notebook(text)
    if not text.strip():
        raise InvalidInput("path", f"{str(file)!r} holds no text", mend="leave it out")
    if len(text) > MAX_CHARACTERS:
        raise too_long("path", len(text), f"{str(file)!r}")
    if not title and media in ("markdown", "html"):
        title = next((section.heading[0] for section in outline(text, media)[0] if section.heading), "")
    return SourceText(text=text, media=media, title=title or file.name)


def _bytes_of(file: Path) -> bytes:
    try:
        if file.is_dir():
            raise InvalidInput("path", f"{str(file)!r} is a directory", mend="give a file, or each file in it")
        if not file.exists():
            raise InvalidInput("path", f"there is no file {str(file)!r}", mend="check its name, and where you are")
        if not file.is_file():
            raise InvalidInput("path", f"{str(file)!r} is no regular file", mend="give a file on disk")
        if not (size := file.stat().st_size):
            raise InvalidInput("path", f"{str(file)!r} is empty", mend="leave it out")
        if file.suffix.lower() not in CONVERTIBLE and size > 4 * MAX_CHARACTERS + 4:
            raise too_long("path", size // 4, f"{str(file)!r}")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput("path", f"{str(file)!r} cannot be read ({reason})", mend="check its permissions") from error


def _decoded(data: bytes, *, html: bool = False) -> str | None:
    """The text in ``data``, or None where it is none: it has NUL bytes, or more than a few control characters."""
    mark, encoding = next((pair for pair in _MARKS if data.startswith(pair[0])), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        if mark and encoding != "utf-8":
            return None
        declared = _CHARSET.search(data, 0, 4096) if html else None
        text = _legacy(data, declared[1].decode("ascii") if declared else "cp1252")
    if "\0" in text or len(_CONTROL.findall(text, 0, 1 << 16)) > min(len(text), 1 << 16) // 50:
        return None
    return text


def _legacy(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except (LookupError, UnicodeDecodeError):
        return data.decode("latin-1")


def _converted(file: Path) -> tuple[str, str]:
    try:
        from markitdown import MarkItDown
        from markitdown import MissingDependencyException as Missing
    except ImportError as error:
        raise _documents_extra(file) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = MarkItDown(enable_plugins=False).convert_local(str(file))
    except Missing as error:
        raise _documents_extra(file) from error
    except Exception as error:
        raise InvalidInput(
            "path", f"{str(file)!r} cannot be converted ({error})", mend="open and save it anew, or convert it to text"
        ) from error
    return result.markdown.replace("\0", ""), (result.title or "").strip()


def _documents_extra(file: Path) -> MissingExtra:
    return MissingExtra(f"reading {file.suffix} files needs markitdown", mend='pip install "memspan[documents]"')


def _notebook(text: str) -> str:
    """The cells of a Jupyter notebook as Markdown, without their outputs; anything else as it is."""
    try:
        notebook = json.loads(text)
        language = notebook.get("metadata", {}).get("language_info", {}).get("name", "python")
        cells = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in notebook["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return text
    return "\n\n".join(f"```{language}\n{body}\n```" if kind == "code" else body for kind, body in cells if body)


_BLOCK_TAGS: Final = """
address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure footer
form h1 h2 h3 h4 h5 h6 header hr html li main nav ol option p pre section summary table tbody tfoot thead title tr
ul
"""


class _Page(HTMLParser):
    """A page's words: headings as ``#``, items as ``-``, cells between ``|``, preformatted text between fences."""

    _BLOCKS: Final = frozenset(_BLOCK_TAGS.split())
    _SILENT: Final = frozenset(
        ["script", "style", "template", "noscript", "svg", "iframe", "object", "canvas", "audio", "video", "select"]
    )
    _BREAKING: Final = frozenset(["h1", "h2", "h3", "h4", "h5", "h6", "pre", "table", "tbody", "thead", "tfoot", "tr"])
    _CELLS: Final = 400  # characters; a longer row is a page laid out with a table
    _MARKUP: Final = re.compile(r"(?=#{1,6}(?:\s|\Z)|```|~~~|(?:=+|-{3,})\s*\Z)")

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self._said: list[str] = []
        self._line: list[str] = []
        self._lead = ""
        self._silent = 0
        self._within = ""  # "title" or "pre"
        self.feed(page)
        self.close()
        self._end_block()
        self.text = "".join(self._said).strip("\n")

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """``<![...`` of any kind is passed over; the parser would raise AssertionError for those it does not know."""
        end = self.rawdata.find(">", i)
        return end + 1 if end >= 0 else -1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._SILENT:
            self._silent += 1
        elif tag == "br":
            self._line.append(" " if self._lead == "|" else "\n")
        elif tag == "img" and (words := (dict(attrs).get("alt") or "").strip()) and not self._silent:
            self._line.append(f" [picture: {words}] ")
        elif tag in ("td", "th"):
            self._line.append(" | ")
        elif self._ends_block(tag):
            self._end_block()
            if tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
                self._lead = "#" * int(tag[1]) + " "
            elif tag in ("li", "tr"):
                self._lead = "- " if tag == "li" else "|"
            elif tag in ("title", "pre"):
                self._within = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in self._SILENT:
            self._silent = max(0, self._silent - 1)
        elif self._ends_block(tag):
            self._end_block()
            self._lead = ""
            if tag == self._within:
                self._within = ""

    def _ends_block(self, tag: str) -> bool:
        if tag not in self._BLOCKS or (self._within and tag != self._within):
            return False
        if self._lead == "|" and tag not in self._BREAKING and sum(map(len, self._line)) < self._CELLS:
            self._line.append(" ")  # a paragraph in a cell
            return False
        return True

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._line.append(data if self._within == "pre" else re.sub(r"\s+", " ", data))

    def _end_block(self) -> None:
        said, self._line = "".join(self._line), []
        if self._within == "pre":
            if said.strip():
                fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", said)), default=0))
                said = said.strip("\n")
                self._said.append(f"\n\n{fence}\n{said}\n{fence}")
            return
        lines = [" ".join(line.split()) for line in said.split("\n")]
        if not any(lines):
            return
        if self._within == "title":
            self.title = self.title or " ".join(lines).strip()
        elif self._lead.startswith("#"):
            self._said.append(f"\n\n{self._lead}{' '.join(lines).strip()}")
        else:
            body = "\n".join(
                self._MARKUP.sub("\\\\", line, count=1) if self._MARKUP.match(line) else line for line in lines
            )
            body = body.strip(" \n|" if self._lead == "|" else "\n")
            if not body:
                return
            tight = self._lead and self._said and self._said[-1].lstrip("\n").startswith(self._lead)
            self._said.append(("\n" if tight else "\n\n") + (f"| {body} |" if self._lead == "|" else self._lead + body))
        self._lead = ""


def too_long(argument: str, characters: int, what: str) -> InvalidInput:
    return InvalidInput(
        argument,
        f"{what} has {characters:,} characters, and {MAX_CHARACTERS:,} are taken at once",
        mend="split it and add the parts",
    )
