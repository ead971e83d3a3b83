"""The commands about how memories hang together, through the door a user takes; and those that measure it."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from memspan.cli import main


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
def memspan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    monkeypatch.setenv("MEMSPAN_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, stdin: str = "") -> Outcome:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def ids(memspan: Run) -> list[str]:
    """Two turns of one session in "Travel / Portugal", and a note on "Home"."""
    said = [
        {"role": "user", "content": "Ana took the train to Lisbon."},
        {"role": "user", "content": "She forgot the key."},
    ]
    spoken = memspan("add", "--messages", "-", "--category", "Travel / Portugal", "--json", stdin=json.dumps(said))
    note = memspan("add", "The tomatoes want water.", "--category", "Home", "--json")
    return [*spoken.document["ids"], *note.document["ids"]]


# ------------------------------------------------------------------------------------------------------------ the tree


def test_the_tree_shows_categories_with_their_sizes_and_texts(memspan: Run, ids: list[str]) -> None:
    shown = memspan("tree", "--examples", "2")
    lines = shown.out.splitlines()
    assert (shown.code, shown.err, lines[0]) == (0, "", "everything  3")
    assert "  Travel  2" in lines
    assert "    Portugal  2" in lines
    assert "  Home  1" in lines
    assert any(line.strip() == "- The tomatoes want water." for line in lines)
    root = memspan("tree", "--json").document
    assert {child["label"]: child["segments"] for child in root["children"]} == {"Travel": 2, "Home": 1}


def test_a_part_of_the_tree_is_shown_to_the_depth_asked_for(memspan: Run, ids: list[str]) -> None:
    assert memspan("tree", "Travel > Portugal", "--json").document["path"] == ["Travel", "Portugal"]
    flat = memspan("tree", "--depth", "1", "--json").document
    assert [child["children"] for child in flat["children"]] == [[], []]
    assert memspan("tree", "Travel", "--depth", "1").out.splitlines()[:2] == ["Travel  2", "  Portugal  2"]


def test_on_a_terminal_the_tree_is_drawn_with_lines_and_hostile_labels_are_text(
    memspan: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    memspan("add", "Quiet.", "--category", "[bold]loud[red]\x1b[31m / inside")
    monkeypatch.setattr("memspan.cli.output.on_terminal", lambda: True)
    drawn = memspan("tree").out
    assert "└── [bold]loud[red]  1" in drawn
    assert "\x1b[31m" not in drawn
    assert "        └── Quiet." in drawn


def test_a_category_moves_with_all_that_is_in_it(memspan: Run, ids: list[str]) -> None:
    assert memspan("move-category", "Travel", "Archive / Trips", "--json").document == {"moved": 2}
    assert memspan("get", ids[0], "--json").document["category"] == ["Archive", "Trips", "Portugal"]
    assert memspan("stats", "--json").document["pending"] == 0
    assert memspan("move-category", "Home", "").out == "1 segment moved\n"
    assert memspan("get", ids[2], "--json").document["category"] == []
    assert len(memspan("history", ids[0], "--json").document["events"]) == 2


# ----------------------------------------------------------------------------------------------------------- the graph


def test_neighbors_come_with_the_way_that_led_to_them(memspan: Run, ids: list[str]) -> None:
    shown = memspan("neighbors", ids[0], "--kind", "next")
    strength, id, _, _, text, way = shown.out.rstrip("\n").split("\t")
    assert (0 < float(strength) <= 1, id, text) == (True, ids[1], "She forgot the key.")
    assert way == f"from {ids[0]} by next"
    (near,) = memspan("neighbors", ids[0], "--kind", "next", "--json").document["neighbors"]
    assert near["path"] == [{"id": ids[0], "kind": "next", "via": None}]


def test_what_is_linked_is_a_neighbor_until_it_is_unlinked(memspan: Run, ids: list[str]) -> None:
    stated = memspan("link", ids[1], ids[2], "--relation", "because", "--weight", "0.5", "--json")
    assert stated.document == {"source": ids[1], "target": ids[2], "kind": "because", "weight": 0.5}
    reached = memspan("neighbors", ids[0], "--kind", "next", "--kind", "because", "--hops", "2", "--json").document
    assert [near["id"] for near in reached["neighbors"]] == [ids[1], ids[2]]
    assert [step["kind"] for step in reached["neighbors"][1]["path"]] == ["next", "because"]
    assert memspan("unlink", ids[1], ids[2], "--json").document == {"removed": 1}
    assert memspan("unlink", ids[1], ids[2], "--json").code == 1
    assert memspan("neighbors", ids[2], "--kind", "because", "--json").code == 1


def test_an_explained_search_says_by_which_way_the_graph_led_to_a_hit(memspan: Run, ids: list[str]) -> None:
    hits = memspan("search", "Ana Lisbon train", "--explain", "--json").document["hits"]
    led = next(hit for hit in hits if hit["id"] == ids[1])
    assert led["path"] == [{"id": ids[0], "kind": "next", "via": None}]
    assert f"\tfrom {ids[0]} by next" in memspan("search", "Ana Lisbon train", "--explain").out.splitlines()
    assert "by next" not in memspan("search", "Ana Lisbon train").out


def test_themes_name_what_hangs_together_or_what_to_install(memspan: Run, ids: list[str]) -> None:
    told = memspan("themes", "--json")
    if told.code == 4:
        assert told.error["mend"].startswith("pip install")
    else:
        assert sum(theme["segments"] for theme in told.document["themes"]) <= 3


def test_an_active_context_keeps_its_budget_and_names_its_segments(memspan: Run, ids: list[str]) -> None:
    asked = ["active-context", "where is Ana?", "--budget", "200", "--k", "2", "--recipe", "flat"]
    packed = memspan(*asked, "--json").document
    assert packed["tokens"] <= packed["budget"] == 200
    assert 1 <= len(packed["citations"]) <= 2
    assert "Ana took the train to Lisbon." in packed["text"]
    assert memspan(*asked).out == packed["text"] + "\n"
    assert memspan("active-context", "where is Ana?", "--user", "nobody").code == 1


# --------------------------------------------------------------------------------------------------------- the pictures


def test_a_map_is_one_file_and_its_path_is_printed(memspan: Run, ids: list[str], tmp_path: Path) -> None:
    drawn = memspan("map", "--query", "Lisbon")
    assert (drawn.code, drawn.out) == (0, f"{tmp_path / 'map.html'}\n")
    assert "3 segments in" in drawn.err
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert "Ana took the train to Lisbon." in page
    report = memspan("map", "--out", "small.svg", "--json").document
    assert (report["segments"], report["hits"]) == (3, 0)
    assert Path(report["path"]).read_text(encoding="utf-8").startswith("<?xml")


@pytest.fixture
def stored(memspan: Run) -> Run:
    """Two turns of Ana's session in "Travel", and a note on "Home"."""
    said = [
        {"role": "user", "name": "Ana", "content": "I took the train to Lisbon.", "time": "2024-05-01T10:00"},
        {"role": "assistant", "content": "How was it?", "time": "2024-05-01T11:00"},
    ]
    talk = ("--messages", "-", "--category", "Travel", "--user", "ana", "--session", "trip")
    assert memspan("add", *talk, stdin=json.dumps(said)).code == 0
    assert memspan("add", "The tomatoes want water.", "--category", "Home", "--at", "2024-05-20").code == 0
    return memspan


