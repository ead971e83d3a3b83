"""Bulk ingest on a real Ray cluster of two nodes: the same as one by one, once and only once, whoever dies."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulk.conftest import Driver, Nodes
from bulk.encoders import Counting, Dying, DyingReader, Elsewhere, Refusing, counted
from memspan import Memory
from memspan.bulk import BulkMemory, Columns
from memspan.cli import main
from memspan.errors import EncoderMismatch, InvalidInput, MissingExtra
from memspan.records import Segment
from memspan.reports import Ingested

QUESTIONS = ("When do the tomatoes want water?", "kettle 17", "the harbour at noon")


def text(number: int) -> str:
    return f"Note {number}: the kettle {number * 7} stands in room {number % 13} by the harbour."


def write_lines(file: Path, rows: list[Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_parquet(file: Path, rows: list[dict[str, Any]], group: int) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=group)
    return file


def last(steps: Iterator[Ingested]) -> Ingested:
    *_, done = steps
    return done


def texts(memory: Memory) -> Counter[str]:
    return Counter(segment.text for segment in memory.get_all(limit=100_000))


def said(segment: Segment) -> tuple[Any, ...]:
    """What a segment says, without what is its own in each store."""
    return (
        segment.text,
        segment.gap,
        segment.heading,
        segment.document_id,
        segment.position,
        segment.source,
        segment.kind,
        segment.category,
        dict(segment.metadata),
        segment.occurred_at,
        segment.user_id,
        segment.repeats,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two documents and two tables."""
    folder = tmp_path / "folder"
    folder.mkdir()
    garden = "# Garden\n\nThe tomatoes want water every evening.\n\n## Tools\n\nThe spade is in the shed.\n"
    (folder / "garden.md").write_text(garden, encoding="utf-8")
    (folder / "long.txt").write_text(" ".join(text(n) for n in range(300)), encoding="utf-8")
    rows = [{"text": text(n), "place": f"room {n}", "when": f"2026-05-{n % 28 + 1:02}", "other": 1} for n in range(300)]
    write_lines(folder / "rows.jsonl", [*rows, rows[0]])
    write_parquet(folder / "rows.parquet", [{**row, "text": f"{row['text']} Again."} for row in rows[:60]], group=40)
    return folder


def test_files_and_tables_land_as_if_they_were_added_one_by_one(cluster: str, folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.iterdir())
    columns = Columns(metadata=("place",), time="when")
    common: dict[str, Any] = {"category": "Notes", "user_id": "ana"}
    with BulkMemory(tmp_path / "bulk", encoder="hash") as bulk, Memory(tmp_path / "single", encoder="hash") as single:
        done = last(bulk.ingest(files, ray=cluster, columns=columns, metadata={"from": "x"}, **common))
        for file in files[:2]:
            single.add_file(file, metadata={"from": "x"}, **common)
        rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
        for row in [*rows, *({**row, "text": f"{row['text']} Again."} for row in rows[:60])]:
            about = {"from": "x", "place": row["place"]}
            single.add(row["text"], metadata=about, occurred_at=row["when"], **common)
        ours, theirs = (memory.get_all(limit=10_000) for memory in (bulk, single))
        assert [said(segment) for segment in ours] == [said(segment) for segment in theirs]
        for question in QUESTIONS:
            found, expected = (memory.search(question, user_id="ana") for memory in (bulk, single))
            assert [(hit.text, round(hit.score, 6)) for hit in found] == [
                (hit.text, round(hit.score, 6)) for hit in expected
            ]
        assert (done.read, done.segments, done.repeated) == (2 + 301 + 60, len(theirs), 1)
        assert (done.done, done.unchanged, done.failed, done.pending) == (done.parts, 0, 0, 0)
        assert bulk.stats()["pending"] == 0
        assert bulk.verify()["ok"]


def test_what_was_taken_in_is_passed_over_and_only_what_is_new_is_encoded(
    cluster: str, folder: Path, tmp_path: Path
) -> None:
    files = sorted(folder.iterdir())
    (counts := tmp_path / "counts").mkdir()
    with BulkMemory(tmp_path / "store", encoder=Counting(counts)) as memory:
        first = last(memory.ingest(files, ray=cluster, encoders=1))
        assert max(counted(counts).values()) == 1
        second = last(memory.ingest(files, ray=cluster, encoders=1))
        assert (second.segments, second.repeated, second.encoded) == (0, 0, 0)
        assert second.unchanged == second.read == first.read
        garden = folder / "garden.md"
        changed = garden.read_text(encoding="utf-8").replace("shed", "barn")
        garden.write_text(changed, encoding="utf-8")
        third = last(memory.ingest(files, ray=cluster, encoders=1))
        assert third.read - third.unchanged == 1
        assert max(counted(counts).values()) == 1
        assert memory.search("spade", k=1)[0].text.endswith("The spade is in the barn.")
        assert not any("shed" in each for each in texts(memory))


