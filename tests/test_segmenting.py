"""Cutting texts, reading files, taking messages: what goes in comes out, in pieces that fit."""

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from memspan.errors import InvalidInput, MissingExtra
from memspan.records import Message, Piece
from memspan.segmenting import (
    MAX_CHARACTERS,
    MEDIA,
    SUFFIXES,
    CallableTokenizer,
    FileTokenizer,
    Tokenizer,
    WordTokenizer,
    check_text,
    cut,
    messages,
    parse_time,
    read_file,
    readable,
    tokenizer_of,
)

WORDS = WordTokenizer()


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer of the same make as the default model's: lower case, word pieces, unknown long words."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?-()'\""
    pieces = ["[UNK]", *letters, *(f"##{c}" for c in letters), "the", "and", "##ing", "##ed", "memory", "in", "of"]
    engine = Engine(WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]", max_input_chars_per_word=100))
    engine.normalizer = BertNormalizer()
    engine.pre_tokenizer = BertPreTokenizer()
    engine.enable_truncation(16)
    engine.enable_padding(length=16)
    folder = tmp_path_factory.mktemp("small-model")
    engine.save(str(folder / "tokenizer.json"))
    return folder


def cut_and_check(text: str, tokenizer: Tokenizer = WORDS, window: int = 32, media: str = "text") -> list[Piece]:
    """Pieces of ``text``, after checking everything that holds for any pieces."""
    pieces = cut(text, tokenizer=tokenizer, window=window, media=media)
    assert "".join(p.gap + p.text + p.tail for p in pieces) == (text if pieces else "")
    assert bool(pieces) == bool(text.strip())
    assert all(p.text and p.text == p.text.strip() and not (p.gap + p.tail).strip() for p in pieces)
    assert all(not p.tail for p in pieces[:-1])
    assert [p.tokens for p in pieces] == tokenizer.count([p.text for p in pieces])
    assert all(p.tokens <= window for p in pieces)
    return pieces


def texts_of(pieces: Sequence[Piece]) -> list[str]:
    return [p.text for p in pieces]


# ---------------------------------------------------------------------------------------------------------- any text

BITS = ["word", "Word", "Dr.", "U.S.", "3.14", "e.g.", "end.", "Why?", "\u2026", " ", "  ", "\n", "\n\n", "\r\n", "\r"]
MARKUP = ["# ", "## A title\n", "\n===\n", "\n---\n", "```\n", "~~~\n", "- ", "1. ", "<p>", "| a | b |\n", "'", '"']
CODE = ["def f():\n    return 1\n", "class A:\n", "    ", "@x\n", "# note\n", "{", "}", "x" * 40]
ODD = [
    "\t",
    "\f",
    "\u2029",
    "\u00a0",
    "\x1c",
    "\x85",
    "\u3002",
    "\u65e5\u672c",
    "\u0964",
    "e\u0301",
    "\U0001f468\u200d\U0001f469",
]
LIKELY = st.lists(st.sampled_from([*BITS, *MARKUP, *CODE, *ODD]), max_size=60).map("".join)


@given(st.one_of(LIKELY, st.text(max_size=300)), st.integers(1, 40), st.sampled_from(MEDIA))
def test_pieces_join_to_the_text_and_fit_the_window(text: str, window: int, media: str) -> None:
    cut_and_check(text, window=window, media=media)


@given(LIKELY, st.integers(4, 40), st.sampled_from(MEDIA))
def test_any_way_of_counting_is_kept_to(text: str, window: int, media: str) -> None:
    cut_and_check(text, CallableTokenizer(len), window, media)
    cut_and_check(text, CallableTokenizer(lambda t: len(t.encode())), window, media)
    cut_and_check(text, CallableTokenizer(lambda t: math.isqrt(len(t))), window, media)


@given(LIKELY, st.sampled_from(MEDIA))
def test_the_same_text_gives_the_same_pieces(text: str, media: str) -> None:
    assert cut_and_check(text, media=media) == cut_and_check(text, media=media)


