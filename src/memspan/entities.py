"""The names of things that a text mentions, found without a model, so that texts about the same thing can be linked.

Names are proper names, quoted titles, dates, years, telling numbers, addresses, identifiers of code, and the first few
pairs of ordinary words ("support group"). They are normalised, so that texts that mention the same thing give the same
string: case folded, Latin and Greek accents dropped, without articles, possessives, dots and forms of address. "Dr.
Ana Núñez's" is "ana nunez", "J. R. R. Tolkien" is "jrr tolkien", "May 8th, 2023" is "2023-05-08", "5km" is "5 km".

Proper names are told by their capitals, in the scripts that have them (Latin, Greek, Cyrillic, Armenian). Chinese,
Japanese, Korean and Thai have none: of them quoted names (《》, 『』 and their kin), runs of katakana, dates and
what is written in Latin are taken. Arabic, Hebrew and the Indic scripts give numbers, addresses and code. Months,
units, pairs of words and most words that open a sentence are known in English only. Names are not inflected back:
"Москве" is not "Москва".
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache
from typing import Final, NamedTuple

MOST: Final[int] = 32
"""Names of one text; the first ones are kept."""

READ: Final[int] = 20_000
"""Characters of a text that are read. Prose has its 32 names long before; a blob must not hold up a write."""

_LONGEST: Final = 200  # characters of a name, for the sake of links; what is longer is a blob
_LONGEST_TITLE: Final = 80
_PAIRS: Final = 8  # pairs of ordinary words of one text: its subject stands in front, and more found no more


class Mentions(NamedTuple):
    """What a text mentions: its title, if it has one, and its names, each once, by first mention, without the title."""

    title: str | None
    names: tuple[str, ...]


@lru_cache(maxsize=200_000)
def key_of(name: str) -> int:
    """The number, of 64 bits and never 0, under which a graph keeps a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) or 1


# --------------------------------------------------------------------------------------------------------------- words
# Never the first word of a name at the start of a sentence, and never one of a pair of ordinary words.
_FUNCTION_WORDS: Final = """
about above absolutely according across actually additionally after again against ah all almost along already also
although always am among and another any anybody anyone anything anyway are around as ask at aw aww be because been
before behind being below beneath beside besides between beyond both but by bye ca call can cannot cant certainly cheers
come congrats congratulations could couldnt dear definitely despite did didnt do does doesnt doing done dont down due
during each either else especially even ever every everybody everyone everything exactly except few finally following
for from furthermore gave get gets getting give given gives giving go goes going gonna goodbye got gotta guess had haha
has hasnt have havent having he hello hence her here hers herself hey hi him himself his hmm hmmm honestly hopefully how
however huh idk if in indeed initially inside instead into is isnt it its itself just keep knew know known lately let
lets like literally lol look looks made make makes making many maybe me meanwhile meet mine moreover most mostly much
must my myself nah near nearly neither never nevertheless nice no nobody none nope nor not nothing now of off often oh
ohh on once only onto oops or originally other others otherwise ought our ours ourselves out outside over overall own
perhaps personally please plus possibly previously probably put quite rather really recently regarding regardless said
same saw say says see seem seems seen several shall she should shouldnt similarly since so some somebody someone
something sometimes somewhere soon sorry specifically still such suppose sure take takes taking tell than thank
thankfully thanks that thats their theirs them themselves then there therefore these they theyll theyre theyve thing
things this those though through throughout thus to together too totally toward towards tried truly try trying typically
ugh uh um under unfortunately unless unlike until up upon use used uses using usually various very via visit wanna want
wanted wants was wasnt we well went were weve what whatever whats when whenever where whereas wherever whether which
while who whoever whom whose why with within without wo wont would wouldnt wow yay yea yeah yep yes yet you youll your
youre yours yourself yourselves youve yup
le les un une et est dans pour avec sur ce cette il elle ils elles nous vous je mais ou donc los una es y en por para
con que su pero como der die das ein eine und ist im mit auf ich wir sie er nicht aber
и в на не что он она они мы вы я это как но с у к за из по от для а о
"""
# No name where one stands alone at the start of a sentence, and never one of a pair. "Great Britain" and "Mark" are.
_OPENING_WORDS: Final = """
add adding agreed aim allow amazing apply appreciate april art august avoid awesome based basic believe best bet better
big black books born break bring build calculate catch cause change changes chat check choose clear click common compare
conclusion consider continue cool crazy create currently data day days define different drink easy eight enjoy ensure
error example examples excited exciting explain explanation family feel feels first five focus follow food found founded
four free friends fun game games glad good great half happy hard help helps highlight historically hold home hope human
identify imagine implement improve include includes interesting issue join june kids kind last later learn least left
less life list little located long lots love loved lovely loves lucky main march may means money month months more
morning move music name need needed needs new next night nine note number old one open order part people place play
prepare pretty problem produced provide question quick read ready received red regular released remember reminds rest
review right run sad second select set seven share short show simple simply sincerely situated six small solution sound
sounds speak special start started state stay step steps stick stop story summary super talk team ten test text think
third thought three time times tip tips today tomorrow tonight tool tools total tough true two type understand
understood update verify wait watch water way week weekend weeks welcome white whole will winter wish wonderful word
words work world write written wrong year years yesterday young
"""
# Never the first word of a name, wherever it stands. March, April, May, June and August are names of people too.
_NEVER_NAMES: Final = """
a an the i im ive id ill ok okay monday tuesday wednesday thursday friday saturday sunday january february july
september october november december
"""
_NEVER: Final = frozenset(_NEVER_NAMES.split())
_FUNCTION: Final = _NEVER.union(_FUNCTION_WORDS.split())
_ROLES: Final = frozenset(("user", "assistant", "system", "developer", "human", "tool", "bot", "ai", "agent"))
_ORDINARY: Final = _FUNCTION.union(_OPENING_WORDS.split(), _ROLES)
_ADDRESS: Final = frozenset(("mr", "mrs", "ms", "miss", "dr", "prof", "professor", "sir", "madam", "rev"))
_NOUNS_IN_IE: Final = frozenset(("movies", "cookies", "calories", "zombies", "selfies"))
_ENDINGS: Final = ("ing", "ally", "ully", "ntly", "tely", "stly", "usly")  # of more words that open sentences

