"""What a text mentions: which texts are linked."""

import unicodedata
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan.entities import MOST, READ, entities


def names(text: str) -> tuple[str, ...]:
    return entities(text).names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She studied at the University of Copenhagen.", ["university of copenhagen", "copenhagen"]),
        ("a letter of Vincent van Gogh", ["vincent van gogh"]),
        ("Ursula von der Leyen spoke.", ["ursula von der leyen"]),
        ("I met Ana and Ben.", ["ana", "ben"]),
        ("It was Ana, Ben or Cleo.", ["ana", "ben", "cleo"]),
        ("Provo\u2013Orem", ["provo", "orem"]),
        ("a book by J. R. R. Tolkien", ["jrr tolkien"]),
        ("a book by J.R.R. Tolkien", ["jrr tolkien"]),
        ("I saw Simon & Garfunkel.", ["simon and garfunkel"]),
        ("She works at AT&T.", ["at&t"]),
        ("He lives in the U.S. The rent is low.", ["us"]),
        ("It landed with Apollo 11 on board.", ["apollo 11"]),
        ("He won the 2010 World Cup.", ["2010 world cup", "2010"]),
        ("In 2010 Ana won.", ["ana", "2010"]),
        ("the band Dunkin' Brands", ["dunkin brands"]),
        ("Schindler's List is a film.", ["schindler list", "schindler"]),
        ("We read On the Road.", ["on the road"]),
        ('We read "Gone with the Wind," then slept.', ["gone with the wind"]),
    ],
)
def test_a_proper_name_is_found_whole(text: str, expected: list[str]) -> None:
    assert list(names(text)) == expected


@pytest.mark.parametrize(
    ("forms", "name"),
    [
        (["I saw Ana.", "Ana's flat", "Ana\u2019s flat", "(Ana)", "**Ana**", "Hey Ana!", "ask ANA", "Dr. Ana?"], "ana"),
        (["Leo Núñez", "Leo Nu\u0301n\u0303ez", "LEO NÚÑEZ", "Mr. Leo Nunez", "Leo Nunez's"], "leo nunez"),
        (["by The Beatles", "the Beatles' songs", "The Beatles sang.", '"The Beatles"'], "beatles"),
        (["Jean-Luc Picard", "Jean Luc Picard", "Jean\u2010Luc Picard"], "jean luc picard"),
        (["by O'Brien", "by OBrien", "O\u2019Brien's"], "obrien"),
        (["in Straße Nord", "in STRASSE NORD"], "strasse nord"),
        (["the University\nof Oslo", "The University of Oslo"], "university of oslo"),
        (["Łódź and Kraków", "in Krakow"], "krakow"),
        (["Он видел Чайковского.", "ЧАЙКОВСКОГО"], "чайковского"),
        (["στην Αθήνα", "ΑΘΗΝΑ", "Αθηνα"], "αθηνα"),
        (["Գյումրի", "ԳՅՈՒՄՐԻ"], "գյումրի"),
    ],
)
def test_a_name_has_one_form_however_it_is_written(forms: list[str], name: str) -> None:
    for form in forms:
        assert name in names(form), form


@pytest.mark.parametrize(
    ("forms", "date"),
    [
        (
            ["on 8 May 2023", "May 8, 2023", "May 8th 2023", "the 8th of\nMay, 2023", "2023/5/8", "2023-05-08T10:00"],
            "2023-05-08",
        ),
        (["2023.05.08", "2023年5月8日", "2023-05-08"], "2023-05-08"),
        (["in May 2023", "until May 2023 or so"], "2023-05"),
        (["on 3 Sept. at noon", "on September 3rd", "Sep 3"], "--09-03"),
        (["in 1999", "1998-1999", "1999\u20132004", "3 March 1999", "the 1999 World Cup", "on 1999-12-31"], "1999"),
    ],
)
def test_a_date_has_one_form_however_it_is_written(forms: list[str], date: str) -> None:
    for form in forms:
        assert date in names(form), form


