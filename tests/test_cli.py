"""The command line, through the door a user takes: arguments in; stdout, stderr and an exit code out."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from memspan import Memory
from memspan.cli import main
from memspan.cli.output import clean, line
from memspan.config import Config
from memspan.errors import InvalidInput


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err)["error"]


Run = Callable[..., Outcome]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that holds everything this user has, and no settings but the encoder without a model."""
    for name in [name for name in os.environ if name.startswith("MEMSPAN_")]:
        monkeypatch.delenv(name)
    for name in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    monkeypatch.setenv("MEMSPAN_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def memspan(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object, stdin: str | bytes = "") -> Outcome:
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)

    return run


def spawn(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    code = "from memspan.cli import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **options)


# ----------------------------------------------------------------------------------------------- storing and recalling


def test_what_was_added_is_found(memspan: Run) -> None:
    added = memspan("add", "I moved to Lisbon in May.", "--user", "ana", "--at", "2026-05-30", "--json")
    assert (added.code, added.err, added.document["added"]) == (0, "", 1)
    found = memspan("search", "who", "moved", "to", "Lisbon?", "--user", "ana", "--json").document["hits"]
    assert [hit["id"] for hit in found] == added.document["ids"]
    assert found[0]["occurred_at"] == "2026-05-30T00:00:00+00:00"
    assert 0 <= found[0]["score"] <= 1


def test_the_same_text_again_is_counted_not_copied(memspan: Run) -> None:
    memspan("add", "Water the plants.")
    again = memspan("add", "Water the plants.")
    assert "1 already there" in again.err
    assert len(memspan("list", "--json").document["segments"]) == 1


@pytest.mark.parametrize("argument", [(), ("-",)])
def test_a_text_can_be_piped_in(memspan: Run, argument: tuple[str, ...]) -> None:
    assert memspan("add", *argument, stdin="Ana lives in Lisbon.\n").code == 0
    assert "Ana lives in Lisbon." in memspan("search", *argument, stdin="where does Ana live?").out


def test_a_conversation_keeps_speakers_and_times(memspan: Run, home: Path) -> None:
    messages = [
        {"role": "user", "name": "Ana", "content": "Where is the key?", "time": "2026-05-30T10:00:00Z"},
        {"role": "assistant", "content": "Behind the blue door.", "time": "2026-05-30T10:01:00Z"},
    ]
    (home / "chat.json").write_text(json.dumps({"messages": messages}), encoding="utf-8")
    assert memspan("add", "--messages", "chat.json", "--session", "s1").code == 0
    kept = memspan("list", "--session", "s1", "--json").document["segments"]
    assert (kept[0]["speaker"], kept[0]["role"]) == ("Ana", "user")
    assert kept[1]["occurred_at"] == "2026-05-30T10:01:00+00:00"
    again = memspan("add", "--messages", "-", "--session", "s1", "--json", stdin=json.dumps(messages)).document
    assert (again["added"], again["repeated"]) == (0, 2)


def test_a_context_piped_out_is_exactly_the_text_that_was_counted(memspan: Run) -> None:
    memspan("add", "I moved to Lisbon in May.")
    whole = memspan("context", "where?", "--budget", "300", "--json").document
    assert memspan("context", "where?", "--budget", "300").out == whole["text"] + "\n"
    assert whole["tokens"] <= whole["budget"] == 300


def test_scopes_and_filters_narrow_a_search(memspan: Run) -> None:
    memspan("add", "Flight to Porto.", "--user", "ana", "--meta", "topic=travel", "--meta", "cost=120")
    memspan("add", "Table for two.", "--user", "ana", "--meta", '{"topic": "food", "cost": 80}')
    memspan("add", "Flight to Rome.", "--user", "ben", "--meta", "topic=travel", "--meta", "cost=90")

    def texts(*options: str) -> set[str]:
        listed = memspan("list", "--json", *options).document["segments"]
        return {one["text"] for one in listed}

    assert texts("--user", "ben") == {"Flight to Rome."}
    assert texts("--filter", "topic=travel", "--filter", "cost<100") == {"Flight to Rome."}
    assert texts("--filter", '{"OR": [{"topic": "food"}, {"cost": {"lt": 100}}]}') == {
        "Table for two.",
        "Flight to Rome.",
    }
    assert texts("--filter", "text~flight", "--filter", "user_id=ana") == {"Flight to Porto."}
    assert texts("--namespace", "elsewhere") == set()


def test_a_list_goes_on_where_it_stopped(memspan: Run) -> None:
    for number in range(5):
        memspan("add", f"Memory number {number}.")
    first = memspan("list", "--limit", "3", "--json").document
    second = memspan("list", "--limit", "3", "--after", first["after"], "--json").document
    assert [one["text"] for one in first["segments"] + second["segments"]] == [f"Memory number {n}." for n in range(5)]
    assert second["after"] is None


def test_an_update_makes_a_version_and_history_shows_both(memspan: Run) -> None:
    id = memspan("add", "Ana lives in Porto.", "--json").document["ids"][0]
    assert memspan("update", id, "Ana lives in Lisbon.", "--json").document["version"] == 2
    events = memspan("history", id, "--json").document["events"]
    assert [(event["event"], event["text"]) for event in events] == [
        ("ADD", "Ana lives in Porto."),
        ("UPDATE", "Ana lives in Lisbon."),
    ]
    assert memspan("get", id, "--json").document["text"] == "Ana lives in Lisbon."


def test_the_old_names_for_the_verbs_work(memspan: Run) -> None:
    id = memspan("remember", "Ana lives in Lisbon.").out.strip()
    assert id in memspan("recall", "where does Ana live?").out
    assert memspan("forget", id).code == 0
    assert memspan("get", id).code == 1


# ------------------------------------------------------------------------------------------------------------ deleting


def test_a_deletion_counts_and_names_what_it_did_not_find(memspan: Run) -> None:
    id = memspan("add", "Forget me.", "--json").document["ids"][0]
    unknown = "01890a5d-ac96-774b-bcce-b302099a8057"
    assert memspan("delete", id, unknown, "--json") == (1, memspan_json({"deleted": 1, "not_found": [unknown]}), "")
    assert memspan("list", "--json").document["segments"] == []


def memspan_json(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        (["delete"], "--all"),
        (["delete", "--all"], "--all"),
        (["delete", "--all", "--yes"], "--all"),
        (["delete", "--all", "--user", "ana"], "--yes"),
        (["delete", "some-id", "--all", "--user", "ana"], "--all"),
        (["delete", "some-id", "--user", "ana"], "ID"),
    ],
)
def test_a_deletion_that_is_not_meant_deletes_nothing(memspan: Run, arguments: list[str], argument: str) -> None:
    memspan("add", "Keep me.", "--user", "ana")
    refused = memspan(*arguments, "--json")
    assert (refused.code, refused.out, refused.error["argument"]) == (2, "", argument)
    assert len(memspan("list", "--json").document["segments"]) == 1