# ------------------------------------------------------------------------------------------------------------- grammar
# Repetitions are possessive or bounded, so that the time is linear, whatever the text holds.
_CASED: Final = (*range(0x80, 0x590), *range(0x1E00, 0x2000))
_CAPITALS: Final = f"A-Z{''.join(chr(code) for code in _CASED if chr(code).isupper())}"
_UP: Final = f"[{_CAPITALS}]"

_QUOTED: Final = (  # "Gone with the Wind": one to eight words, of which only the short ones may be in lower case
    rf"[\"“«](?={_UP}|[0-9]++[ :])(?:(?:[{_CAPITALS}0-9][^\s\"“”«»]{{0,40}}+|[^\W\d_]\w{{0,3}}+)"
    r"(?:[ ](?![\"”»])|(?=[\"”»]))){1,8}+[\"”»]"
    r"|[「『《〈][^「」『』《》〈〉。、,.!?]{1,40}+[」』》〉]"
)
_LINK: Final = (
    r"(?:https?://|www\.)[^\s<>\"'`|\\^{}]{3,200}+"
    r"|[\w.+-]{1,64}+@[\w-]{1,63}+(?:\.[\w-]{1,63}+){1,5}+"
)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH: Final = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\b\.?"
)
_DAY: Final = r"[0-9]{1,2}(?:st|nd|rd|th)?\b"
_YEAR: Final = r"[12][0-9]{3}\b"
_DATE: Final = (
    rf"{_YEAR}(?P<joint>[-/.])[0-9]{{1,2}}(?P=joint)[0-9]{{1,2}}(?![0-9])"
    r"|[12][0-9]{3} ?年 ?[0-9]{1,2} ?月(?: ?[0-9]{1,2} ?日)?"
    rf"|{_DAY}(?:\sof)?\s{_MONTH}(?:,?\s{_YEAR})?"
    rf"|{_MONTH}\s(?:{_DAY}(?:,?\s{_YEAR})?|{_YEAR})"
)
_UNIT: Final = (
    r"(?:%|[gm]\b|(?i:percent|km/h|km|kg|kwh?|kb|cm|mm|mg|ml|mb|gb|tb|lbs?|oz|mi|miles?|mph|ft|feet|acres?|hectares?"
    r"|[kmg]?hz|(?:kilo)?met(?:er|re)s?|pounds?|tons?|tonnes?|dollars?|euros?|watts?|volts?|ms|bn|calories|degrees"
    r"|thousand|million|billion|trillion)\b)"
)
_CODE: Final = (
    r"(?![A-Za-z][a-z]*+(?:[\s,!?;:\"')]|\.\s|\Z))(?:"  # a plain word, as most are, is none of these
    r"[@#]\w++(?:\.\w++)*+"  # @ana, #tag, @app.route
    r"|(?:~|\.\.?)?(?<!<)/\w[\w.-]{1,64}+(?:/[\w.-]{1,64}+){0,9}+"  # /users, ~/notes, ../src/main.c, but not </b>
    r"|[^\W\d][\w.-]{0,64}+(?:/[\w.-]{1,64}+){2,9}+"  # src/memspan/views, but not and/or
    r"|[^\W\d][\w.-]{0,64}+/\w[\w-]{1,64}+\.[a-z]\w{0,9}+"  # memspan/memory.py
    r"|_*+[^\W_]++_\w*+(?:\.\w++)*+(?:\(\))?"  # snake_case, __init__
    r"|[^\W\d]\w*+(?:(?:\.[a-z_]\w++)++(?:\(\))?|\(\))"  # memory.add, README.md, main()
    r"|[a-z]++[A-Z0-9]\w*+(?:\.\w++)*+|[A-Z](?:\+\+|#)"  # iPhone, getName, utf8, v1.2.3; C++, F#
    rf"|[0-9]++(?!(?:st|nd|rd|th|am|pm|s|x)\b|{_UNIT})[A-Za-z]\w*+"  # 5G, but not 5pm and 5km
    r")"
)
_JOINING: Final = "of|the|de|la|le|van|von|der|den|del|di|da|du|dos|das|do|des|al|el|bin|ibn|ter|ten|av|af|zu|zum|zur"
_CAPITALISED: Final = (
    rf"(?!{_MONTH},?\s[0-9])(?:"
    r"(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|Sgt|Capt|Col|Gen|Lt|Gov|Sen|Rep|Rev|Hon|Jr|Sr|Inc|Ltd|Co|Corp|No|Vol)\."
    rf"|{_UP}(?:\.{_UP})*+\.(?!\w)"  # J. and U.S.
    rf"|{_UP}\w*+(?:(?:['&-]|\.(?={_UP}))\w++)*+(?:'(?=\s{_UP}))?"  # O'Brien, AT&T, Jean-Luc, Dunkin'
    r")"
)
_PROPER: Final = (  # up to ten words; only a joining word may stand at the end or the start of a line
    rf"(?:(?<=[Tt]he ){_YEAR} )?{_CAPITALISED}(?:(?:[ ](?:&[ ])?|(?:\s(?:{_JOINING})\b){{1,3}}+\s)"
    rf"(?:{_CAPITALISED}|[0-9]{{1,4}}(?!\w|[.,:/-]\w| ?{_UNIT}))){{0,9}}+"
)
_SAME_UNIT: Final = {
    "percent": "%",
    **dict.fromkeys(("kilometer", "kilometre"), "km"),
    **dict.fromkeys(("meter", "metre"), "m"),
    "mile": "mi",
    "feet": "ft",
    **dict.fromkeys(("pound", "lbs"), "lb"),
}
_NUMBER: Final = rf"(?P<value>[$€£¥]?[0-9]++(?:[.,:/-][0-9]++){{0,20}}+)(?: ?(?P<unit>{_UNIT})|(?!\w))"
_WORD: Final = r"[a-z]{4,}+(?:-[a-z]++){0,8}+(?![\w(]|[.@/-]\w)"
_NAME: Final = re.compile(
    rf"(?<!\w)(?:(?P<words>{_WORD}(?:[ ]{_WORD})++)|(?P<speaker>\A ?[^\W\d_][\w.'-]{{0,39}}+(?= ?:\s))"
    rf"|(?P<quoted>{_QUOTED})|(?P<link>{_LINK})|(?P<date>{_DATE})|(?P<code>{_CODE})|(?P<proper>{_PROPER})"
    rf"|(?P<number>{_NUMBER})|(?P<katakana>[ァ-ヺー・]{{2,40}}+))"
)

