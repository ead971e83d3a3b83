"""Chats as text, read: WhatsApp, IRC, and lines NAME: TEXT."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from memspan import Memory, archives
from memspan.archives import chatlog
from memspan.errors import InvalidInput
from memspan.segmenting import MAX_CHARACTERS

IPHONE = (
    "[12/31/23, 9:15:03\u202fPM] Bees: \u200eMessages and calls are end-to-end encrypted.\n"
    "[12/31/23, 9:15:05\u202fPM] Ana: Happy new year!\n"
    "To all of you:\n"
    "\n"
    "and the bees\n"
    "\u200e[1/1/24, 9:15:03\u202fAM] ~\u202fBen: \u200eimage omitted\n"
    "[1/1/24, 9:16:00\u202fAM] ~\u202fBen: you too <This message was edited>\n"
)
ANDROID = (
    "31/12/2023, 21:14 - Messages and calls are end-to-end encrypted.\n"
    "31/12/2023, 21:15 - Ana: Happy new year!\n"
    '31/12/2023, 21:16 - Ana changed the subject from "Hives: old" to "Hives: new"\n'
    "01/01/2024, 09:15 - Ben: <Media omitted>\n"
    "01/01/2024, 09:15 - Ben: IMG-20240101-WA0001.jpg (file attached)\n"
    "01/01/2024, 09:15 - Ben: You deleted this message\n"
    "01/01/2024, 09:16 - +351 912 345 678: ok\n"
    "01/01/2024, 09:16 - +351 912 345 678: ok\n"
)
IRC = (
    "2024-01-01 10:00:00 -!- ana has joined #bees\n"
    "[2024-01-01 10:00] <@ana> see: this\n"
    "2024-01-01T11:00:02+01:00 <ben> hello\n"
    "2024-01-01 10:02:00\tana\thi\n"
)
IRSSI = (
    "--- Log opened Sun Dec 31 21:00:00 2023\n"
    "21:15 <@ana> hi\n"
    "21:16 -!- ben [b@host] has joined #bees\n"
    "--- Day changed Mon Jan 01 2024\n"
    "00:01 < ben> hello\n"
)
PLAIN = "User: How many bees?\nAssistant: About 50,000.\n\nOr fewer.\nUser: Thanks!\nAssistant: Welcome.\n"


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def written(path: Path, text: str) -> Path:
    path.write_text(text, newline="")
    return path


def said(memory: Memory) -> list[Any]:
    kept = sorted(memory.get_all(), key=lambda each: (each.session or "", each.position))
    return [(each.speaker or each.role, each.text, each.occurred_at, each.session) for each in kept]


def test_a_chat_of_an_iphone_keeps_speakers_lines_and_times(memory: Memory, tmp_path: Path) -> None:
    done = memory.import_from(written(tmp_path / "Bees.txt", IPHONE))
    assert (done.format, done.failed) == ("chatlog", 0)
    assert said(memory) == [
        ("Ana", "Happy new year!\nTo all of you:\n\nand the bees", at(2023, 12, 31, 21, 15, 5), "Bees 2023-12-31"),
        ("Ben", "you too", at(2024, 1, 1, 9, 16), "Bees 2024-01-01"),
    ]


def test_a_chat_of_android_leaves_out_what_nobody_said(memory: Memory, tmp_path: Path) -> None:
    memory.import_from(written(tmp_path / "Bees.txt", ANDROID.replace("\n", "\r\n")))
    ok = ("+351 912 345 678", "ok", at(2024, 1, 1, 9, 16), "Bees 2024-01-01")
    assert said(memory) == [("Ana", "Happy new year!", at(2023, 12, 31, 21, 15), "Bees 2023-12-31"), ok, ok]


def test_logs_of_irc_keep_nicks_and_zones(memory: Memory, tmp_path: Path) -> None:
    memory.import_from(written(tmp_path / "bees.log", IRC))
    assert [each[:3] for each in said(memory)] == [
        ("ana", "see: this", at(2024, 1, 1, 10)),
        ("ben", "hello", at(2024, 1, 1, 10, 0, 2)),
        ("ana", "hi", at(2024, 1, 1, 10, 2)),
    ]


def test_a_log_of_irssi_says_when_the_day_changes(memory: Memory, tmp_path: Path) -> None:
    memory.import_from(written(tmp_path / "bees.log", IRSSI))
    assert [each[:3] for each in said(memory)] == [
        ("ana", "hi", at(2023, 12, 31, 21, 15)),
        ("ben", "hello", at(2024, 1, 1, 0, 1)),
    ]


def test_lines_of_names_have_no_times_and_roles_are_told_apart(memory: Memory, tmp_path: Path) -> None:
    memory.import_from(written(tmp_path / "talk.txt", PLAIN))
    assert said(memory) == [
        ("user", "How many bees?", None, "talk"),
        ("assistant", "About 50,000.\n\nOr fewer.", None, "talk"),
        ("user", "Thanks!", None, "talk"),
        ("assistant", "Welcome.", None, "talk"),
    ]


ORDERS = {
    "a day above 12": (["13/02/2024", "01/03/2024"], [(2024, 2, 13), (2024, 3, 1)]),
    "a month cannot be above 12": (["02/13/2024", "03/01/2024"], [(2024, 2, 13), (2024, 3, 1)]),
    "days that go on": (["01/02/2024", "02/02/2024", "03/02/2024"], [(2024, 2, 1), (2024, 2, 2), (2024, 2, 3)]),
    "months first that go on": (["1/2/24", "1/3/24", "1/4/24"], [(2024, 1, 2), (2024, 1, 3), (2024, 1, 4)]),
    "what goes backwards": (["10/01/2024", "11/01/2024", "01/02/2024"], [(2024, 1, 10), (2024, 1, 11), (2024, 2, 1)]),
    "with points": (["1.2.2024", "1.2.2024"], [(2024, 2, 1), (2024, 2, 1)]),
    "the year first": (["2024-02-01", "2024-02-01"], [(2024, 2, 1), (2024, 2, 1)]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_day_and_month_are_told_apart_by_the_whole_file(memory: Memory, tmp_path: Path, name: str) -> None:
    dates, meant = ORDERS[name]
    lines = [f"{date}, 10:00 - Ana: message {number}\n" for number, date in enumerate(dates)]
    memory.import_from(written(tmp_path / "chat with Ana.txt", "".join(lines)))
    found = {each.text: each.occurred_at for each in memory.get_all()}
    assert [found[f"message {number}"] for number in range(len(dates))] == [at(*day, 10) for day in meant]


def test_a_chat_that_has_grown_or_begins_later_adds_only_what_is_new(memory: Memory, tmp_path: Path) -> None:
    memory.import_from(written(tmp_path / "Bees.txt", ANDROID))
    assert memory.import_from(tmp_path / "Bees.txt").added == 0
    later = ANDROID + "02/01/2024, 10:00 - Ana: Good morning\n"
    assert memory.import_from(written(tmp_path / "Bees (1).txt", later)).added == 1
    assert memory.import_from(written(tmp_path / "Bees (2).txt", "".join(later.splitlines(True)[3:]))).added == 0


def test_the_same_words_in_another_chat_are_kept(memory: Memory, tmp_path: Path) -> None:
    for folder in ("Family", "Work"):
        (tmp_path / folder).mkdir()
        memory.import_from(written(tmp_path / folder / "_chat.txt", IPHONE))
    assert {each[3] for each in said(memory)} == {
        f"{chat} {day}" for chat in ("Family", "Work") for day in ("2023-12-31", "2024-01-01")
    }


def test_a_time_there_is_not_is_told_with_its_line_and_the_rest_is_imported(memory: Memory, tmp_path: Path) -> None:
    text = "Exported today\n" + ANDROID + "31/31/2024, 10:00 - Ben: when?\nhow?\n02/01/2024, 99:00 - Ben: when?\n"
    done = memory.import_from(written(tmp_path / "Bees.txt", text), "chatlog")
    assert [each.where for each in done.problems] == ["Bees.txt:1", "Bees.txt:10", "Bees.txt:12"]
    assert len(said(memory)) == 3


def test_lines_and_messages_without_end_are_told_and_left_out(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "Bees.txt"
    line = "and so on " * 100_000 + "\n"
    with file.open("w") as chat:
        chat.write(ANDROID + "x" * (3 << 20) + "\n02/01/2024, 10:00 - Ben: I say\n")
        for _ in range(MAX_CHARACTERS // len(line) + 1):
            chat.write(line)
        chat.write("02/01/2024, 10:01 - Ana: Good\n")
    done = memory.import_from(file)
    assert [each.where for each in done.problems] == ["Bees.txt:9", "Bees.txt:10"]
    assert [each[1] for each in said(memory)] == ["Happy new year!", "ok", "ok", "Good"]


ORDINARY = {
    "a letter.txt": "Dear Ana,\n\nthis is a letter: it tells of bees.\n\nYours,\nBen\n",
    "app.log": "2024-01-01 10:00:00 INFO: started\n2024-01-01 10:00:01 ERROR: failed\n" * 5,
    "levels.log": "[2024-01-01 10:00:00] production.ERROR: failed\n[2024-01-01 10:00:01] production.INFO: went on\n"
    * 5,
    "fields.txt": "Name: Ana\nAge: 40\nTown: Lisbon\n" * 5,
    "once.txt": "name: x\nvalue: y\nother: z\nmore: w\n",
    "dates.txt": "12/31/2023 was a Sunday.\n1/1/2024 was a Monday.\n",
    "times.txt": "10:00 breakfast\n11:00 the hives\n12:00 lunch\n",
    "quotes.txt": "<b>bold</b>\n<i>not</i>\n",
    "empty.txt": "",
    "binary.txt": "\0\1\2" * 100,
    "notes.md": ANDROID,
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_text_is_not_taken_for_a_chat(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / name, ORDINARY[name])
    assert not chatlog.recognises(file, file.read_bytes()[: archives.HEAD])


def test_a_text_without_messages_is_refused(memory: Memory, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no chat"):
        memory.import_from(written(tmp_path / "times.txt", ORDINARY["times.txt"]), "chatlog")