def test_a_row_with_an_id_replaces_what_came_by_that_id(cluster: str, tmp_path: Path) -> None:
    table, columns = tmp_path / "rows.jsonl", Columns(text="body", id="key")
    with BulkMemory(tmp_path / "store", encoder="hash") as memory:
        write_lines(table, [{"key": n, "body": text(n)} for n in range(20)])
        assert last(memory.ingest([table], ray=cluster, columns=columns, encoders=1)).segments == 20
        write_lines(table, [{"key": n, "body": text(n if n else 99)} for n in range(20)])
        done = last(memory.ingest([table], ray=cluster, columns=columns, encoders=1))
        assert (done.segments, done.unchanged) == (1, 19)
        assert texts(memory) == Counter(map(text, [99, *range(1, 20)]))


def test_what_cannot_be_read_is_told_and_all_else_is_stored(cluster: str, tmp_path: Path) -> None:
    (binary := tmp_path / "binary.txt").write_bytes(b"\0\1\2\0" * 9)
    (false := tmp_path / "false.parquet").write_bytes(b"PAR1 and nothing else")
    rows: list[Any] = [{"text": text(0)}, {"body": "x"}, {"text": 7}, "a text", {"text": " "}, {"text": text(1)}]
    table = write_lines(tmp_path / "rows.jsonl", rows)
    with table.open("a", encoding="utf-8") as file:
        file.write('{"text": "half')
    (good := tmp_path / "good.txt").write_text(text(2), encoding="utf-8")
    missing = tmp_path / "missing.txt"
    with BulkMemory(tmp_path / "store", encoder="hash") as memory:
        done = last(memory.ingest([binary, false, table, missing, good], ray=cluster, encoders=1))
        assert texts(memory) == Counter(map(text, range(3)))
    assert done.failed == len(done.problems) == 8
    for file in (binary, false, missing):
        assert [str(file)] == [problem.where for problem in done.problems if problem.where == str(file)]
    assert sum(problem.where.startswith(f"{table}[byte ") for problem in done.problems) == 5


def test_an_encoding_process_that_is_killed_loses_and_doubles_nothing(cluster: str, tmp_path: Path) -> None:
    table = write_lines(tmp_path / "rows.jsonl", [{"text": text(n)} for n in range(800)])
    (counts := tmp_path / "counts").mkdir()
    dying = Dying(counts, text(5), text(400), text(777))
    with BulkMemory(tmp_path / "store", encoder=dying) as memory:
        done = last(memory.ingest([table], ray=cluster, batch=32))
        assert len(list(counts.glob("killed-*"))) == 3
        assert texts(memory) == Counter(map(text, range(800)))
        assert (done.segments, done.repeated, done.pending) == (800, 0, 0)
        assert memory.verify()["ok"]


def test_a_reading_process_that_is_killed_loses_and_doubles_nothing(cluster: str, tmp_path: Path) -> None:
    tables = [
        write_lines(tmp_path / f"{name}.jsonl", [{"text": text(n)} for n in range(start, start + 300)])
        for name, start in (("a", 0), ("b", 300))
    ]
    (counts := tmp_path / "counts").mkdir()
    with BulkMemory(tmp_path / "store", encoder=DyingReader(counts, text(290))) as memory:
        done = last(memory.ingest(tables, ray=cluster))
        assert (counts / "killed").exists()
        assert [segment.text for segment in memory.get_all(limit=1_000)] == list(map(text, range(600)))
        assert (done.segments, done.repeated, done.encoded) == (600, 0, 600)


