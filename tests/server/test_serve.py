"""``memspan serve`` and ``memspan keys`` as they are run: processes and signals, keys, limits, what is seen of them."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from served import served

from memspan import Memory, access, cli
from memspan.access import ApiKey
from memspan.bench.serve import Server, load, serving
from memspan.errors import Unauthorized

SPACE = "/v1/namespaces/default"
SECRETS = ("zebrafish", "quagmire", "porcupine", "mangrove", "jacaranda", "wisteria", "obsidian")
"""Words that are only ever said in texts, queries, metadata, filters, ids, names and errors."""

Run = Callable[..., Any]
Serve = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash")
    return tmp_path / "store"


@pytest.fixture
def serve(tmp_path: Path, store: Path) -> Serve:
    """A real ``memspan serve`` over the store."""
    return lambda *options: serving(tmp_path / "log", "--store", str(store), *options)


@pytest.fixture
def memspan(store: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on the store: its exit code, and what it says on stdout and on stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "--store", str(store)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """The spans of this process."""
    exporter = InMemorySpanExporter()
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    yield exporter
    processor.shutdown()


def key_of(memory: Memory, **given: Any) -> tuple[ApiKey, dict[str, str]]:
    """A key, and the header that sends it."""
    made = memory.create_api_key("laptop", **{"namespaces": "default", **given})
    return made, {"X-API-Key": str(made.secret)}


def told(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and argument of a problem, which says how to mend it."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["mend"]
    assert problem["status"] == response.status_code
    return response.status_code, problem["code"], problem["argument"]


# ----------------------------------------------------------------------------------------------------------- processes


def test_it_makes_the_store_and_says_where_it_listens(serve: Serve, store: Path) -> None:
    assert not store.exists()
    with serve() as server:
        said = server.log.read_text()
        assert f"memspan serves {store} at {server.url}" in said
        assert "No API keys: only programs on this machine are answered." in said
        with Memory(server.url) as client:
            client.add("The kettle is in the attic.")
            assert client.search("kettle")[0].text == "The kettle is in the attic."
    with Memory(store) as memory:
        assert memory.search("kettle", recipe="keyword")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_has_begun_is_answered_before_it_ends_with_0(serve: Serve, store: Path, number: signal.Signals) -> None:
    body = json.dumps({"content": "Said while the lights went out."}).encode()
    head = f"POST {SPACE}/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with serve() as server:
        port = int(server.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 100")  # it is at work on this request
            server.process.send_signal(number)
            refused = False
            while not refused:  # until it has heard: then it takes nobody new
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=30).close()
                except ConnectionRefusedError:
                    refused = True
                except ConnectionResetError:
                    pass  # it closed its door in this moment
            connection.sendall(body)
            with connection.makefile("rb") as answered:
                assert answered.readline() == b"HTTP/1.1 201 Created\r\n"
        assert server.process.wait(30) == 0
    with Memory(store) as memory:
        assert [each.text for each in memory.get_all()] == ["Said while the lights went out."]


def test_workers_serve_one_store_and_count_together(serve: Serve, store: Path) -> None:
    with serve("--workers", "2") as server:
        adds = [("POST", f"{SPACE}/segments", json.dumps({"content": f"Word {n}."}).encode()) for n in range(40)]
        load(server.url, adds, 8)
        listed = httpx.get(f"{server.url}{SPACE}/segments", params={"limit": 100}).json()["segments"]
        assert sorted(each["text"] for each in listed) == sorted(f"Word {n}." for n in range(40))
        labels = f'method="POST",route="{SPACE.replace("default", "{namespace}")}/segments",status="201"'
        counted = f"memspan_request_seconds_count{{{labels}}} 40.0"
        assert counted in httpx.get(f"{server.url}/metrics").text.splitlines()
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        assert not children.exists() or len(children.read_text().split()) >= 2
        server.process.terminate()
        assert server.process.wait(60) == 0
    with Memory(store) as memory:
        assert memory.verify()["ok"]


def test_without_keys_it_does_not_listen_to_other_machines(memspan: Run) -> None:
    code, out, err = memspan("serve", "--host", "0.0.0.0", "--port", "0")
    assert (code, out) == (2, "")
    assert "--host: 0.0.0.0 can be reached from other machines, and the store has no API key" in err
    assert "memspan keys create" in err


def test_a_port_that_is_taken_is_named(memspan: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = memspan("serve", "--port", str(port))
    assert (code, out) == (2, "")
    assert f"--port: {port} on 127.0.0.1 cannot be used" in err


# ---------------------------------------------------------------------------------------------------------------- keys


def test_keys_are_made_listed_and_revoked(memspan: Run) -> None:
    code, secret, err = memspan("keys", "create", "laptop", "--namespace", "default", "--right", "read")
    assert (code, secret.startswith("ms_")) == (0, True)
    assert "not shown again" in err
    made = json.loads(memspan("keys", "create", "phone", "-n", "home", "-n", "work", "--json")[1])
    assert (made["namespaces"], made["rights"], made["revoked_at"]) == (["home", "work"], ["read", "write"], None)
    listed = memspan("keys", "list")[1]
    assert re.findall(r"^(\S+)  valid  (\S+)  (\S+)  ", listed, re.MULTILINE) == [
        (secret.split("_")[1], "laptop", "read"),
        (made["id"], "phone", "read,write"),
    ]
    assert "revoked  phone" in memspan("keys", "revoke", made["id"])[1]
    states = {
        each["name"]: each["revoked_at"] is None for each in json.loads(memspan("keys", "list", "--json")[1])["keys"]
    }
    assert states == {"laptop": True, "phone": False}
    assert "_".join(secret.strip().split("_")[2:]) not in listed + json.dumps(states)


def test_a_store_that_begins_with_a_key_has_the_configured_encoder(memspan: Run, store: Path) -> None:
    memspan("keys", "create", "first", "-n", "default")
    memspan("keys", "create", "second", "-n", "default")
    with Memory(store) as memory:
        memory.add("The kettle is in the attic.")
        assert memory.search("Where is the kettle?", recipe="semantic")


@pytest.mark.parametrize(
    ("arguments", "code", "argument"),
    [
        (["create", "laptop", "-n", "default", "--right", "fly"], 2, "rights"),
        (["create", "laptop", "-n", ""], 2, "namespace"),
        (["create", "laptop", "-n", "default", "--expires", "2001-01-01"], 2, "expires_at"),
        (["revoke", "0123"], 1, None),
    ],
)
def test_what_is_no_key_is_refused(memspan: Run, arguments: list[str], code: int, argument: str | None) -> None:
    memspan("keys", "create", "first", "-n", "default")
    refused, out, err = memspan("keys", *arguments, "--json")
    assert (refused, out, json.loads(err)["error"]["argument"]) == (code, "", argument)
    assert len(json.loads(memspan("keys", "list", "--json")[1])["keys"]) == 1


def test_a_store_keeps_only_the_hash_of_a_key(memspan: Run, store: Path) -> None:
    made = json.loads(memspan("keys", "create", "laptop", "-n", "default", "--json")[1])
    secret = made["secret"].removeprefix(f"ms_{made['id']}_").encode()
    files = [file.read_bytes() for file in store.rglob("*") if file.is_file()]
    assert any(made["id"].encode() in held for held in files)
    assert not any(secret in held for held in files)


def test_secrets_are_compared_in_constant_time_with_every_key(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key_of(memory)[0] for _ in range(3)]
    compared: list[str] = []

    def compare(kept: str, given: str) -> bool:
        compared.append(kept)
        return compare_digest(kept, given)

    compare_digest = access.hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", compare)
    assert memory.api_key(str(keys[1].secret)) is not None
    assert len({each for each in compared if len(each) == 64}) == 3


def test_a_revoked_key_opens_nothing_from_the_next_request_on(serve: Serve, memspan: Run) -> None:
    made = json.loads(memspan("keys", "create", "laptop", "-n", "default", "--json")[1])
    headers = {"Authorization": f"Bearer {made['secret']}"}
    with serve() as server, httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        assert "No API keys" not in server.log.read_text()
        assert client.get(f"{SPACE}/segments").status_code == 200
        assert client.get("/v1/namespaces/other/segments").status_code == 403
        memspan("keys", "revoke", made["id"])
        refused = client.get(f"{SPACE}/segments")
        assert told(refused) == (401, "Unauthorized", None)
        assert refused.headers["www-authenticate"] == "Bearer"


# -------------------------------------------------------------------------------------------------------------- limits


def test_who_asks_too_often_is_told_when_to_come_again(memory: Memory) -> None:
    (_, ana), (_, ben) = key_of(memory), key_of(memory)
    with served(memory, rate=3) as url, httpx.Client(base_url=url) as client:
        codes = [client.get(f"{SPACE}/segments", headers=ana).status_code for _ in range(3)]
        late = client.get(f"{SPACE}/segments", headers=ana)
        assert codes == [200, 200, 200]
        assert told(late) == (429, "TooManyRequests", None)
        assert 1 <= int(late.headers["retry-after"]) <= 20
        assert client.get(f"{SPACE}/segments", headers=ben).status_code == 200
        assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_over_the_limit_is_not_taken(memory: Memory, streamed: bool) -> None:
    body = json.dumps({"content": "long " * 1000}).encode()
    content = iter([body[:3000], body[3000:]]) if streamed else body
    with served(memory, max_body=4096) as url:
        refused = httpx.post(f"{url}{SPACE}/segments", content=content, headers={"Content-Type": "application/json"})
        assert told(refused) == (413, "TooLarge", "body")
        assert httpx.post(f"{url}{SPACE}/segments", json={"content": "short"}).status_code == 201
    assert len(memory.get_all()) == 1


def test_an_archive_may_be_larger_than_other_bodies(memory: Memory, tmp_path: Path) -> None:
    memory.add([{"role": "user", "content": f"Line {n} of what is kept."} for n in range(60)])
    memory.export_to(tmp_path / "all.jsonl")
    content = (tmp_path / "all.jsonl").read_bytes()
    assert 4096 < len(content) < 1 << 20
    for most, status in ((1 << 20, 200), (8192, 413)):
        with served(memory, max_body=4096, max_import=most) as url:
            assert httpx.post(f"{url}{SPACE}/import", content=content).status_code == status
            assert httpx.post(f"{url}{SPACE}/segments/import", content=content).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "argument", "most"),
    [
        ("POST", "/search", "k", 20),
        ("POST", "/context", "budget", 300),
        ("GET", "/segments", "limit", 50),
        ("GET", "/operations", "limit", 50),
        ("GET", "/embeddings", "limit", 50),
    ],
)
def test_more_than_the_server_gives_is_refused(
    memory: Memory, method: str, path: str, argument: str, most: int
) -> None:
    memory.add("The kettle is in the attic.")
    with served(memory, max_k=20, max_budget=300, max_limit=50) as url, httpx.Client(base_url=url) as client:

        def ask(value: int) -> httpx.Response:
            given = {"query": "kettle", argument: value} if method == "POST" else {argument: value}
            where = "json" if method == "POST" else "params"
            return client.request(method, SPACE + path, **{where: given})  # type: ignore[arg-type]

        assert ask(most).status_code == 200
        assert told(ask(most + 1)) == (400, "InvalidInput", argument)


# ------------------------------------------------------------------------------------------------------------ browsers


def test_only_named_origins_may_ask_from_a_browser(memory: Memory) -> None:
    _, key = key_of(memory)
    asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    for cors, allowed in (((), None), (("https://app.example",), "https://app.example")):
        with served(memory, cors=cors) as url:
            asked = httpx.options(f"{url}{SPACE}/search", headers=asking)
            got = httpx.get(f"{url}{SPACE}/segments", headers={**key, "Origin": "https://app.example"})
            other = httpx.get(f"{url}{SPACE}/segments", headers={**key, "Origin": "https://evil.example"})
        assert asked.headers.get("access-control-allow-origin") == allowed
        assert got.headers.get("access-control-allow-origin") == allowed
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "memory.evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": ""},
        {"X-Forwarded-For": "203.0.113.9"},
    ],
)
def test_without_keys_a_page_of_elsewhere_reaches_nothing(memory: Memory, headers: dict[str, str]) -> None:
    with served(memory) as url:
        assert told(httpx.get(f"{url}{SPACE}/segments", headers=headers)) == (401, "Unauthorized", None)
        assert told(httpx.post(f"{url}{SPACE}/segments", headers=headers, json={"content": "x"}))[0] == 401
        assert httpx.get(f"{url}{SPACE}/segments", headers={"Origin": url}).status_code == 200
    assert memory.get_all() == []


def test_with_keys_the_name_of_the_machine_does_not_matter(memory: Memory) -> None:
    _, key = key_of(memory)
    with served(memory) as url:
        answered = httpx.get(f"{url}{SPACE}/segments", headers={**key, "Host": "memory.example"})
        assert answered.status_code == 200
        with pytest.raises(Unauthorized), Memory(url) as client:
            client.get_all()


# ---------------------------------------------------------------------------------------------------- what can be seen


@pytest.mark.parametrize(("sent", "kept"), [("req-7.a:b", True), ("no spaces", False), ("x" * 200, False)])
def test_a_request_keeps_its_id_where_it_is_one(memory: Memory, sent: str, kept: bool) -> None:
    with served(memory) as url:
        given = httpx.get(f"{url}{SPACE}/segments", headers={"X-Request-ID": sent}).headers["x-request-id"]
        missing = httpx.get(f"{url}/nowhere").headers["x-request-id"]
    assert (given == sent) is kept
    assert re.fullmatch("[0-9a-f]{32}", missing)


def say_secrets(url: str) -> int:
    """Ask for everything with the SECRETS in every place that a caller fills; how many requests were sent."""
    with httpx.Client(base_url=url, timeout=60) as client:
        space = "/v1/namespaces/wisteria"
        about = {"content": "A zebrafish swims.", "metadata": {"mangrove": "porcupine"}, "user_id": "jacaranda"}
        id = client.post(f"{space}/segments", json=about, headers={"Idempotency-Key": "obsidian"}).json()["ids"][0]
        answers = [
            client.post(f"{space}/search", json={"query": "quagmire zebrafish", "user_id": "jacaranda"}),
            client.get(f"{space}/segments", params={"filters": json.dumps({"metadata.mangrove": "porcupine"})}),
            client.get(f"{space}/segments", params={"user_id": "jacaranda", "after": id}),
            client.get(f"{space}/segments/{id}"),
            client.get(f"{space}/segments/obsidian"),
            client.get(f"{space}/quagmire/obsidian?mangrove=zebrafish"),
            client.post(f"{space}/search", json={"query": 7, "mangrove": "porcupine"}),
            client.post(f"{space}/context", json={"query": "zebrafish", "recipe": "quagmire"}),
            client.get(f"{space}/segments", headers={"Authorization": "Bearer obsidian", "X-API-Key": "obsidian"}),
        ]
    assert [each.status_code for each in answers] == [200, 200, 200, 200, 404, 404, 400, 400, 200]
    return len(answers) + 1


def test_neither_log_nor_metrics_hold_what_was_said(serve: Serve) -> None:
    with serve() as server:
        asked = say_secrets(server.url)
        metrics = httpx.get(f"{server.url}/metrics").text
        logged = server.log.read_text()
        server.process.terminate()
        server.process.wait(30)
        assert server.log.read_text().startswith(logged)
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    told = [line for line in lines if "{namespace}" in line["route"] or line["route"] == "other"]
    assert len(told) == asked
    assert {tuple(line) for line in lines} == {("at", "method", "route", "status", "ms", "request")}
    assert 'memspan_failures_total{code="NotFound"} 2.0' in metrics.splitlines()
    for word in SECRETS:
        assert word not in logged, word
        assert word not in metrics, word


def test_spans_tell_of_routes_and_of_nothing_that_was_said(memory: Memory, spans: InMemorySpanExporter) -> None:
    above = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with served(memory, traces=True) as url:
        asked = say_secrets(url)
        httpx.get(f"{url}/health/live", headers={"traceparent": above})
    found = list(spans.get_finished_spans())
    assert len(found) == asked + 1
    assert found[0].name == "POST /v1/namespaces/{namespace}/segments"
    attributes = found[0].attributes or {}
    assert (attributes["http.route"], attributes["http.response.status_code"]) == (found[0].name[5:], 201)
    assert f"{found[-1].context.trace_id:032x}" == above.split("-")[1]
    everything = "\n".join(span.to_json() for span in found)
    for word in SECRETS:
        assert word not in everything, word


def test_there_are_no_spans_unless_they_are_asked_for(memory: Memory, spans: InMemorySpanExporter) -> None:
    with served(memory) as url:
        httpx.get(f"{url}/health/live")
    assert spans.get_finished_spans() == ()


def test_health_tells_a_server_that_lives_from_one_that_can_serve(memory: Memory) -> None:
    key_of(memory)
    with served(memory, rate=1) as url, httpx.Client(base_url=url) as client:
        for _ in range(3):  # neither wants a key, nor is it counted
            assert client.get("/health/live").json() == {"status": "live"}
            assert client.get("/health/ready").json() == {"status": "ready"}
        memory.close()
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").status_code == 503
