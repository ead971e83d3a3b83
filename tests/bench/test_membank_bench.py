"""MemBank's benchmark: what it reports, on a handful of texts."""

from __future__ import annotations

import json

import pytest

from memspan import cli
from memspan.bench.membank import LEVELS, adapter_of, run, table
from memspan.errors import InvalidInput


def test_the_report_holds_every_setting_and_the_table_shows_it() -> None:
    told: list[str] = []
    report = run([30, 60], queries=6, progress=lambda done, total, what: told.append(what))
    assert list(report["sizes"]) == [30, 60]
    assert report["bytes"] == {"L0": 1024, "L1": 336, "L2": 84}
    for found in report["sizes"].values():
        assert found["ingest_per_second"] > 0
        assert [(one["saliency"], one["candidates"]) for one in found["recall"]] == [
            (saliency, candidates) for saliency in ("gradient", "magnitude") for candidates in (5, 20, "adaptive")
        ]
        for one in found["recall"]:
            assert one["precision@5"].keys() == LEVELS.keys()
            assert 0 < one["precision@5"]["L2"] <= one["precision@5"]["L2+L1+L0"] <= 1
            assert 0 < one["p50_ms"] <= one["p99_ms"]
    assert any("storing 60" in what for what in told)
    assert "60 chunks" in table(report)


def test_the_command_prints_its_report(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "membank", "--sizes", "20", "--queries", "3", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["model"] == "mock-256-v1"


@pytest.mark.parametrize("sizes", [[], [20, 20], [30, 20], [3]])
def test_sizes_that_cannot_be_measured_are_refused(sizes: list[int]) -> None:
    with pytest.raises(InvalidInput, match="sizes"):
        run(sizes)
    with pytest.raises(InvalidInput, match="encoder"):
        adapter_of("bert")