# A first line is no title if it is an item, quotes or code, names a speaker, or ends like a sentence or a clause.
_NO_TITLE: Final = re.compile(r"\A(?:[-*+•>|`]|[0-9]+[.)]\s)|:\s|[={}<>|\\]|[.!?…:;,][\"'”»)*_]*\Z")
_ASIDE: Final = re.compile(r"\s*\([^()]*\)")
_PLACE: Final = re.compile(r"([^,]+), [^,&]+")
# What stands before a word that opens a sentence.
_OPENS: Final = re.compile(r"(?:\A|[.!?…:;\n•*>#|\"“«-])[\s\"'“‘«(\[*_¿¡]*\Z")

# ------------------------------------------------------------------------------------------------------- normalisation
_TYPOGRAPHIC: Final = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc", "'") | dict.fromkeys("\u2010\u2011", "-"))
_UNSPACED: Final = re.compile(  # runs of katakana; of Han, the rest of kana and Hangul; of Thai, Lao, Burmese and Khmer
    "[ァ-ヺー・]++"
    "|[\u3005-\u3007\u3041-\u3096\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]++"
    "|[\u0e01-\u0e4e\u0e81-\u0ede\u1000-\u109f\u1780-\u17d3]++"
)
_ACCENTS: Final = re.compile("(?<=[a-z\u03b1-\u03c9])[\u0300-\u036f]+|(?<=\u0435)\u0308")
_POSSESSIVE: Final = re.compile(r"'s?(?!\w)")
_SEPARATORS: Final = str.maketrans(dict.fromkeys(".'") | dict.fromkeys('-,;:!?…"“”«»*()[]#/|·・「」『』《》〈〉', " "))
_INITIALS: Final = re.compile(r"(?<=\b[^\W\d_]) (?=[^\W\d_]\b)")  # the spaces in "j r r tolkien" but the last
_DIGITS: Final = re.compile("[0-9]+")
_MONTH_NAME: Final = re.compile(_MONTH)
_THOUSANDS: Final = re.compile(r",(?=[0-9]{3}(?![0-9]))")
_YEARS: Final = re.compile(r"([12][0-9]{3})-([12][0-9]{3})")