def test_deleting_a_scope_leaves_the_others(memspan: Run) -> None:
    memspan("add", "Of Ana.", "--user", "ana")
    memspan("add", "Of Ben.", "--user", "ben")
    assert memspan("delete", "--all", "--user", "ana", "--yes", "--json").document == {"deleted": 1, "not_found": []}
    assert [one["text"] for one in memspan("list", "--json").document["segments"]] == ["Of Ben."]


# ----------------------------------------------------------------------------------------------------------- ingesting


@pytest.fixture
def papers(home: Path) -> Path:
    folder = home / "papers"
    (folder / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "garden.md").write_text("# Garden\n\nTomatoes want water every evening.\n", encoding="utf-8")
    (folder / "deep" / "trains.txt").write_text("The train to Porto leaves at nine.\n", encoding="utf-8")
    (folder / ".hidden" / "secret.txt").write_text("Not to be read.\n", encoding="utf-8")
    (folder / ".env").write_text("KEY=value\n", encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0\0")
    (folder / "nothing.txt").write_bytes(b"")
    return folder


def test_a_directory_is_ingested_without_what_is_hidden_or_binary(memspan: Run, papers: Path) -> None:
    report = memspan("ingest", papers, "--json")
    assert (report.code, report.err) == (0, "")
    assert {name: report.document[name] for name in ("stored", "unchanged", "left", "pending")} == {
        "stored": 2,
        "unchanged": 0,
        "left": 0,
        "pending": 0,
    }
    assert set(report.document["skipped"]) == {str(papers / "picture.png"), str(papers / "nothing.txt")}
    texts = " ".join(one["text"] for one in memspan("list", "--json").document["segments"])
    assert "Tomatoes" in texts
    assert "Porto" in texts
    assert "Not to be read" not in texts


def test_ingesting_again_passes_over_what_is_unchanged_and_replaces_what_changed(memspan: Run, papers: Path) -> None:
    memspan("ingest", papers)
    (papers / "garden.md").write_text("# Garden\n\nRoses want pruning in March.\n", encoding="utf-8")
    again = memspan("ingest", papers, "--json").document
    assert (again["stored"], again["unchanged"]) == (1, 1)
    texts = " ".join(one["text"] for one in memspan("list", "--json").document["segments"])
    assert "Roses" in texts
    assert "Tomatoes" not in texts


def test_a_pattern_chooses_files(memspan: Run, papers: Path) -> None:
    report = memspan("ingest", papers, "--glob", "*.md", "--json").document
    assert (report["stored"], report["skipped"]) == (1, {})


def test_one_bad_file_does_not_stop_the_others(memspan: Run, papers: Path) -> None:
    report = memspan("ingest", papers / "absent.txt", papers, "--json")
    assert (report.code, report.document["stored"]) == (1, 2)
    assert str(papers / "absent.txt") in report.document["skipped"]


def test_ctrl_c_keeps_what_is_stored_and_the_next_run_goes_on(memspan: Run, home: Path) -> None:
    folder = home / "many"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03}.txt").write_text(f"Note {number}: " + "remember the milk. " * 400, encoding="utf-8")
    child = spawn("ingest", folder, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ledger = home / "store" / "ledger.db"
    while child.poll() is None and not (ledger.exists() and count(memspan) > 0):
        pass
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    first = json.loads(out)
    assert first["interrupted"]
    assert first["left"] + first["pending"] > 0
    assert "again to go on" in err
    second = memspan("ingest", folder, "--json").document
    assert second["unchanged"] >= first["stored"]
    assert second["stored"] + second["unchanged"] == 200
    assert second["pending"] == 0
    assert memspan("verify").code == 0


def count(memspan: Run) -> int:
    listed = memspan("list", "--limit", "1", "--json")
    return len(listed.document["segments"]) if listed.code == 0 else 0


# ----------------------------------------------------------------------------------------------------- care of a store


def test_stats_print_where_the_store_is(memspan: Run, home: Path) -> None:
    memspan("add", "One.")
    stats = memspan("stats", "--json").document
    assert stats["path"] == str(home / "store")
    assert stats["segments"] == 1
    assert str(home / "store") in memspan("stats").out


def test_a_store_is_moved_to_another_model_and_says_what_it_did(memspan: Run) -> None:
    memspan("add", "The key hangs behind the door.", "--encoder", "hash:64")
    report = memspan("reencode", "--encoder", "hash:128", "--json")
    assert report.code == 0
    assert json.loads(report.out) == {"encoder": "hash-128", "tokens": "none", "encoded": 1}
    assert json.loads(memspan("reencode", "--json").out)["encoded"] == 0
    assert json.loads(memspan("stats", "--json").out)["encoder"]["id"] == "hash-128"
    assert memspan("search", "where is the key", "--json").document["hits"][0]["text"].startswith("The key")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("reencode", "--tokens", "2bit"), 2, "give auto, none, 1bit, 4bit, int8, f16"),
        (("reencode", "--tokens", "1bit"), 2, "no projection of token activations comes with memspan"),
        (("fit-tokens",), 4, "gives no token activations"),
        (("fit-tokens", "--dims", "7"), 2, "a multiple of 8"),
    ],
)
def test_a_level_or_projection_that_cannot_be_had_is_refused_with_what_can(
    memspan: Run, arguments: tuple[str, ...], code: int, told: str
) -> None:
    memspan("add", "The key hangs behind the door.")
    refused = memspan(*arguments)
    assert refused.code == code
    assert told in refused.err
    assert memspan("search", "where is the key").code == 0