@given(LIKELY)
def test_pieces_fit_a_tokenizer_from_a_file(wordpiece: Path, text: str) -> None:
    cut_and_check(text, FileTokenizer(wordpiece), 12, "markdown")


@pytest.mark.parametrize(
    ("before", "repeated", "after"),
    [
        ("", "aaaaaa", ""),
        ("", "......", ""),
        ("", "\n\n", "x"),
        ("", "      ", "x"),
        ("x", "      ", "y"),
        ("", "word ", ""),
        ("", '""', ""),
        ("", "a.\n", ""),
        ("", "##", ""),
        ("", "```", ""),
        ("", "((", ""),
        ("", "\u65e5\u65e5", ""),
        ("", "\u0301", ""),
        ("", "# a\n", ""),
        ("", "=\n", ""),
    ],
    ids=repr,
)
@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize("times", [10_000, pytest.param(50_000, marks=pytest.mark.soak)])
def test_hostile_texts_are_cut_too(before: str, repeated: str, after: str, media: str, times: int) -> None:
    cut_and_check(before + repeated * times + after, window=256, media=media)


def test_a_long_word_is_cut_although_the_tokenizer_counts_it_as_one(wordpiece: Path) -> None:
    pieces = cut_and_check("a" * 100_000, FileTokenizer(wordpiece), 256)
    assert max(len(p.text) for p in pieces) <= 256 * 16


def test_nothing_but_white_space_gives_no_pieces() -> None:
    assert cut("", tokenizer=WORDS, window=8) == cut(" \n\t\u3000", tokenizer=WORDS, window=8) == []


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(InvalidInput, match="window"):
        cut("a", tokenizer=WORDS, window=0)
    with pytest.raises(InvalidInput, match="media"):
        cut("a", tokenizer=WORDS, window=8, media="video")
    with pytest.raises(InvalidInput, match=r"tokenizer.*larger window"):
        cut("\u65e5", tokenizer=CallableTokenizer(lambda t: len(t.encode())), window=2)


# ----------------------------------------------------------------------------------------------------------- borders


@pytest.mark.parametrize("media", MEDIA)
def test_a_short_text_stays_one_piece(media: str) -> None:
    text = "I moved to Lisbon. In May!\n\nIt is lovely here."
    assert texts_of(cut_and_check(text, window=64, media=media)) == [text]


def test_paragraphs_are_kept_whole_and_short_ones_packed_together() -> None:
    short = [f"Short paragraph number {i}." for i in range(6)]
    long = "This one is longer. " * 5
    pieces = texts_of(cut_and_check("\n\n".join([*short, long.strip(), *short]), window=32))
    assert long.strip() in pieces
    assert all(any(p in piece for piece in pieces) for p in short)
    assert len(pieces) < 8


def test_a_long_paragraph_is_cut_between_sentences_about_evenly() -> None:
    text = " ".join(f"Sentence number {i} has exactly seven words." for i in range(20))
    pieces = cut_and_check(text, window=40)
    assert all(p.text.startswith("Sentence") and p.text.endswith("words.") for p in pieces)
    assert max(p.tokens for p in pieces) < 2 * min(p.tokens for p in pieces)


@pytest.mark.parametrize(
    "sentence",
    [
        "Dr. Smith met Mr. Jones and Mrs. Hall.",
        "The value is 3.14, i.e. roughly pi.",
        "Use version 2.0.1, e.g. from https://example.com/a.b.",
        "He lives in the U.S. Army base.",
        "J. R. R. Tolkien wrote it.",
        "See fig. 3 and no. 7 on pp. 12.",
        "Well... maybe it works.",
        '"Really?" he said.',
        "\u4ed6\u8aaa\uff1a\u300c\u4f60\u597d\u3002\u300d",
        "\u092f\u0939 \u0939\u093f\u0928\u094d\u0926\u0940 \u0939\u0948\u0964",
    ],
)
def test_a_sentence_is_not_torn(sentence: str) -> None:
    pieces = texts_of(cut_and_check(" ".join([sentence] * 8), window=WORDS.count([sentence])[0]))
    assert pieces == [sentence] * 8