def test_a_machine_that_is_lost_loses_and_doubles_nothing(nodes: Nodes, tmp_path: Path) -> None:
    table = write_lines(tmp_path / "rows.jsonl", [{"text": text(n)} for n in range(1_500)])
    (counts := tmp_path / "counts").mkdir()
    with BulkMemory(tmp_path / "store", encoder=Counting(counts)) as memory:
        steps = memory.ingest([table], ray=nodes.address, batch=32)
        written = next(done for done in steps if done.segments)
        nodes.tell("lose")
        try:
            done = last(steps)
        finally:
            nodes.tell("gain")
        assert written.segments < done.segments == 1_500
        assert [segment.text for segment in memory.get_all(limit=2_000)] == list(map(text, range(1_500)))
        assert (done.repeated, done.pending) == (0, 0)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_driver_that_is_killed_half_way_goes_on_when_it_is_run_again(
    kind: str, cluster: str, driver: Driver, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    table = write_lines(tmp_path / "rows.jsonl", [{"text": text(n)} for n in range(2_000)])
    store = request.getfixturevalue("postgres") if kind == "postgres" else str(tmp_path / "store")
    (counts := tmp_path / "counts").mkdir()
    killed = driver(store, counts, 3, table)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with Memory(store, encoder=Counting(counts)) as memory:
        stored = texts(memory)
    assert 0 < len(stored) < 2_000
    before = counted(counts)
    with BulkMemory(store, encoder=Counting(counts)) as memory:
        done = last(memory.ingest([table], ray=cluster, batch=64))
        assert texts(memory) == Counter(map(text, range(2_000)))
        assert (done.segments, done.unchanged, done.repeated) == (2_000 - len(stored), len(stored), 0)
        assert done.encoded == done.segments
        assert {each: counted(counts)[each] for each in stored} == {each: before[each] for each in stored}
        assert memory.verify()["ok"]


def test_a_text_the_encoder_refuses_is_stored_and_waits(cluster: str, tmp_path: Path) -> None:
    table = write_lines(tmp_path / "rows.jsonl", [{"text": text(n)} for n in range(40)])
    (counts := tmp_path / "counts").mkdir()
    with BulkMemory(tmp_path / "store", encoder=Refusing(counts, text(9))) as memory:
        done = last(memory.ingest([table], ray=cluster, encoders=1))
        assert (done.segments, done.encoded, done.pending) == (40, 39, 1)
        assert texts(memory) == Counter(map(text, range(40)))


def test_a_machine_that_has_another_encoder_is_refused_and_nothing_is_written(cluster: str, tmp_path: Path) -> None:
    table = write_lines(tmp_path / "rows.jsonl", [{"text": text(0)}])
    with BulkMemory(tmp_path / "store", encoder=Elsewhere()) as memory:
        with pytest.raises(EncoderMismatch, match="elsewhere"):
            last(memory.ingest([table], ray=cluster, encoders=1))
        assert not texts(memory)


def test_a_memory_by_keywords_alone_needs_no_encoders(cluster: str, tmp_path: Path) -> None:
    table = write_lines(tmp_path / "rows.jsonl", [{"text": text(n)} for n in range(300)])
    with BulkMemory(tmp_path / "store", encoder=None) as memory:
        done = last(memory.ingest([table], ray=cluster))
        assert (done.segments, done.encoded, done.pending) == (300, 0, 0)
        assert memory.search("kettle 700", k=1)[0].text == text(100)


def test_the_command_tells_what_it_did_and_what_it_left_out(
    cluster: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.jsonl").write_text("{oops\n", encoding="utf-8")
    store = ["--store", str(tmp_path / "store"), "--encoder", "hash", "--ray", cluster]

    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["ingest", *map(str, arguments), *store])
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().out

    code, out = run(folder, "--meta-columns", "place", "--encoders", 1, "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["read"], told["left"], told["pending"], told["failed"]) == (363, 0, 0, 1)
    assert [place.startswith(str(folder / "broken.jsonl")) for place in told["skipped"]] == [True]
    code, out = run(folder, "--meta-columns", "place", "--encoders", 1)
    assert code == 0
    assert "0 new segments" in out
    assert run(tmp_path / "missing.txt")[0] == 1
    assert run(folder, "--encoders", "0")[0] == 2


def test_where_no_cluster_answers_the_address_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    (file := tmp_path / "a.txt").write_text("Some text.", encoding="utf-8")
    with BulkMemory(tmp_path / "store", encoder="hash") as memory:
        for address in ("127.0.0.1:1", "nowhere"):
            with pytest.raises(InvalidInput, match=address) as refused:
                last(memory.ingest([file], ray=address))
            assert refused.value.argument == "ray"


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    (file := tmp_path / "a.txt").write_text("Some text.", encoding="utf-8")
    with BulkMemory(tmp_path / "store", encoder="hash") as memory:
        with pytest.raises(MissingExtra) as missing:
            last(memory.ingest([file]))
        assert "memspan[ray]" in missing.value.mend


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_whoever_dies_and_whenever_all_is_stored_once(seed: int, cluster: str, driver: Driver, tmp_path: Path) -> None:
    choose, size = random.Random(seed), 6_000
    table = write_lines(tmp_path / "rows.jsonl", [{"text": text(n)} for n in range(size)])
    store = tmp_path / "store"
    (counts := tmp_path / "counts").mkdir()
    fatal = [text(n) for n in choose.sample(range(size), 12)]
    for _ in range(4):
        assert driver(store, counts, choose.randint(1, 12), table, *fatal).returncode in (-signal.SIGKILL, 0)
    ended = driver(store, counts, 0, table, *fatal)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["repeated"] == 0
    with Memory(store, encoder=Counting(counts)) as memory:
        assert [segment.text for segment in memory.get_all(limit=size + 1)] == list(map(text, range(size)))
        assert memory.verify()["ok"]
