"""No request, filter, metadata, header or path reaches another namespace than the one the key is for."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import served

from memspan import Memory
from memspan.encoders.hash import HashEncoder

CANARY = "Zanzibar7391"  # what only the other namespace holds, and no request says
OTHER = "vault"
PLACES = [
    OTHER, OTHER.upper(), "%76ault", "%2576ault", f"{OTHER}%00", f"{OTHER}%20", f"{OTHER};a", f"mine%2f..%2f{OTHER}",
    f"mine/../{OTHER}", f"..%2f{OTHER}", f"../{OTHER}", "..", ".", "", "%2e%2e", f"/{OTHER}", f"{OTHER}/", f"{OTHER}#",
    "ｖａｕｌｔ", "va\u200bult", "*", "-", "mine", "mine,vault", "%ff", "%ed%a0%80", "default",
]  # fmt: skip


@dataclass(frozen=True)
class Vault:
    """A server with a key for the namespace "mine", beside which there is another one that nobody may see."""

    memory: Memory
    address: str
    mine: str
    other: str
    ids: tuple[str, ...]
    operations: tuple[str, ...]
    held: tuple[Any, ...]
    described: dict[str, Any] = field(repr=False)

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: Any, secret: str | None = None
    ) -> tuple[int, bytes]:
        """Sends a path as it stands: nothing on the way tidies it."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            key = {"Authorization": f"Bearer {secret or self.mine}"}
            sent = None if body is None else json.dumps(body).encode()
            connection.request(method, path, sent, {"Content-Type": "application/json", **headers, **key})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def held(memory: Memory) -> tuple[Any, ...]:
    """All that the other namespace holds, and what was done to it."""
    rows, done = memory.get_all(namespace=OTHER), memory.operations(namespace=OTHER)
    return rows, done, [each.id for each in memory.neighbors(rows[0].id, namespace=OTHER)]


@pytest.fixture(scope="module")
def vault() -> Iterator[Vault]:
    with Memory(":memory:", encoder=HashEncoder()) as memory:
        for space, text in ((OTHER, f"The treasure of {CANARY} lies under the lighthouse."), ("mine", "I like tea.")):
            for user in ("ana", "ben"):
                memory.add(f"{text} {user} said so.", namespace=space, user_id=user, metadata={"namespace": "mine"})
        keys = {
            space: memory.create_api_key(space, namespaces=space, rights=["read", "write", "admin"]).secret
            for space in ("mine", OTHER)
        }
        with served(memory) as url:
            address = url.removeprefix("http://")
            connection = http.client.HTTPConnection(address, timeout=60)
            connection.request("GET", "/openapi.json")
            described = json.loads(connection.getresponse().read())
            connection.close()
            yield Vault(
                memory=memory,
                address=address,
                mine=str(keys["mine"]),
                other=str(keys[OTHER]),
                ids=tuple(row.id for row in memory.get_all(namespace=OTHER)),
                operations=tuple(done.id for done in memory.operations(namespace=OTHER)),
                held=held(memory),
                described=described,
            )


