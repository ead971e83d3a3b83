"""What a server makes of a memory: requests a second and their times, the proxy's share of a chat, resident memory.

A real ``memspan serve`` over a store of the texts of ``memspan bench speed``; this process loads it over loopback, with
one thread for each connection. ``get`` reads one segment: what HTTP costs where the engine does nearly nothing. The
proxy stands before a scripted OpenAI-compatible server, which is asked directly and through it in turns.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from memspan.bench.measures import machine, milliseconds
from memspan.bench.speed import queries, texts
from memspan.config import Config
from memspan.errors import InvalidInput, MemspanError
from memspan.memory import Memory

Progress = Callable[[int, int, str], None]
Ask = tuple[str, str, bytes | None]
"""A request: method, path, body."""

CONNECTIONS: Final = (1, 8, 64)
BATCH: Final = 256
WARMING: Final = 50  # requests before anything is measured
CHATS: Final = 300  # through the proxy and as many without
READING: Final = 0.05  # seconds between an answer and the next question, in which the answer is remembered
TOKENS: Final = 16  # that the scripted server streams
BELOW: Final = "/v1/namespaces/default"
CHAT: Final = "/chat/completions"
BARS: Final[Mapping[str, tuple[str, str, float]]] = {
    "proxy: added before the first token, p50 ms": ("proxy", "added_p50_ms", 15.0),
    "resident memory: last over a tenth of the requests": ("resident", "growth", 1.05),
}


def run(
    segments: int = 100_000,
    *,
    encoder: str | None = None,
    requests: int = 100_000,
    sample: int = 2_000,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure on this machine; a report of plain values. Times are wall times in ms, resident memory is in MiB.

    ``segments``: in the store, at least 1,000. ``requests``: how many are answered while resident memory is watched, at
    least 10. ``sample``: requests of each kind that are timed for each number of connections, at least 1. ``encoder``
    is a spec or None for the configured one. ``workers``: processes of the server.

    Raises InvalidInput, EncoderError, MemspanError where the server does not start or answers wrongly.
    """
    for name, value, least in (("requests", requests, 10), ("sample", sample, 1), ("workers", workers, 1)):
        if value < least:
            raise InvalidInput(name, f"{value} are too few", mend=f"give at least {least}")
    measured_on, found = machine(), texts(segments)
    tell = progress or (lambda done, total, what: None)
    spec = Config.load(encoder=encoder).encoder
    spec = "minilm" if spec == "auto" else spec
    asked = queries(found)
    report: dict[str, Any] = {"benchmark": "serve", "segments": len(found), "encoder": spec, "workers": workers}
    with tempfile.TemporaryDirectory(prefix="memspan-serve-") as scratch, upstream() as scripted:
        ids = _filled(Path(scratch, "store"), found, spec, tell)
        options = ("--store", f"{scratch}/store", "--encoder", spec, "--workers", str(workers), "--proxy", scripted)
        with serving(Path(scratch, "log"), *options) as server:
            kinds = {"search": _searches(asked), "get": _gets(ids), "add": _adds(found)}
            load(server.url, list(islice(kinds["search"], WARMING)), 1)
            report["load"] = {
                name: {
                    str(connections): _timed(server.url, list(islice(asks, sample)), connections, name, tell)
                    for connections in CONNECTIONS
                }
                for name, asks in kinds.items()
            }
            report["proxy"] = _proxy(server.url, scripted, asked, min(CHATS, sample), tell)
            report["resident"] = _resident(server, _mixed(asked, ids), requests, tell)
    report["bars"] = {
        name: f"{value:g}, below {bar:g}: {'holds' if value < bar else 'MISSED'}"
        for name, (part, key, bar) in BARS.items()
        if (value := report[part].get(key)) is not None
    }
    report["machine"] = measured_on
    return report