@pytest.mark.parametrize(
    ("command", "file", "about"),
    [
        (["plot"], "plot.html", "3 points by pca, coloured by category"),
        (["plot", "--heatmap"], "heatmap.html", "3 rows of 256 dimensions"),
        (["timeline"], "timeline.html", "3 segments by the day, 1 session"),
    ],
    ids=["plot", "heatmap", "timeline"],
)
def test_a_drawing_is_one_file_and_its_path_is_printed(
    stored: Run, tmp_path: Path, command: list[str], file: str, about: str
) -> None:
    drawn = stored(*command)
    assert (drawn.code, drawn.out) == (0, f"{tmp_path / file}\n")
    assert about in drawn.err
    assert (tmp_path / file).read_text(encoding="utf-8").startswith("<!doctype html>")
    for name in ("small.svg", "small.png"):
        assert stored(*command, "--out", name).code == 0
        assert (tmp_path / name).stat().st_size > 1_000


def test_the_json_says_what_was_drawn(stored: Run, tmp_path: Path) -> None:
    points = stored("plot", "--json", "--color", "speaker").document
    assert (points["points"], points["segments"], points["method"], points["dim"]) == (3, 3, "pca", 256)
    assert points["groups"] == {"Ana": 1, "assistant": 1, "no speaker": 1}
    assert sum(points["explained"]) == pytest.approx(1, abs=1e-3)
    assert points["bytes"] == (tmp_path / "plot.html").stat().st_size
    rows = stored("plot", "--heatmap", "--json").document
    assert (rows["rows"], rows["bands"], rows["dims"]) == (3, 3, 256)
    times = stored("timeline", "--json").document
    assert (times["segments"], times["sessions"], times["unit"], times["bins"]) == (3, 1, "day", 2)
    assert (times["start"], times["end"]) == ("2024-05-01T10:00:00+00:00", "2024-05-20T00:00:00+00:00")
    assert times["groups"] == {"ana": 2, "no user": 1}