def values(vault: Vault, name: str, told: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What somebody who wants to get out would send under a name, most of it of the type that is ``told``."""
    ids = st.sampled_from([*vault.ids, *vault.operations])
    filters = st.sampled_from(
        [
            {"user_id": "*"}, {"namespace": OTHER}, {"user_id": "ana", "namespace": OTHER}, {"NOT": [{"user_id": "x"}]},
            {"OR": [{"namespace": OTHER}, {"user_id": "ana"}]}, {"metadata.namespace": "mine"},
            {"id": {"in": vault.ids}}, {"user_id": "ana", "memory_ids": vault.ids},
            {"AND": [{"user_id": "' OR 1=1 --"}]},
        ]
    )  # fmt: skip
    known: dict[str, st.SearchStrategy[Any]] = {
        "query": st.just("treasure lighthouse"),
        "content": st.just([{"role": "user", "content": "Hello.", "metadata": {"namespace": OTHER}}]),
        "messages": st.just([{"role": "user", "content": "Hello.", "namespace": OTHER}]),
        "memories": st.lists(st.fixed_dictionaries({"memory_id": ids, "text": st.just("Mine now.")}), min_size=1),
        "text": st.just("Mine now."),
        "metadata": st.just({"namespace": OTHER, "user_id": "ana"}),
        "filters": filters,
        "user_id": st.sampled_from(["ana", "*", OTHER, f"ana' AND namespace='{OTHER}"]),
        "as_of": st.sampled_from(["2020-01-01", "2100-01-01"]),
        "names": st.just("x"),
        "namespaces": st.just([OTHER]),
        "rights": st.just(["admin"]),
        "media": st.just("text"),
        "wait": st.booleans(),
        "all": st.booleans(),
        "budget": st.just(500),
        "kind": st.sampled_from(["user", "agent"]),
    }
    if name in known:
        return known[name]
    if any(part in name.split("_") for part in ("id", "operation", "a", "b", "old", "new", "older", "newer", "after")):
        return ids if name != "id" else st.one_of(ids, st.lists(ids, min_size=1, max_size=2))
    types = {told.get("type"), *(part.get("type") for part in told.get("anyOf", ()))}
    fitting = {"integer": st.integers(1, 4), "number": st.just(0.5), "boolean": st.booleans()}
    return next((fitting[kind] for kind in fitting if kind in types), st.sampled_from(PLACES))


@st.composite
def requests(draw: st.DrawFn, vault: Vault) -> tuple[str, str, dict[str, str], Any]:
    """A request to one of the paths that there are, or to one that nobody made."""
    path = draw(st.sampled_from(sorted(vault.described["paths"])))
    method = draw(st.sampled_from(sorted(vault.described["paths"][path])))
    operation = vault.described["paths"][path][method]
    body: dict[str, Any] | None = None
    if "requestBody" in operation:
        shape = operation["requestBody"]["content"].get("application/json", {}).get("schema", {})
        shape = vault.described["components"]["schemas"].get(shape.get("$ref", "").rpartition("/")[2], shape)
        names = set(shape.get("required", ()))
        if optional := sorted(set(shape.get("properties", ())) - names):
            names |= draw(st.sets(st.sampled_from(optional), max_size=3))
        known = shape.get("properties", {})
        body = {name: draw(values(vault, name, known.get(name, {}))) for name in sorted(names)}
        if draw(st.integers(0, 7)) == 0:
            body["namespace"] = OTHER
    query: dict[str, str] = {}
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        if parameter["in"] == "path":
            home = ["mine", "-"] if name == "namespace" else ["user"] if name == "kind" else vault.ids
            given = draw(st.sampled_from(PLACES) if draw(st.integers(0, 2)) == 0 else st.sampled_from(home))
            path = path.replace(f"{{{name}}}", given).replace(f"{{{name}:path}}", given)
        elif parameter["in"] == "query" and (parameter.get("required") or draw(st.integers(0, 3)) == 0):
            value = draw(values(vault, name, parameter.get("schema", {})))
            query[name] = value if isinstance(value, str) else json.dumps(value)
    if draw(st.integers(0, 3)) == 0:
        query["namespace"] = draw(st.sampled_from(PLACES))
    if draw(st.integers(0, 5)) == 0:
        before = draw(st.sampled_from(["/", f"/v1/namespaces/{OTHER}/..", "/.", "/v1/namespaces/mine/../.."]))
        path = before + path
    headers: dict[str, str] = {}
    if draw(st.integers(0, 3)) == 0:
        headers["X-Memory-Namespace"] = quote(draw(st.sampled_from(PLACES)), safe="%/;,*")
    if draw(st.integers(0, 4)) == 0:
        name = draw(st.sampled_from(["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "Host", "X-Namespace"]))
        headers[name] = f"/v1/namespaces/{OTHER}/segments"
    path = quote(path, safe="%/;,*.~:-_") + (f"?{urlencode(query)}" if query else "")
    return method.upper(), path, headers, body


def kept_apart(vault: Vault, request: tuple[str, str, dict[str, str], Any]) -> None:
    status, answer = vault.ask(*request)
    assert status < 500 or status == 501, (status, answer)
    assert CANARY.encode() not in answer
    assert held(vault.memory) == vault.held
    assert set(vault.memory.stats()["namespaces"]) == {"mine", OTHER}


def test_what_is_kept_apart_is_found_with_its_own_key(vault: Vault) -> None:
    ways: list[tuple[str, str, dict[str, str], Any]] = [
        ("GET", f"/v1/namespaces/{OTHER}/segments", {}, None),
        ("GET", f"/v1/namespaces/-/segments/{vault.ids[0]}", {}, None),
        ("POST", "/v1/namespaces/-/search", {}, {"query": "treasure lighthouse"}),
        ("POST", "/search", {}, {"query": "treasure lighthouse", "filters": {"user_id": "*"}}),
        ("GET", "/memories", {"X-Memory-Namespace": "%76ault"}, None),
    ]
    for way in ways:
        assert CANARY.encode() in vault.ask(*way, secret=vault.other)[1], way
        kept_apart(vault, way)


@settings(max_examples=120, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_request_leaves_its_namespace(vault: Vault, data: st.DataObject) -> None:
    kept_apart(vault, data.draw(requests(vault)))


@pytest.mark.soak
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_request_leaves_its_namespace_for_long(vault: Vault, data: st.DataObject) -> None:
    kept_apart(vault, data.draw(requests(vault)))