def test_what_is_no_day_is_no_date() -> None:
    assert names("on 2023-99-08") == names("since 2023") == ("2023",)
    assert names("version 2023-5") == ("2023-5",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It weighs 5kg.", ["5 kg"]),
        ("It is 12.5 kilometres or 12.5 km.", ["12.5 km"]),
        ("15 percent, so 15%", ["15%"]),
        ("5 dollars, $5", ["$5"]),
        ("1,250,000 people", ["1250000"]),
        ("call 555-1234 at 10:30", ["555-1234", "10:30"]),
        ("$5 million", ["$5 million"]),
        ("The 5 km walk. It's 7 MB.", ["5 km", "7 mb"]),
        ("two cats, 2 dogs, 3.5 of 10, the 1st, the 21st, at 5pm", []),
    ],
)
def test_a_number_counts_if_it_tells_something(text: str, expected: list[str]) -> None:
    assert list(names(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call load_model() and __init__.", ["load_model", "__init__"]),
        ("use GraphView or getUserName", ["graphview", "getusername"]),
        ("see Memory.add(), main() and README.md.", ["memory.add", "main", "readme.md"]),
        (
            "in src/memspan/memory.py, ./run.sh, /users",
            ["src/memspan/memory.py", "memory.py", "./run.sh", "run.sh", "/users"],
        ),
        ("try v1.2.3, utf8, 5G, C++ and C#", ["v1.2.3", "utf8", "5g", "c++", "c#"]),
        ("@ana wrote #Roadmap, @app.route", ["@ana", "#roadmap", "@app.route"]),
        ("mail ana.smith+x@example.com.", ["ana.smith+x@example.com"]),
        ("see https://www.example.com/a?b=1.", ["example.com/a?b=1"]),
        ("see http://example.com/ and example.com", ["example.com"]),
        ("cats/dogs and/or e.g. i.e. a.m. </div> w/ 24 ", []),
    ],
)
def test_code_and_addresses_are_names(text: str, expected: list[str]) -> None:
    assert list(names(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "?! \u2026 \U0001f600",
        "The cat sat. It slept! Then we left? Yes.",
        "I'm here. I've seen it. That's it. Don't! We'll see. How've you been?",
        "Can you come? Would she? Thanks! Wow, congrats. Great job! Definitely. Absolutely!",
        "- Add it\n* Use it\n1. Check it\n> Looking good",
        "See you on Monday or in January, OK?",
        "WHAT ARE YOU DOING OVER THERE MY FRIEND",
        "user: hello\nassistant: hi",
        "User: hello",
    ],
)
def test_ordinary_words_are_no_names(text: str) -> None:
    assert entities(text) == (None, ())


def test_a_name_may_open_a_sentence() -> None:
    assert names("Ana left. Ben stayed! Great Britain won.") == ("ana", "ben", "great britain")


def test_the_speaker_of_a_turn_is_a_name() -> None:
    assert names("Ana Silva: hello") == ("ana silva",)
    assert names("elise: hello Kate") == ("elise", "kate")
    assert names("田中: こんにちは") == ("田中",)


def test_texts_meet_in_pairs_of_ordinary_words() -> None:
    ours, theirs = (
        names("she joined a support group for young mothers"),
        names("Support groups are good; support group"),
    )
    assert "support group" in ours
    assert set(ours) & set(theirs) == {"support group"}
    assert names("many flower pots") == ("flower pot",)
    assert names("some capital cities") == ("capital city",)
    assert names("a deeply rooted family tradition") == names("they walked slowly") == ()
    assert not names("they were really going there because nothing would have been left")


def test_only_the_first_pairs_of_words_count() -> None:
    many = " ".join(f"{word}land {word}town, " for word in ("abcd", "efgh", "ijkl", "mnop", "qrst", "uvwx") * 2)
    chain = " ".join(f"{a}{b}word" for a in "abcdef" for b in "abcdef")
    assert len(names(many)) == 6
    assert names(chain) == tuple(f"{a} {b}" for a, b in pairwise(chain.split()[:9]))


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Mercury (planet)\nThe planet is hot.", "mercury"),
        ("# The Beatles\n\nThey sang.", "beatles"),
        ("Leland, North Carolina\nIt is a town.", "leland"),
        ("The Good, the Bad and the Ugly\nA film.", "good the bad and the ugly"),
        ("Installation guide\n\nRun it.", "installation guide"),
        ("U-20 World Cup\nIt was held.", "u 20 world cup"),
        ("三体\n小说。", "三体"),
    ],
)
def test_a_short_first_line_is_the_title(text: str, title: str) -> None:
    found = entities(text)
    assert found.title == title
    assert title not in found.names