def table(report: Mapping[str, Any]) -> str:
    """The results of ``run`` for people, as Markdown."""
    rows = [
        f"{report['segments']:,} segments, encoder {report['encoder']}, workers {report['workers']}",
        "",
        "| request | connections | requests/s | p50 | p99 |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, found in report["load"].items():
        for connections, told in found.items():
            times = f"{told['p50_ms']:,.1f} ms | {told['p99_ms']:,.1f} ms"
            rows.append(f"| {name} | {connections} | {told['per_second']:,.0f} | {times} |")
    proxy, resident = report["proxy"], report["resident"]
    rows += ["", "| what | measured |", "|---|---:|"]
    if "skipped" in proxy:
        rows.append(f"| proxy | {proxy['skipped']} |")
    else:
        rows.append(f"| first token directly, p50 | {proxy['direct']['p50_ms']:,.1f} ms |")
        rows.append(f"| first token through the proxy, p50 | {proxy['through']['p50_ms']:,.1f} ms |")
        rows.append(f"| the proxy adds, p50 / p99 | {proxy['added_p50_ms']:,.1f} / {proxy['added_p99_ms']:,.1f} ms |")
    if resident["before_mb"] is not None:
        many = resident["requests"]
        for name, after in (("before_mb", 0), ("settled_mb", many // 10), ("after_mb", many)):
            rows.append(f"| resident after {after:,} requests | {resident[name]:,.1f} MiB |")
    on = report["machine"]
    rows += ["", f"{on['cpu']}, {on['cores']} cores, load {on['load']}, {on['system']}, Python {on['python']}"]
    return "\n".join([*rows, *(f"{name}: {told}" for name, told in report["bars"].items())])


# The server


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running ``memspan serve``: its process, its address, and the file that holds what it says on stderr."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def resident(self) -> float | None:
        """Resident memory of it and its workers in MiB, None where the system does not say."""
        own = self.process.pid
        try:
            pids = [str(own), *Path(f"/proc/{own}/task/{own}/children").read_text().split()]
            found = [re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text()) for pid in pids]
        except OSError:
            return None
        return round(sum(int(each[1]) for each in found if each) / 1024, 1)


@contextmanager
def serving(log: Path, *options: str, timeout: float = 120.0) -> Iterator[Server]:
    """``memspan serve`` with these options on a free port of loopback, once it answers; stopped at the end.

    Raises MemspanError where it ends before, or does not answer in ``timeout`` seconds.
    """
    command = [sys.executable, "-c", "from memspan.cli import main; main()", "serve", "--port", "0", *options]
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        yield Server(process=process, url=_answering(process, log, timeout), log=log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answering(process: subprocess.Popen[bytes], log: Path, timeout: float) -> str:
    end = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < end:
        if told := re.search(rb"memspan serves .* at (http://\S+)", log.read_bytes()):
            try:
                load(url := told[1].decode(), [("GET", "/health/ready", None)], 1)
            except MemspanError:
                pass
            else:
                return url
        time.sleep(0.05)
    last = (log.read_text("utf-8", "replace").strip() or "it said nothing").splitlines()[-1]
    raise MemspanError(f"the server did not start ({last})", mend="run memspan serve by hand to see why")


def _filled(path: Path, found: Sequence[str], spec: str, tell: Progress) -> list[str]:
    """Make the store of these texts; the ids of some of them."""
    ids: list[str] = []
    with Memory(path, encoder=spec) as memory:
        for at in range(0, len(found), BATCH):
            tell(at, len(found), "adding")
            ids += memory.add([{"role": "user", "content": text} for text in found[at : at + BATCH]]).ids[:10]
        memory.compact(progress=tell)
    return ids


# The load


def load(url: str, asks: Sequence[Ask], connections: int, told: Callable[[int], None] | None = None) -> list[float]:
    """Send requests over so many connections at once, each the next as soon as it has its answer: the seconds of each.

    ``told`` hears now and then how many are answered. Raises MemspanError where one is not answered, or not well.
    """
    stopping, done = threading.Event(), [0] * connections

    def one(number: int) -> list[float]:
        seconds = []
        connection = _connection(url)
        try:
            for ask in asks[number::connections]:
                if stopping.is_set():
                    break
                began = time.perf_counter()
                status, answer = _asked(connection, ask)
                seconds.append(time.perf_counter() - began)
                if status >= 300:
                    raise MemspanError(
                        f"{ask[0]} {ask[1]} was answered {status} ({answer[:200].decode('utf-8', 'replace')})",
                        mend="run memspan serve by hand to see why",
                    )
                done[number] += 1
        finally:
            connection.close()
        return seconds

    with ThreadPoolExecutor(connections) as pool:
        waiting = [pool.submit(one, number) for number in range(connections)]
        try:
            while wait(waiting, timeout=0.2).not_done:
                if told is not None:
                    told(sum(done))
                if any(each.done() and each.exception() for each in waiting):
                    break
        finally:
            stopping.set()
    return [seconds for each in waiting for seconds in each.result()]


def _connection(url: str) -> HTTPConnection:
    return HTTPConnection(urlsplit(url).netloc, timeout=60)


def _asked(connection: HTTPConnection, ask: Ask) -> tuple[int, bytes]:
    method, path, body = ask
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, HTTPException) as error:
        problem = f"{method} {path} was not answered ({error or type(error).__name__})"
        raise MemspanError(problem, mend="run memspan serve by hand to see why") from error


def _searches(asked: Sequence[str]) -> Iterator[Ask]:
    return (("POST", f"{BELOW}/search", _json(query=query, k=10)) for query in cycle(asked))


def _gets(ids: Sequence[str]) -> Iterator[Ask]:
    return (("GET", f"{BELOW}/segments/{id}", None) for id in cycle(ids))


def _adds(found: Sequence[str]) -> Iterator[Ask]:
    """Texts that are not there yet."""
    return (("POST", f"{BELOW}/segments", _json(content=f"{text} ({n})")) for n, text in zip(count(), cycle(found)))


def _mixed(asked: Sequence[str], ids: Sequence[str]) -> Iterator[Ask]:
    """Everything that only reads, so that a store which grows does not look like a server that does."""
    for query, id in zip(cycle(asked), cycle(ids)):
        yield "POST", f"{BELOW}/search", _json(query=query, k=10)
        yield "GET", f"{BELOW}/segments/{id}", None
        yield "POST", f"{BELOW}/context", _json(query=query, budget=500)
        yield "GET", f"{BELOW}/segments?limit=10&after={id}", None


def _json(**members: Any) -> bytes:
    return json.dumps(members).encode()


def _timed(url: str, asks: Sequence[Ask], connections: int, name: str, tell: Progress) -> dict[str, float]:
    began = time.perf_counter()
    seconds = load(url, asks, connections, lambda done: tell(done, len(asks), f"{name}, {connections} connections"))
    return {"per_second": round(len(asks) / (time.perf_counter() - began), 1), **milliseconds(seconds)}


def _resident(server: Server, asks: Iterator[Ask], requests: int, tell: Progress) -> dict[str, Any]:
    """Resident memory before, after a tenth, which fills the caches, and after all of the requests."""
    found: dict[str, Any] = {"requests": requests, "before_mb": server.resident()}
    for name, first, last in (("settled_mb", 0, requests // 10), ("after_mb", requests // 10, requests)):
        for at in range(first, last, 1_000):
            tell(at, requests, "watching resident memory")
            load(server.url, list(islice(asks, min(1_000, last - at))), 8)
        found[name] = server.resident()
    if found["after_mb"] is not None:
        found["growth"] = round(found["after_mb"] / found["settled_mb"], 3)
    return found


# The proxy


class _Scripted(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that streams the same answer to every chat, a chunk for each token."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(TOKENS):
            delta = {"role": "assistant", "content": f"word{number} "}
            chunk = {"id": "chat", "object": "chat.completion.chunk", "created": 0, "model": "scripted"}
            self._send(json.dumps(chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}))
        self._send("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    def log_message(self, *_: Any) -> None:
        """Nothing: what is asked is nobody's business."""


@contextmanager
def upstream() -> Iterator[str]:
    """The base URL of a scripted OpenAI-compatible server in a thread, until the end of the block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Scripted) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


def _proxy(url: str, scripted: str, asked: Sequence[str], chats: int, tell: Progress) -> dict[str, Any]:
    """Time to the first byte of the streamed answer, through the proxy and directly, in turns, of somebody who takes a
    moment to read the answer before."""
    ways = {"direct": scripted, "through": f"{url}/v1"}
    connections = {name: _connection(base) for name, base in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for number in range(-min(WARMING, chats), chats):
            tell(max(0, number), chats, "chats through the proxy")
            messages = [{"role": "user", "content": f"{asked[number % len(asked)]}? ({number})"}]
            body = _json(model="scripted", stream=True, messages=messages)
            for name in ways if number % 2 else reversed(ways):
                time.sleep(READING)
                began = time.perf_counter()
                connection = connections[name]
                connection.request("POST", urlsplit(ways[name]).path + CHAT, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                first = response.read(1)
                taken = time.perf_counter() - began
                rest = first + response.read()
                if response.status == 404:
                    return {"skipped": "this server has no proxy"}
                if response.status != 200 or b"[DONE]" not in rest:
                    problem = f"a chat was answered {response.status} ({rest[:200].decode('utf-8', 'replace')})"
                    raise MemspanError(problem, mend="run memspan serve --proxy URL by hand to see why")
                if number >= 0:
                    seconds[name].append(taken)
    finally:
        for connection in connections.values():
            connection.close()
    added = milliseconds(
        [through - direct for through, direct in zip(seconds["through"], seconds["direct"], strict=True)]
    )
    return {
        "chats": chats,
        **{name: milliseconds(each) for name, each in seconds.items()},
        "added_p50_ms": added["p50_ms"],
        "added_p99_ms": added["p99_ms"],
    }