def test_a_long_list_is_cut_between_its_items() -> None:
    text = "\n".join(f"- Item {i}. It has two sentences" for i in range(20))
    assert all(p.text.startswith("- Item") for p in cut_and_check(text, window=24))


def test_without_sentences_lines_then_clauses_then_words_are_the_borders() -> None:
    lines = "\n".join("one two three four five six" for _ in range(20))
    assert all(p.text.startswith("one") for p in cut_and_check(lines, window=16))
    clauses = ", ".join("one two three four five six" for _ in range(20))
    assert all(p.text.endswith((",", "six")) for p in cut_and_check(clauses, window=16))
    assert all(p.text.split()[0] == "word" for p in cut_and_check("word " * 100, window=16))


def test_marks_stay_with_their_letter() -> None:
    pieces = cut_and_check("\U0001f468\u200d\U0001f469\u200d\U0001f467" * 40, window=16)
    assert all(p.text[0] == "\U0001f468" for p in pieces)


# ----------------------------------------------------------------------------------------------------------- headings

MARKDOWN = """---
title: front matter
---
Before any heading.

# The *Guide* #

## Install

Run `make`.

```sh
# not a heading
make
```

Usage
-----
See [the docs](https://example.com).

### `dsm/memory.py`
Deep.

## Last
"""


def test_markdown_headings_start_pieces_and_give_their_path() -> None:
    pieces = cut_and_check(MARKDOWN, window=64, media="markdown")
    assert [p.heading for p in pieces] == [
        (),
        ("The Guide", "Install"),
        ("The Guide", "Usage"),
        ("The Guide", "Usage", "dsm/memory.py"),
        ("The Guide", "Last"),
    ]
    assert pieces[1].text.startswith("# The *Guide* #\n\n## Install")
    assert "# not a heading\nmake\n```" in pieces[1].text


def test_a_fence_is_kept_whole_where_it_fits() -> None:
    fence = "```\n" + "\n\n".join(f"step {i}" for i in range(8)) + "\n```"
    text = f"{'Words before it. ' * 6}\n\n{fence}\n\n{'Words after it. ' * 6}"
    assert any(fence in p.text for p in cut_and_check(text, window=30, media="markdown"))


def test_underlined_titles_are_headings_in_plain_text() -> None:
    text = "=====\nTitle\n=====\n\nIntro.\n\nPart one\n--------\n\nBody.\n\nNot a title\n--\n\na | b\n- - -\n"
    pieces = cut_and_check(text, window=64)
    assert [p.heading for p in pieces] == [("Title",), ("Title", "Part one")]


def test_a_heading_stays_with_a_long_paragraph_under_it() -> None:
    text = "# Title\n\n" + "A sentence of some words. " * 30
    assert cut_and_check(text, window=32, media="markdown")[0].text.startswith("# Title\n\nA sentence")


# --------------------------------------------------------------------------------------------------------------- code

PYTHON = '''"""A module."""
import os

LIMIT = 3

# Says hello.
@cached
def hello():
    return "hello"

class Big:
    """A class with much in it."""

    def first(self):
        return [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]

    async def second(self):
        return [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]

main = Big()
'''


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_python_is_cut_at_its_definitions(newline: str) -> None:
    pieces = cut_and_check(PYTHON.replace("\n", newline), window=48, media="code")
    assert [p.heading for p in pieces] == [(), ("hello",), ("Big",), ("Big", "first"), ("Big", "second"), ()]
    assert pieces[1].text.startswith("# Says hello.")


def test_odd_escapes_in_python_do_not_warn() -> None:
    assert cut_and_check('def f():\n    return "\\d"\n', media="code")[0].heading == ("f",)


def test_other_languages_are_cut_between_top_level_blocks() -> None:
    function = "fn f%d() {\n    let a = 1;\n\n    let b = 2;\n}"
    text = "\n\n".join(function % i for i in range(6))
    pieces = cut_and_check(text, window=24, media="code")
    assert texts_of(pieces) == [function % i for i in range(6)]