def test_compact_verify_and_rebuild_leave_every_answer(memspan: Run) -> None:
    for number in range(20):
        memspan("add", f"Memory number {number}.")
    before = memspan("search", "memory number 7", "--json").document["hits"]
    assert memspan("compact", "--json").code == 0
    assert memspan("verify", "--json").document["ok"] is True
    assert memspan("rebuild", "--json").code == 0
    assert [hit["id"] for hit in memspan("search", "memory number 7", "--json").document["hits"]] == [
        hit["id"] for hit in before
    ]


def test_the_doctor_takes_the_real_path_and_looks_at_the_store(memspan: Run) -> None:
    memspan("add", "One.")
    seen = memspan("doctor", "--json")
    assert seen.code == 0, seen.out
    names = [check["name"] for check in seen.document["checks"]]
    for name in ("python", "sqlite", "fts5", "encoder", "search", "context", "verify", "directory", "disk", "store"):
        assert name in names
    assert "All is well." in memspan("doctor").out


def test_the_doctor_fails_and_says_what_to_do(memspan: Run, home: Path) -> None:
    (home / "store").mkdir()
    (home / "store" / "letter.txt").write_text("not a store", encoding="utf-8")
    seen = memspan("doctor", "--json")
    failed = [check for check in seen.document["checks"] if not check["ok"]]
    assert (seen.code, [check["name"] for check in failed]) == (1, ["store"])
    assert failed[0]["mend"]


