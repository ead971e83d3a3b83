"""The one analyser: which texts find each other."""

import sqlite3
import sys
import threading
import unicodedata
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan.analysis import LONGEST, VERSION, terms

TOKENIZE = "unicode61 remove_diacritics 0 categories 'L* M* N* Co' tokenchars '_'"


def fts5_terms(texts: list[list[str]]) -> list[list[str]]:
    """What SQLite's FTS5 makes of these lists of terms, joined by spaces."""
    database = sqlite3.connect(":memory:")
    database.execute(f'CREATE VIRTUAL TABLE t USING fts5(x, tokenize = "{TOKENIZE}")')
    database.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, 'instance')")
    database.executemany("INSERT INTO t(rowid, x) VALUES (?, ?)", ((i, " ".join(t)) for i, t in enumerate(texts)))
    kept: list[list[str]] = [[] for _ in texts]
    for term, row in database.execute('SELECT term, doc FROM v ORDER BY doc, "offset"'):
        kept[row].append(term)
    database.close()
    return kept


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("moving", "I moved to Lisbon in May."),
        ("may", "I moved to Lisbon in May."),
        ("ana", "Ana's flat"),
        ("ana", "Ana\u2019s flat"),
        ("Ana's", "Ana lives here"),
        ("they dont say", "They'll say: don't"),
        ("OBrien", "Mr O'Brien"),
        ("resume", "his r\u00e9sum\u00e9"),
        ("r\u00e9sum\u00e9", "resume"),
        ("cafe", "cafe\u0301"),
        ("STRASSE", "stra\u00dfe"),
        ("istanbul", "\u0130stanbul"),
        ("Lodz", "\u0141\u00f3d\u017a"),
        ("\u03bf\u03b4\u03bf\u03c2", "\u039f\u0394\u039f\u03a3"),
        ("\u0435\u043b\u043a\u0430", "\u0401\u043b\u043a\u0430"),
        ("2024", "in 2024, maybe"),
        ("1000000", "1,000,000 people"),
        ("34", "\u0663\u0664"),
        ("LLM", "two LLMs"),
    ],
)
def test_a_query_finds_a_text_whatever_the_form(query: str, text: str) -> None:
    assert terms(query)
    assert set(terms(query)) <= set(terms(text))


@pytest.mark.parametrize(
    ("name", "queries"),
    [
        ("dsm/memory.py", ["dsm/memory.py", "memory.py", "dsm memory", "memorypy"]),
        ("snake_case", ["snake_case", "snake case", "snakecase", "snakeCase"]),
        ("camelCase", ["camelCase", "camel case", "camelcase", "camel_case"]),
        ("getHTTPResponse()", ["get http response", "gethttpresponse"]),
        ("foo.bar()", ["foo.bar", "foo", "bar", "foobar"]),
        ("wi-fi", ["WiFi", "wifi", "wi fi"]),
        ("GPT-4", ["gpt4", "gpt 4"]),
        ("R&D", ["R&D", "rd"]),
        ("v1.2.3", ["v1.2.3", "v1"]),
        ("ana.smith@example.com", ["ana.smith@example.com", "smith", "example.com"]),
        ("https://www.example.com/a/page?x=1", ["example.com/a/page", "example.com", "page"]),
    ],
)
def test_names_are_found_by_their_parts_and_as_a_whole(name: str, queries: list[str]) -> None:
    indexed = set(terms(f"See {name}, please."))
    for query in queries:
        found = terms(query)
        assert found
        assert indexed & set(found), query


def test_numbers_are_not_run_together() -> None:
    assert "3_14" in terms("3.14")
    assert "314" not in terms("3.14")
    assert "2026_05_30" in terms("on 2026-05-30")


def test_either_or_is_not_a_path() -> None:
    assert terms("cats/dogs") == ["cat", "dog"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u6771\u4eac\u90fd", ["\u6771\u4eac", "\u4eac\u90fd"]),
        ("\u732b", ["\u732b"]),
        ("\ud55c\uad6d\uc5b4", ["\ud55c\uad6d", "\uad6d\uc5b4"]),
        ("\uff76\uff9e\uff7d", ["\u30ac\u30b9"]),  # half-width katakana
        ("Python\u5165\u9580", ["python", "\u5165\u9580"]),
        ("\u0e20\u0e32\u0e29\u0e32", ["\u0e20\u0e32", "\u0e32\u0e29", "\u0e29\u0e32"]),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
            ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u092e\u0947\u0902"],
        ),
        ("\u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f", ["\u0645\u062d\u0645\u062f"]),
    ],
)
def test_scripts_are_cut_as_they_are_written(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_stop_words_are_dropped_unless_there_is_nothing_else() -> None:
    assert terms("Who is the cat with?") == ["cat"]
    assert terms("Who is it?") == ["who", "is", "it"]
    assert terms("don't") == ["dont"]


def test_text_without_letters_or_digits_has_no_terms() -> None:
    assert terms("") == terms(" \n") == terms("?! \u2026 \U0001f600 _") == []


def test_terms_are_short() -> None:
    assert terms("a" * 1_000_000) == ["a" * LONGEST]
    assert max(map(len, terms("foo.bar" * 10_000))) <= LONGEST


def test_the_version_names_the_stemmer() -> None:
    assert "snowball" in VERSION


def test_many_threads_get_the_same_terms() -> None:
    text = " ".join(f"running{i} happily{i} dogs" for i in range(500))
    expected = terms(text)
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(terms(text.upper().lower()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


@given(st.text(max_size=200))
def test_terms_survive_the_tokenizer_of_fts5(text: str) -> None:
    found = terms(text)
    assert fts5_terms([found]) == [found]


@pytest.mark.parametrize("each", [16, pytest.param(1, marks=pytest.mark.soak)], ids=["one in sixteen", "all"])
def test_every_letter_mark_and_digit_survives_the_tokenizer_of_fts5(each: int) -> None:
    characters = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] in "LMN"][::each]
    found = [terms(f"x{character}y {character}") for character in characters]
    assert fts5_terms(found) == found


@given(st.text(max_size=200))
def test_a_term_holds_nothing_but_letters_marks_digits_and_underscores(text: str) -> None:
    for term in terms(text):
        assert 0 < len(term) <= LONGEST
        assert all(c == "_" or unicodedata.category(c)[0] in "LMN" for c in term)


@given(st.text(max_size=100), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_terms_do_not_depend_on_the_normal_form(text: str, form: Literal["NFC", "NFD", "NFKC", "NFKD"]) -> None:
    assert terms(unicodedata.normalize(form, text)) == terms(unicodedata.normalize("NFC", text))