def entities(text: str, *, pairs: bool = True) -> Mentions:
    """What ``text`` mentions: at most ``MOST`` names of its first ``READ`` characters, in time linear in those.

    The first line is the title if it is short, does not end like a sentence or a clause, names no speaker, and more
    text follows. What it says in parentheses or after its only comma is left out: "Mercury (planet)", "Leland, North
    Carolina". A speaker in lower case ("ana: hello") is a name too, but not a role such as ``user``. Without ``pairs``,
    those of ordinary words are left out.
    """
    text = text[:READ]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)[:READ].translate(_TYPOGRAPHIC)
        text = _UNSPACED.sub(r" \g<0> ", text)
    title = _title(text)
    found: dict[str, None] = {}
    left = _PAIRS if pairs else 0
    for match in _NAME.finditer(text):
        kind = str(match.lastgroup)
        names = _READERS[kind](match)
        if kind == "words":
            names = names[:left]
            left -= len(names)
        for name in names:
            if 1 < len(name) <= _LONGEST and name.isprintable():
                found[name] = None
        if len(found) > MOST:
            break
    found.pop(title or "", None)
    return Mentions(title, tuple(found)[:MOST])


def _title(text: str) -> str | None:
    line, _, rest = text.partition("\n")
    line = line.strip().lstrip("#").strip("*_ ")
    if len(line) > _LONGEST_TITLE or not line.isprintable() or _NO_TITLE.search(line) or not rest.strip():
        return None
    line = _ASIDE.sub("", line)
    if (place := _PLACE.fullmatch(line)) and " and " not in line:
        line = place[1]
    return _normal(line) or None


def _normal(name: str) -> str:
    """The one form of a name, whatever its case, accents, points and possessives."""
    name = name.casefold()
    if not name.isascii():
        name = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", name)))
    if "'" in name:
        name = _POSSESSIVE.sub("", name)
    words = name.translate(_SEPARATORS).split()
    if len(words) > 1 and words[0] in ("the", "a", "an"):
        del words[0]
    return _INITIALS.sub("", " ".join("and" if word == "&" else word for word in words))


def _proper(match: re.Match[str]) -> list[str]:
    """The names in a run of capitalised words, which may open a sentence, or hold one's end and another's start."""
    words = match[0].split()
    key = _key(words[0])
    opens = (key in _ORDINARY or key.endswith(_ENDINGS)) and bool(
        _OPENS.search(match.string, max(match.start() - 8, 0), match.start())
    )
    if opens and len(words) == 1:
        return []
    names: list[str] = []
    start = 0
    for i in range(1, len(words)):
        if words[i - 1].endswith(".") and _key(words[i]) in _FUNCTION:  # "... in the U.S. The ..."
            names += _names(words[start:i], opens)
            start, opens = i, True
    return names + _names(words[start:], opens)