# -------------------------------------------------------------------------------------------------------------- files


def test_each_kind_of_text_file_is_read(tmp_path: Path) -> None:
    files: dict[str, tuple[bytes, str, str, str]] = {
        "a.txt": (b"Plain\r\ntext.", "Plain\r\ntext.", "text", "a.txt"),
        "a.md": (b"# Title\n\nBody", "# Title\n\nBody", "markdown", "Title"),
        "a.py": (b"x = 1\n", "x = 1\n", "code", "a.py"),
        "a.rst": (b"Title\n=====\n", "Title\n=====\n", "text", "a.rst"),
        "README": (b"read me", "read me", "text", "README"),
        "a.unknown": (b"who knows", "who knows", "text", "a.unknown"),
        "bom.txt": (b"\xef\xbb\xbfcaf\xc3\xa9", "caf\u00e9", "text", "bom.txt"),
        "utf16.txt": ("caf\u00e9 \U0001f600".encode("utf-16"), "caf\u00e9 \U0001f600", "text", "utf16.txt"),
        "utf16be.txt": (b"\xfe\xff" + "caf\u00e9".encode("utf-16-be"), "caf\u00e9", "text", "utf16be.txt"),
        "windows.txt": (b"\x93caf\xe9\x94", "\u201ccaf\u00e9\u201d", "text", "windows.txt"),
        "latin.txt": (b"caf\xe9 \x81", "caf\u00e9 \x81", "text", "latin.txt"),
    }
    for name, (data, text, media, title) in files.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert readable(path)
        source = read_file(str(path))
        assert (source.text, source.media, source.title) == (text, media, title)
        cut_and_check(source.text, media=source.media)


def test_a_web_page_becomes_text_with_headings(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        """<!doctype html><html><head><title>My &amp; page</title><style>p {}</style><script>no()</script></head>
        <body><h1>The <em>city</em></h1><p>Ana moved to
        Lisbon<br>in May.</p><ul><li>sun</li><li><p>sea</p></li></ul><![odd[x]]>
        <table><tr><th>Name</th><th>City</th></tr><tr><td>Ana</td><td><p>Lisbon</p></td></tr></table>
        <pre>x  =  1
  y</pre><img src="a.png" alt="a cat"><p># not a heading</p></body></html>""",
        encoding="utf-8",
    )
    source = read_file(page)
    assert source.title == "My & page"
    assert source.media == "html"
    assert source.text == (
        "# The city\n\nAna moved to Lisbon\nin May.\n\n- sun\n- sea\n\n| Name | City |\n| Ana | Lisbon |\n\n"
        "```\nx  =  1\n  y\n```\n\n[picture: a cat]\n\n\\# not a heading"
    )
    assert cut_and_check(source.text, window=128, media=source.media)[0].heading == ("The city",)


def test_the_encoding_a_page_declares_is_believed_where_it_is_not_utf8(tmp_path: Path) -> None:
    page = tmp_path / "page.htm"
    page.write_bytes(b'<meta charset="koi8-r"><p>' + "\u043c\u0438\u0440".encode("koi8-r"))
    assert read_file(page).text == "\u043c\u0438\u0440"


@given(
    page=st.lists(st.sampled_from(["<", ">", "<!", "<![", "</p", "<td>", "<tr>", "<pre>", "&#x", "a", "]]>", "<p "]))
)
def test_broken_pages_are_read_too(tmp_path_factory: pytest.TempPathFactory, page: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "broken.html"
    path.write_text("<p>here</p>" + "".join(page), encoding="utf-8")
    assert "here" in read_file(path).text


def test_a_notebook_becomes_its_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Words."]},
        {"cell_type": "code", "source": "x = 1", "outputs": [{"text": "no"}]},
    ]
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    source = read_file(path)
    assert (source.text, source.title) == ("# Title\nWords.\n\n```python\nx = 1\n```", "Title")