# ------------------------------------------------------------------------------------------------- errors a user makes


@pytest.mark.parametrize(
    ("arguments", "code", "argument"),
    [
        (["add", "   "], 2, "content"),
        (["add", "x", "--importance", "1.5"], 2, "importance"),
        (["add", "x", "--importance", "nan"], 2, "importance"),
        (["add", "x", "--at", "yesterday"], 2, "occurred_at"),
        (["add", "x", "--meta", "color"], 2, "--meta"),
        (["add", "--messages", "absent.json"], 2, "--messages"),
        (["add", "x", "--messages", "-"], 2, "--messages"),
        (["search", "x", "-k", "0"], 2, "k"),
        (["search", "x", "--filter", "color"], 2, "--filter"),
        (["search", "x", "--filter", '{"color": {"near": 1}}'], 2, "filters.color"),
        (["search", "x", "--as-of", "32 May"], 2, "as_of"),
        (["search", "x", "--k", "many"], 2, "--k"),
        (["search", "x", "--nonsense"], 2, None),
        (["nonsense"], 2, None),
        (["context", "x", "--budget", "1"], 2, "budget"),
        (["context", "x", "--tokenizer", "absent.json"], 2, "tokenizer"),
        (["update", "01890a5d-ac96-774b-bcce-b302099a8057"], 2, "TEXT"),
        (["update", "01890a5d-ac96-774b-bcce-b302099a8057", "new"], 1, None),
        (["get", "01890a5d-ac96-774b-bcce-b302099a8057"], 1, None),
        (["get", "--document", "01890a5d-ac96-774b-bcce-b302099a8057"], 1, None),
        (["stats", "--store", "absent"], 3, None),
        (["bench", "recall", "all", "--data", "absent", "--cache", "c"], 2, "data"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_with_its_mend_and_no_traceback(
    memspan: Run, arguments: list[str], code: int, argument: str | None
) -> None:
    memspan("add", "Something is there.")
    told = memspan(*arguments)
    assert told.code == code, told
    assert told.out == ""
    assert told.err.startswith("Error: ")
    assert "\nMend:  " in told.err
    assert "Traceback" not in told.err
    as_json = memspan(*arguments, "--json")
    assert (as_json.code, as_json.out) == (code, "")
    assert as_json.error["message"]
    assert as_json.error["mend"]
    if argument:
        assert as_json.error["argument"] == argument


def test_reading_never_creates_a_store(memspan: Run, home: Path) -> None:
    for command in (["search", "x"], ["list"], ["stats"], ["verify"], ["compact"], ["rebuild"], ["context", "x"]):
        assert memspan(*command, "--store", "mistyped").code == 3
    assert not (home / "mistyped").exists()


def test_a_directory_that_is_no_store_is_refused_and_left_alone(memspan: Run, home: Path) -> None:
    (home / "letters").mkdir()
    (home / "letters" / "a.txt").write_text("Dear Ana", encoding="utf-8")
    assert memspan("add", "x", "--store", "letters").code == 3
    assert [file.name for file in (home / "letters").iterdir()] == ["a.txt"]


def test_nothing_found_is_exit_code_one(memspan: Run) -> None:
    memspan("add", "Ana lives in Lisbon.")
    found = memspan("search", "Lisbon", "--user", "nobody", "--json")
    assert (found.code, found.document["hits"]) == (1, [])
    assert memspan("context", "Lisbon", "--user", "nobody").code == 1


def test_a_debugging_user_sees_the_traceback(memspan: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSPAN_DEBUG", "1")
    assert "Traceback" in memspan("stats", "--store", "absent").err


def test_help_explains_every_command(memspan: Run) -> None:
    top = memspan("--help")
    assert (top.code, memspan().out) == (0, top.out)
    for name in (
        "add",
        "ingest",
        "search",
        "context",
        "list",
        "get",
        "update",
        "delete",
        "history",
        "stats",
        "compact",
    ):
        assert name in top.out
        assert "Usage: memspan" in memspan(name, "--help").out
    for name in ("verify", "rebuild", "doctor", "demo", "bench"):
        assert name in top.out
        assert memspan(name, "--help").code == 0
    assert "remember" not in top.out
    assert "Exit codes" in top.out


# ----------------------------------------------------------------------------------------------------- what is printed


def test_stored_text_cannot_drive_the_terminal() -> None:
    hostile = "\x1b]0;owned\x07\x1b[31mred\x1b[0m [bold]b[/bold] \x9b2J \u202egnp.exe \x00 tab\tend\r\n"
    assert clean(hostile) == "red [bold]b[/bold] 2J gnp.exe  tab\tend\n"
    assert line("two\nlines   here", 8) == "two lin…"


def test_json_is_safe_to_print_and_reads_back_as_it_was(memspan: Run) -> None:
    text = "\x1b[31mred\x9b2J \u202egnp \u4f60\u597d"
    id = memspan("add", stdin=text).out.strip()
    shown = memspan("get", id, "--json")
    assert shown.document["text"] == text
    assert not set(shown.out) & set("\x1b\x9b\u202e")
    assert "\u4f60\u597d" in shown.out


def test_piped_hits_are_one_line_each(memspan: Run) -> None:
    memspan("add", "First line.\nSecond line.")
    score, id, time, _, text = memspan("search", "line").out.rstrip("\n").split("\t")
    assert 0 <= float(score) <= 1
    assert (len(id), time[4], text) == (36, "-", "First line. Second line.")


def test_a_reader_that_leaves_early_is_no_error(memspan: Run, home: Path) -> None:
    turns = [{"role": "user", "content": f"Memory number {number}. " + "word " * 100} for number in range(50)]
    (home / "turns.json").write_text(json.dumps(turns), encoding="utf-8")
    memspan("add", "--messages", home / "turns.json")
    with spawn("list", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stderr
        child.stdout.close()
        assert (child.stderr.read(), child.wait(60)) == ("", 0)


# ------------------------------------------------------------------------------------------------------------ the demo


def test_the_demo_answers_five_questions_and_is_quick_the_second_time(memspan: Run, home: Path) -> None:
    first = memspan("demo", "--store", home / "demo", "--json").document
    assert first["tokens"] > 100_000
    assert first["new"] == first["documents"] > 100
    assert len(first["answers"]) == 5
    for answer in first["answers"]:
        assert answer["citations"]
        assert answer["tokens"] <= answer["budget"]
    again = memspan("demo", "--store", home / "demo")
    assert (again.code, again.err) == (0, "")
    assert "(0 new" in again.out
    command = next(text for text in again.out.splitlines() if text.startswith("  memspan search"))
    assert str(home / "demo") in command
    found = memspan("search", "sort a dictionary", "--store", home / "demo", "--json")
    assert found.document["hits"]


# ------------------------------------------------------------------------------------------------------------ settings


def test_an_option_beats_a_variable_beats_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMSPAN_STORE")
    assert Config.load().store == home / "data" / "memspan" / "default"
    file = home / "config" / "memspan" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('namespace = "of the file"\nstore = "~/of-the-file"\n', encoding="utf-8")
    assert Config.load().namespace == "of the file"
    assert Config.load().store == Path.home() / "of-the-file"
    monkeypatch.setenv("MEMSPAN_NAMESPACE", "of the variable")
    assert Config.load(namespace=None).namespace == "of the variable"
    assert Config.load(namespace="of the option").namespace == "of the option"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("store = ", "is not TOML"),
        ("colour = 'red'", "colour in"),
        ("namespace = 5", "namespace in"),
        ("namespace = ''", "namespace in"),
        ("encoder = ' '", "encoder in"),
    ],
)
def test_a_bad_file_is_told_with_its_key(home: Path, content: str, named: str) -> None:
    file = home / "settings.toml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput) as told:
        Config.load({"MEMSPAN_CONFIG": str(file)})
    assert named in str(told.value)
    assert str(file) in str(told.value)
    assert told.value.mend


def test_a_bad_variable_is_told_by_its_name(home: Path) -> None:
    with pytest.raises(InvalidInput, match="MEMSPAN_ENCODER"):
        Config.load({"MEMSPAN_ENCODER": "  "})
    with pytest.raises(InvalidInput, match="MEMSPAN_CONFIG"):
        Config.load({"MEMSPAN_CONFIG": str(home / "absent.toml")})
    assert Config.load({"MEMSPAN_NAMESPACE": ""}).namespace == "default"


# ---------------------------------------------------------------------------------------------------------- learning


@pytest.fixture
def judged(home: Path) -> list[dict[str, Any]]:
    """Judgements of twelve questions to which the important one of three notes is the useful one."""
    said = []
    with Memory(home / "store") as memory:
        for number in range(12):
            for place in range(3):
                useful = place == number % 3
                text = f"shelf{number} {'paper ' * place}note {place}"
                (id,) = memory.add(text, importance=0.9 if useful else 0.1).ids
                said.append({"query": f"what of shelf{number}?", "id": id, "useful": useful})
    return said


def test_feedback_is_learned_from_and_undone(memspan: Run, home: Path, judged: list[dict[str, Any]]) -> None:
    lines = "\n".join(json.dumps(each) for each in judged[3:])
    (home / "said.jsonl").write_text(f"\ufeff{lines}\n\n", encoding="utf-8")
    for each in judged[:3]:
        flag = [] if each["useful"] else ["--useless"]
        told = memspan("feedback", each["query"], each["id"], *flag)
        assert (told.code, told.out) == (0, f"{each['id']} was of {'use' if each['useful'] else 'no use'}\n")
    dry = memspan("tune", "--judgements", "said.jsonl", "--dry-run", "--json").document
    assert (dry["better"], dry["applied"], dry["questions"], dry["judgements"]) == (True, False, 12, 36)
    assert memspan("stats", "--json").document["judgements"] == 3
    done = memspan("tune", "--judgements", "said.jsonl")
    assert (done.code, done.err) == (0, "")
    assert re.search(r"(?m)^Judged +36 judgements of 12 questions$", done.out)
    assert re.search(r"(?m)^nDCG@10 after +1\.000  \(\+0\.\d{3}, with a standard error of 0\.\d{3};", done.out)
    assert re.search(r"(?m)^Learned +importance \+\d\.\d", done.out)
    assert "memspan tune --undo" in done.out
    assert "importance" in memspan("stats").out
    assert memspan("tune", "--undo", "--json").document == {"undone": True}
    again = memspan("tune", "--undo")
    assert (again.code, again.out) == (1, "Nothing was learned here: nothing to undo.\n")
    assert memspan("feedback", judged[0]["query"], judged[0]["id"], "--forget", "--json").document["useful"] is None
    assert memspan("stats", "--json").document["judgements"] == 35


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"query": "q", "id": ', "said.jsonl:38"),
        ('["q", "x"]', "said.jsonl:38"),
        ('{"query": "q"}', "said.jsonl:38"),
        ('{"query": "q", "id": "x", "useful": "yes"}', "said.jsonl:38.useful"),
        ('{"query": "", "id": "x"}', "said.jsonl:38.query"),
        ('{"query": "q", "id": "x"}', None),
    ],
)
def test_a_wrong_line_of_judgements_is_named_and_none_is_kept(
    memspan: Run, home: Path, judged: list[dict[str, Any]], line: str, named: str | None
) -> None:
    lines = [*(json.dumps(each) for each in judged), "", line]
    (home / "said.jsonl").write_text("\n".join(lines), encoding="utf-8")
    told = memspan("tune", "--judgements", "said.jsonl", "--json")
    assert (told.code, told.error["argument"]) == ((1, None) if named is None else (2, named))
    assert memspan("stats", "--json").document["judgements"] == 0


def test_what_cannot_be_learned_from_is_refused(memspan: Run, judged: list[dict[str, Any]]) -> None:
    few = memspan("tune")
    assert few.code == 2
    assert "0 questions with a useful segment, and 10 are needed" in few.err
    assert memspan("tune", "--undo", "--dry-run").code == 2
    assert memspan("tune", "--judgements", "absent.jsonl").code == 2
    assert memspan("feedback", "q", judged[0]["id"], "--useless", "--forget").code == 2
    assert memspan("feedback", "q", "no-such-id").code == 1