@pytest.mark.parametrize(
    "text",
    [
        "Mercury",
        "Mercury\n \n",
        "Mercury is hot.\nIt is small.",
        "Is it hot?\nYes.",
        "Dear Ana,\nthanks",
        "Ana: hello\nhow are you",
        "- milk\n- bread",
        "1. milk\n2. bread",
        "x = 1\ny = 2",
        "\nMercury\n",
        f"{'a ' * 50}\nMercury",
    ],
)
def test_another_first_line_is_none(text: str) -> None:
    assert entities(text).title is None


def test_a_title_is_found_where_another_text_mentions_it() -> None:
    for title in ("University of Oslo", "The Beatles", "J. R. R. Tolkien", "O'Brien's Pub", "Łódź", "2010 World Cup"):
        assert entities(f"{title}\nAbout it.").title in names(
            f"They wrote about the {title.removeprefix('The ')} there."
        )


def test_chinese_and_japanese_give_quoted_names_katakana_and_latin() -> None:
    assert names("彼は『雪国』をPythonで読んだマイケル") == ("雪国", "python", "マイケル")
    assert names("我喜欢《三体》和「活着」") == ("三体", "活着")
    assert names("彼は「今日は、いい天気です。」と言った") == ()
    assert names("\uff76\uff9e\uff7d\uff76\uff9e\uff7d") == ("ガスガス",)


def test_names_stand_in_the_order_of_first_mention_each_once() -> None:
    assert names("We met Zoe, Ana, zoe, Zoe and Ben in Ana's car.") == ("zoe", "ana", "ben")


def test_a_name_holds_no_control_characters() -> None:
    assert names("《a\x00b》 http://x.org/a\x07b, Ana\x1fBen, 「x\u202ey」") == ("ana", "ben")
    assert entities("Mer\x00cury\nIt is hot.").title is None


def test_a_huge_text_gives_its_first_names() -> None:
    text = ", ".join(f"Name{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}" for i in range(600))
    assert len(names(text * 100)) == MOST
    assert names(text * 100) == names(text) == tuple(name.lower() for name in text.split(", ")[:MOST])
    assert names("x, " * READ + "Ana") == ()


NASTY = """
a,A ,a.,A.,a_,_,"A,"A ,@,a@a.,/a,a/a,A',A-,(,1:,1-, ,X of ,é,Jan 1 ,http://,www.,「三,三,ア,\u0301,\ufdfa,abcd-,abcd ,
,the 1999 ,St. ,~/,: ,\r,#,x++,8 of ,"a ,A&,A 1 ,__a,1.1 ,a-1,ab.
"""


@pytest.mark.parametrize("unit", NASTY.strip("\n").split(","))
def test_no_repetition_takes_long(unit: str) -> None:
    """A pattern that backtracks would not come back from one of these."""
    assert len(names(unit * (200_000 // len(unit)))) <= MOST


PIECES = [
    "Ana",
    "of",
    "the",
    "'St.",
    "A.",
    '"',
    "《",
    "》",
    "@x",
    "5",
    "km",
    "May",
    "8",
    ",",
    ":",
    "\n",
    "三",
    "a_b",
    "/",
]


@given(st.text(max_size=300) | st.lists(st.sampled_from(PIECES)).map(" ".join))
def test_names_are_few_short_printable_and_distinct(text: str) -> None:
    found = entities(text)
    assert len(found.names) == len(set(found.names)) <= MOST
    assert found.title not in found.names
    for name in (*found.names, found.title or "ab"):
        assert name.isprintable()
        assert len(name) <= 200
        assert name == " ".join(name.split())
    assert all(len(name) > 1 for name in found.names)


@given(st.text("Aa éŁñ'’.\u0301ёЙ5-,\n", max_size=60), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_names_do_not_depend_on_the_normal_form(text: str, form: Literal["NFC", "NFD", "NFKC", "NFKD"]) -> None:
    assert entities(unicodedata.normalize(form, text)) == entities(unicodedata.normalize("NFC", text))