def test_what_cannot_be_read_is_an_error_that_names_the_path(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.txt").write_bytes(b" \n")
    (tmp_path / "binary.txt").write_bytes(b"\x00\x01\x02")
    (tmp_path / "noise.dat").write_bytes(bytes(range(1, 256)) * 10)
    (tmp_path / "broken.txt").write_bytes(b"\xff\xfea")
    for name in ("empty.txt", "blank.txt", "binary.txt", "noise.dat", "missing.txt", ".", "no\0file"):
        with pytest.raises(InvalidInput) as caught:
            read_file(tmp_path / name)
        assert caught.value.argument == "path"
        assert caught.value.mend
        assert not readable(tmp_path / name)
    with pytest.raises(InvalidInput):
        read_file(tmp_path / "broken.txt")


def test_documents_need_an_extra_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.4 nonsense")
    assert readable(path)
    assert SUFFIXES[".pdf"] == "markdown"
    with pytest.raises((MissingExtra, InvalidInput)) as caught:  # the second where the extra is installed
        read_file(path)
    if isinstance(caught.value, MissingExtra):
        assert 'pip install "memspan[documents]"' in str(caught.value)


# ----------------------------------------------------------------------------------------------------------- messages


def test_messages_are_taken_in_the_usual_shapes() -> None:
    when = datetime(2026, 5, 30, 14, tzinfo=UTC)
    plain = Message(content="As it is.", role="user", time=when)
    assert messages(
        [
            {"role": "user", "name": "Ana", "content": "I moved.", "timestamp": "2026-05-30T14:00:00Z"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "tool_call_id": "1", "content": "sunny", "metadata": {"source": "weather"}},
            {
                "role": "Human",
                "content": [
                    {"type": "text", "text": "Look!"},
                    {"type": "image_url", "image_url": {"url": "x"}, "blip_caption": "a cat\non a mat"},
                    {"type": "image"},
                    "and so on",
                ],
            },
            {"role": "assistant", "content": [{"type": "tool_use", "name": "weather"}]},
            {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "rain"}]}]},
            plain,
        ]
    ) == [
        Message(content="I moved.", role="user", name="Ana", time=when),
        Message(content="sunny", role="tool", metadata={"source": "weather"}),
        Message(content="Look!\n[shares a picture: a cat on a mat]\n[shares a picture]\nand so on", role="user"),
        Message(content="rain", role="user"),
        plain,
    ]