@pytest.mark.parametrize("command", [["plot"], ["plot", "--heatmap"], ["timeline"]], ids=" ".join)
def test_scopes_and_filters_hold_and_nothing_found_is_said(stored: Run, tmp_path: Path, command: list[str]) -> None:
    assert stored(*command, "--user", "ana", "--json").document["segments"] == 2
    assert stored(*command, "--session", "trip", "--filter", "category=Travel", "--json").document["segments"] == 2
    for scope in (["--namespace", "nobody"], ["--user", "ben"], ["--filter", "category=Nowhere"]):
        told = stored(*command, *scope, "--out", "absent.html", "--json")
        assert (told.code, told.out) == (1, "")
        assert "nothing to draw" in told.error["message"]
    assert not (tmp_path / "absent.html").exists()


@pytest.mark.parametrize("command", [["map"], ["plot"], ["plot", "--heatmap"], ["timeline"]], ids=" ".join)
def test_a_picture_without_its_library_is_a_missing_package(
    stored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = stored(*command, "--out", "it.png", "--json")
    assert (told.code, told.error["mend"]) == (4, 'pip install "memspan[pictures]"')
    assert not (tmp_path / "it.png").exists()
    assert stored(*command).code == 0


def test_the_commands_of_the_documentation_run(stored: Run, tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs/pictures.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    examples = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    assert len(examples) >= 5
    for example in examples:
        program, *arguments = shlex.split(example.removeprefix("$ "))
        assert program == "memspan"
        if "umap" not in arguments or importlib.util.find_spec("umap"):
            assert stored(*arguments).code == 0, example


def test_a_store_without_an_encoder_has_a_timeline_and_no_plot(memspan: Run) -> None:
    assert memspan("add", "Only words.", "--encoder", "none").code == 0
    told = memspan("plot", "--json")
    assert told.code == 1
    assert "no encoder" in told.error["message"]
    assert "memspan rebuild" in told.error["mend"]
    assert memspan("timeline").code == 0


# ----------------------------------------------------------------------------------------------------------- mistakes


ABSENT = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.mark.parametrize(
    ("arguments", "code", "argument"),
    [
        (["tree", "--depth", "0"], 2, "depth"),
        (["neighbors", ABSENT], 1, None),
        (["neighbors", "ID", "--hops", "9"], 2, "hops"),
        (["neighbors", "ID", "--kind", " "], 2, "kinds"),
        (["link", ABSENT, ABSENT], 2, "b"),
        (["link", ABSENT, ABSENT[:-1] + "8"], 1, None),
        (["link", ABSENT, ABSENT[:-1] + "8", "--relation", "next"], 2, "relation"),
        (["link", ABSENT, ABSENT[:-1] + "8", "--weight", "2"], 2, "weight"),
        (["move-category", "Nowhere", "Somewhere"], 1, None),
        (["move-category", "Home", "Home / Inside"], 2, "new"),
        (["active-context", "x", "--budget", "1"], 2, "budget"),
        (["map", "--out", "map.pdf"], 2, "path"),
        (["map", "--out", "absent/map.html"], 2, "path"),
        (["plot", "--out", "plot.pdf"], 2, "path"),
        (["plot", "--color", "mood"], 2, "color"),
        (["plot", "--method", "tsne"], 2, "method"),
        (["plot", "--heatmap", "--color", "time"], 2, "--heatmap"),
        (["plot", "--heatmap", "--method", "umap"], 2, "--heatmap"),
        (["plot", "--heatmap", "--out", "absent/heat.html"], 2, "path"),
        (["plot", "--filter", "?"], 2, "--filter"),
        (["timeline", "--out", "time"], 2, "path"),
        (["timeline", "--color", "session"], 2, "color"),
        (["bench", "recall", "all", "--data", ".", "--cache", "c", "--recipe", "default,best"], 2, "recipe"),
        (["bench", "recall", "all", "--data", "absent", "--cache", "c"], 2, "data"),
        (["bench", "recall", "all", "--data", ".", "--cache", "c"], 2, "data"),
        (["bench", "recall", "imagenet", "--data", ".", "--cache", "c"], 2, "name"),
        (["bench", "recall", ",", "--data", ".", "--cache", "c"], 2, "names"),
        (["bench", "recall", "all", "--data", ".", "--cache", "."], 2, "cache"),
        (["bench", "recall", "all", "--data", ".", "--cache", "c", "--jobs", "0"], 2, "jobs"),
        (["bench", "needle", "--tokens", "many"], 2, "--tokens"),
        (["bench", "needle", "--needles", "1"], 2, "needles"),
        (["bench", "writes", "--sizes", ""], 2, "--sizes"),
        (["bench", "routing", "--vectors", "absent.npy"], 2, "vectors"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_with_its_mend(
    memspan: Run, ids: list[str], arguments: list[str], code: int, argument: str | None
) -> None:
    told = memspan(*(ids[0] if word == "ID" else word for word in arguments), "--json")
    assert (told.code, told.out) == (code, ""), told
    assert told.error["message"]
    assert told.error["mend"]
    if argument:
        assert told.error["argument"] == argument


def test_looking_never_creates_a_store(memspan: Run, tmp_path: Path) -> None:
    for command in (
        ["tree"],
        ["themes"],
        ["map"],
        ["plot"],
        ["timeline"],
        ["neighbors", ABSENT],
        ["link", "a", "b"],
        ["move-category", "a", "b"],
    ):
        assert memspan(*command, "--store", "mistyped").code == 3
    assert not (tmp_path / "mistyped").exists()
    assert not list(tmp_path.glob("*.html"))


# ----------------------------------------------------------------------------------------------------------- measuring


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A LoCoMo of three turns and a HotpotQA of six passages, one question each."""
    turns = [
        {"speaker": "Ana", "dia_id": f"D1:{n}", "text": text}
        for n, text in enumerate(["I moved to Lisbon.", "The flat is small.", "Ben has the key."], 1)
    ]
    questions = [{"question": "Where did Ana move?", "answer": "Lisbon", "evidence": ["D1:1"], "category": 4}]
    passages = {f"Town {n}": [f"Town {n} lies on river {n}."] for n in range(6)}
    facts = [["Town 0", 0], ["Town 1", 0]]
    for name, content in {
        "locomo/locomo10": [{"sample_id": "one", "conversation": {"session_1": turns}, "qa": questions}],
        "hipporag/hotpotqa": [{"question": "On which rivers do Town 0 and Town 1 lie?", "supporting_facts": facts}],
        "hipporag/hotpotqa_corpus": passages,
    }.items():
        file = tmp_path / "data" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")
    return tmp_path / "data"


def test_recall_is_measured_for_the_sets_and_recipes_named(memspan: Run, data: Path, tmp_path: Path) -> None:
    always = ["--data", data, "--cache", tmp_path / "cache", "--jobs", 1]
    written = {option: tmp_path / "results" / option for option in ("--markdown", "--plot", "--ranks")}
    files = [word for pair in written.items() for word in pair]
    command = ["bench", "recall", "hotpotqa,locomo", "--recipe", "flat,keyword", "--no-ablate"]
    report = memspan(*command, *always, *files, "--json").document
    assert list(report["sets"]) == ["hotpotqa", "locomo", "locomo by session"]
    assert list(report["sets"]["locomo"]["results"]) == ["flat", "keyword", "dense", "bm25", "rrf"]
    assert all(file.read_text(encoding="utf-8") for file in written.values())
    shown = memspan("bench", "recall", "all", *always).out
    assert "musique was skipped, as it is not there: put musique*.json" in shown
    assert "default-next" in shown
    told = memspan("bench", "recall", "locomo", *always, "--plot", data / "locomo" / "locomo10.json" / "p", "--json")
    assert (told.code, told.error["argument"]) == (2, "--plot")


def test_needles_are_hidden_in_the_lengths_and_asked_with_the_recipes_named(memspan: Run, tmp_path: Path) -> None:
    options = ["--tokens", "2_000,4_000", "--needles", "4", "--depths", "2", "--recipe", "flat,keyword"]
    report = memspan("bench", "needle", *options, "--json").document
    assert [entry["asked_for"] for entry in report["lengths"]] == [2_000, 4_000]
    assert set(report["lengths"][0]["results"]) >= {"memspan flat", "memspan keyword"}


def test_writes_are_timed_at_the_sizes_named(memspan: Run) -> None:
    report = memspan("bench", "writes", "--sizes", "1_000", "--json").document
    assert list(report["sizes"]) == ["1000"]
    assert report["ratio"] == 1
