"""The page as it is sent: every file from the wheel, kept by browsers, under a policy that lets nothing else run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources

import httpx
import pytest
from served import served

from memspan import Memory

MOST = 120_000  # bytes of all files together
NAMED = re.compile(r'(?:src|href)="(page/[^"#]+)')
IMPORTED = re.compile(r'(?:from |import\()"\./([a-z]+\.js)"')


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        Memory(":memory:", encoder=None) as memory,
        served(memory) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def files(client: httpx.Client) -> dict[str, httpx.Response]:
    """What a browser loads for the page, by address: what it names, and what the modules among that import."""
    found, wanted = dict[str, httpx.Response](), ["/"]
    while wanted:
        address = wanted.pop()
        if address in found:
            continue
        told = found[address] = client.get(address)
        wanted += [f"/{name}" for name in NAMED.findall(told.text)]
        wanted += [f"{address.rpartition('/')[0]}/{name}" for name in IMPORTED.findall(told.text)]
    return found


def test_every_file_of_the_page_is_there_and_is_named_by_another(files: dict[str, httpx.Response]) -> None:
    assert {told.status_code for told in files.values()} == {200}
    there = {file.name for file in (resources.files("memspan.server") / "page").iterdir()}
    assert {address.rpartition("/")[2] or "index.html" for address in files} == there


def test_the_page_is_light(files: dict[str, httpx.Response]) -> None:
    assert sum(len(told.content) for told in files.values()) < MOST


def test_nothing_but_the_files_of_the_page_may_run(files: dict[str, httpx.Response]) -> None:
    for told in files.values():
        policy = told.headers["content-security-policy"]
        assert "default-src 'self';" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "unsafe" not in policy
        assert told.headers["x-content-type-options"] == "nosniff"
    start = files["/"].text
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", start)
    assert not re.search(r"https?://", start)


def test_no_module_makes_html_of_a_text(files: dict[str, httpx.Response]) -> None:
    scripts = [told.text for address, told in files.items() if address.endswith(".js")]
    assert len(scripts) > 5
    wrong = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|https?://(?!www\.w3)"
    )
    assert [wrong.findall(text) for text in scripts] == [[]] * len(scripts)


def test_a_browser_asks_for_the_page_and_keeps_what_it_names(
    client: httpx.Client, files: dict[str, httpx.Response]
) -> None:
    for address, told in files.items():
        caching = "no-cache" if address == "/" else "public, max-age=31536000, immutable"
        assert told.headers["cache-control"] == caching
        again = client.get(address, headers={"If-None-Match": f'"other", W/{told.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
        asked = client.head(address)
        assert (asked.status_code, asked.content) == (200, b"")


@pytest.mark.parametrize(
    "address", ["/page/0123456789abcdef/app.js", "/page/{}/none.js", "/page/{}/index.html", "/page/{}/..%2Fpage.py"]
)
def test_what_is_no_file_of_this_edition_is_not_found(
    client: httpx.Client, files: dict[str, httpx.Response], address: str
) -> None:
    edition = next(name for name in files if name.endswith("app.js")).split("/")[2]
    told = client.get(address.format(edition))
    assert told.status_code == 404
    assert "page" not in told.headers.get("content-type", "")


def test_the_page_is_no_part_of_the_api(client: httpx.Client) -> None:
    assert not [path for path in client.get("/openapi.json").json()["paths"] if path == "/" or path.startswith("/page")]


def test_the_page_needs_no_key_but_what_it_shows_does() -> None:
    with Memory(":memory:", encoder=None) as memory, served(memory) as address:
        memory.create_api_key("laptop", namespaces="*")
        assert httpx.get(address).status_code == 200
        assert httpx.get(f"{address}/v1/namespaces").status_code == 401