@pytest.mark.parametrize(
    ("item", "argument"),
    [
        ("hello", "messages[1]"),
        (None, "messages[1]"),
        ({"content": "x"}, "messages[1].role"),
        ({"role": "robot", "content": "x"}, "messages[1].role"),
        ({"role": 3, "content": "x"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "assistant"}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "user", "content": " "}, "messages[1].content"),
        ({"role": "user", "content": 7}, "messages[1].content"),
        ({"role": "user", "content": []}, "messages[1].content"),
        ({"role": "user", "content": [{"type": "hologram"}]}, "messages[1].content[0]"),
        ({"role": "user", "content": [7]}, "messages[1].content[0]"),
        ({"role": "user", "content": "x", "name": 7}, "messages[1].name"),
        ({"role": "user", "content": "x", "metadata": [1]}, "messages[1].metadata"),
        ({"role": "user", "content": "x", "created_at": "soon"}, "messages[1].created_at"),
        (Message(content="", role="user"), "messages[1].content"),
    ],
)
def test_a_wrong_message_is_named_with_its_place(item: Any, argument: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        messages([{"role": "user", "content": "fine"}, item])
    assert caught.value.argument == argument
    assert caught.value.mend


@pytest.mark.parametrize("items", ["text", {"role": "user", "content": "x"}, 7, None])
def test_messages_come_in_a_list(items: Any) -> None:
    with pytest.raises(InvalidInput, match="messages"):
        messages(items)


# ------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (datetime(2026, 5, 30, 14), datetime(2026, 5, 30, 14, tzinfo=UTC)),
        (datetime(2026, 5, 30, 14, tzinfo=timezone(timedelta(hours=2))), datetime(2026, 5, 30, 12, tzinfo=UTC)),
        (date(2026, 5, 30), datetime(2026, 5, 30, tzinfo=UTC)),
        ("2026-05-30", datetime(2026, 5, 30, tzinfo=UTC)),
        (" 2026-05-30T14:00:00Z ", datetime(2026, 5, 30, 14, tzinfo=UTC)),
        ("2026-05-30 14:00:00.5+02:00", datetime(2026, 5, 30, 12, 0, 0, 500_000, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1.5, datetime(1969, 12, 31, 23, 59, 58, 500_000, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_utc(value: Any, expected: datetime | None) -> None:
    found = parse_time(value, "occurred_at")
    assert found == expected
    assert found is None or found.tzinfo is UTC


EARLIEST = datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, True, "", "soon", "x" * 9999, [], b"2026-05-30", 1e18, 10**400, 1_780_000_000_000, EARLIEST],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_no_time_is_an_error_that_names_the_argument(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_time(value, "as_of")
    assert caught.value.argument == "as_of"
    assert len(str(caught.value)) < 400


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_survives_being_written_as_iso_8601(moment: datetime) -> None:
    assert parse_time(moment.isoformat(), "time") == moment


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (7, "int"),
        (None, "NoneType"),
        (b"bytes", "bytes"),
        ("", "empty"),
        (" \n\u3000", "white space"),
        ("a\0b", "position 1"),
        ("ab\ud800", "position 2"),
        ("x" * (MAX_CHARACTERS + 1), "characters"),
    ],
    ids=["int", "None", "bytes", "empty", "white space", "NUL", "surrogate", "long"],
)
def test_a_text_that_cannot_be_kept_is_an_error(text: Any, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as caught:
        check_text(text, "text")
    assert caught.value.argument == "text"
    assert caught.value.mend


def test_a_good_text_is_given_back() -> None:
    assert check_text(" caf\u00e9 \U0001f600 ", "text") == " caf\u00e9 \U0001f600 "


# --------------------------------------------------------------------------------------------------------- tokenizers


def test_words_signs_and_cjk_characters_are_counted_one_each() -> None:
    assert WORDS.count(
        ["Hello, world!", "", "\u65e5\u672c\u8a9e", "cafe\u0301", "\u0939\u093f\u0928\u094d\u0926\u0940"]
    ) == [
        4,
        0,
        3,
        1,
        1,
    ]


def test_a_tokenizer_file_counts_everything_and_nothing_more(wordpiece: Path) -> None:
    for path in (wordpiece, wordpiece / "tokenizer.json"):
        tokenizer = FileTokenizer(path)
        assert tokenizer.name == wordpiece.name
        assert tokenizer.count(["the memory", "", "walking", "the " * 40]) == [2, 0, 5, 40]


@pytest.mark.parametrize("content", [None, b"{}", b"\xff", b'{"model": 1}'])
def test_an_unreadable_tokenizer_file_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        FileTokenizer(path)
    assert caught.value.argument == "tokenizer"


@pytest.mark.parametrize("returned", [-1, 1.5, None, True, "3"])
def test_a_function_must_return_a_count(returned: Any) -> None:
    with pytest.raises(InvalidInput, match="tokenizer"):
        CallableTokenizer(lambda text: returned).count(["text"])


def test_a_tokenizer_is_given_in_several_ways(wordpiece: Path) -> None:
    specs: list[Tokenizer | str | Path | Callable[[str], int]] = [WORDS, "words", wordpiece, str(wordpiece), len]
    assert [tokenizer_of(spec).name for spec in specs] == ["words", "words", wordpiece.name, wordpiece.name, "len"]


@pytest.mark.parametrize("spec", [7, None, WordTokenizer, []])
def test_what_counts_no_tokens_is_no_tokenizer(spec: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        tokenizer_of(spec)
    assert caught.value.argument == "tokenizer"