def _names(words: list[str], opens: bool) -> list[str]:
    """One run of words as names: the whole, who owns it, what it is of, and the years in it."""
    years = [word for word in words if len(word) == 4 and word.isdigit()]
    if len(words) > 4 and "".join(words).isupper():  # shouting
        return years
    article = words[0].isdigit()
    while words and (key := _key(words[0])) in (_FUNCTION if opens else _NEVER):
        article = key == "the"
        words = words[1:]
    while words and words[0].isdigit() and not article:  # "In 2010 Ana", but "The 2010 World Cup"
        words = words[1:]
    while len(words) > 1 and _key(words[0]) in _ADDRESS:
        words = words[1:]
    if not words:
        return years
    name = _normal(" ".join(words))
    owners = [_normal(" ".join(words[:i])) for i in range(1, len(words)) if words[i - 1].endswith(("'s", "s'"))]
    head, of, tail = name.rpartition(" of ")
    parts = [tail.removeprefix("the "), *([head] if " " in head else [])] if of else []
    return [name, *owners, *parts, *years]


def _key(word: str) -> str:
    return word.lower().removesuffix("n't").partition("'")[0].rstrip(".")


def _name(match: re.Match[str]) -> list[str]:
    name = _normal(match[0])
    return [] if name in _ORDINARY else [name]


def _link(match: re.Match[str]) -> list[str]:
    link = match[0].casefold().rstrip(".,;:!?)]*_/")
    return [link.removeprefix("http://").removeprefix("https://").removeprefix("www.")]


def _date(match: re.Match[str]) -> list[str]:
    """ISO 8601, as far as it is known: 2023-05-08, 2023-05, --05-08; and the year."""
    numbers = [int(digits) for digits in _DIGITS.findall(match[0])]
    if (named := _MONTH_NAME.search(match[0])) is None:
        year, month, day = [*numbers, 0][:3]
    else:
        month = _MONTHS.index(named[0][:3]) + 1
        year = next((number for number in numbers if number > 99), 0)
        day = next((number for number in numbers if number <= 99), 0)
    if not 1 <= month <= 12 or day > 31:
        return [str(year)] if year else []
    date = (f"{year}" if year else "-") + f"-{month:02}" + (f"-{day:02}" if day else "")
    return [date, str(year)] if year else [date]


def _number(match: re.Match[str]) -> list[str]:
    """A number with its unit; one without, if it tells something: 1,250 and $5 and 10:30 do, 2 and 3.5 do not."""
    value = _THOUSANDS.sub("", match["value"])
    if unit := match["unit"]:
        unit = unit.lower()
        unit = unit.removesuffix("s") if len(unit) > 3 else unit
        unit = _SAME_UNIT.get(unit, unit)
        return [f"{value}%" if unit == "%" else f"${value}" if unit == "dollar" else f"{value} {unit}"]
    if years := _YEARS.fullmatch(value):
        return [years[1], years[2]]
    return [value] if len(value) > 3 or not value[0].isdigit() else []


def _code(match: re.Match[str]) -> list[str]:
    """An identifier, a handle, a tag; a path and the file it names."""
    code = match[0].casefold().rstrip(".-").removesuffix("()")
    file = code.rpartition("/")[2]
    return [code, file] if file != code and "." in file else [code]


def _words(match: re.Match[str]) -> list[str]:
    """Neighbours that are neither function words nor adverbs, two by two, the second one in the singular."""
    pairs: list[str] = []
    before = ""
    for word in match[0].split():
        if word in _ORDINARY or word.endswith("ly"):
            before = ""
            continue
        if before:
            pairs.append(f"{before} {_singular(word)}".replace("-", " "))
        before = word
    return pairs


def _singular(noun: str) -> str:
    if noun.endswith(("ss", "us", "is", "series", "species")):
        return noun
    if noun.endswith("ies") and noun not in _NOUNS_IN_IE:
        return noun[:-3] + "y"
    return noun[:-2] if noun.endswith(("ches", "shes", "xes", "oes")) else noun.removesuffix("s")


_READERS: Final = {
    "speaker": _name,
    "quoted": _name,
    "link": _link,
    "date": _date,
    "number": _number,
    "code": _code,
    "proper": _proper,
    "words": _words,
    "katakana": _name,
}
