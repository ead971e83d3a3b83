"""`bench serve`: a real server is loaded, and everything that is promised is measured."""

from __future__ import annotations

import json

import pytest

from memspan import cli
from memspan.bench import serve
from memspan.errors import InvalidInput, MemspanError


def test_every_kind_of_request_is_timed_at_every_number_of_connections(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--segments", "1000", "--requests", "40", "--sample", "6", "--encoder", "hash", "--json")
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "serve", *options])
    assert ended.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["load"]) == {"search", "get", "add"}
    for found in report["load"].values():
        assert list(found) == ["1", "8", "64"]
        assert all(each["per_second"] > 0 and each["p50_ms"] <= each["p99_ms"] for each in found.values())
    assert report["resident"]["requests"] == 40
    assert report["proxy"].get("chats") == 6 or report["proxy"] == {"skipped": "this server has no proxy"}
    shown = serve.table(report)
    assert f"| add | 64 | {report['load']['add']['64']['per_second']:,.0f} |" in shown
    assert report["machine"]["python"] in shown


def test_a_request_that_is_not_answered_well_ends_the_bench() -> None:
    with serve.upstream() as url, pytest.raises(MemspanError, match="GET /nothing was answered 501"):
        serve.load(url, [("GET", "/nothing", None)] * 20, 4)
    with pytest.raises(MemspanError, match="was not answered"):
        serve.load(url, [("GET", "/nothing", None)], 1)


@pytest.mark.parametrize("wrong", [{"requests": 9}, {"sample": 0}, {"workers": 0}, {"segments": 10}])
def test_too_little_to_measure_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        serve.run(**wrong)
