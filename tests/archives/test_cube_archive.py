"""Cubes: everything goes out and comes back with its vectors, what was altered is refused, keys tell who made it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memspan import InvalidInput, Memory, NewerStore, NotFound
from memspan.archives import cube, signing
from memspan.archives.base import Contents, Header, Vectors
from memspan.records import Version
from memspan.reports import Problem
from memspan.testing import WordEncoder

from .conftest import in_little_memory, lived_in, out
from .test_jsonl_archive import JSON, TEXTS

Members = dict[str, bytes]
ABOUT = Vectors(encoder="e", dim=4, tokens="1bit", basis="b")


def members(file: Path) -> Members:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(file: Path, held: Mapping[str, bytes], packing: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    return file


def restated(held: Members) -> Members:
    """The same with a manifest that is right about the members, as somebody would make it who knows how."""
    manifest = json.loads(held["manifest.json"])
    manifest["members"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in held.items()
        if name not in ("manifest.json", "signature.json")
    }
    return held | {"manifest.json": json.dumps(manifest).encode()}


def array(rows: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def given_by(file: Path) -> tuple[list[Any], list[Problem]]:
    problems: list[Problem] = []
    return list(cube.read(file, problems.append)), problems


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cube")
    with lived_in(directory / "a") as memory:
        memory.export_to(directory / "a.memspan")
    return directory / "a.memspan"


@pytest.fixture
def held(exported: Path) -> Members:
    return members(exported)


@pytest.fixture(scope="module")
def with_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of three versions, the second without a vector, the third without a token matrix."""
    file = tmp_path_factory.mktemp("tokens") / "t.memspan"
    with Memory(":memory:", encoder="hash") as memory:
        memory.add([{"role": "user", "content": text} for text in ("one thing", "another thing", "a third thing")])
        memory.export_to(file.with_suffix(".jsonl"))
    from memspan.archives import jsonl

    found = [record for record in jsonl.read(file.with_suffix(".jsonl"), pytest.fail) if isinstance(record, Version)]
    ones = np.ones(4, np.float16)
    records = (replace(found[0], pooled=ones, tokens=b"abcdef"), found[1], replace(found[2], pooled=2 * ones))
    header = Header(namespace="n", vectors=ABOUT)
    cube.write(file, Contents(header=header, records=lambda: iter(records)))
    return file


# ------------------------------------------------------------------------------------------------------ out and back in


def test_everything_comes_back_with_its_vectors(tmp_path: Path) -> None:
    with lived_in(tmp_path / "a") as memory, Memory(tmp_path / "b", encoder="hash") as other:
        first = out(memory, tmp_path / "a.jsonl")
        written = memory.export_to(tmp_path / "a.memspan")
        done = other.import_from(tmp_path / "a.memspan")
        assert (done.failed, done.there, done.pending, done.added) == (0, 0, 0, written.versions)
        assert done.vectors > 0
        assert written.encoder == memory.stats()["encoder"]["id"]
        assert out(other, tmp_path / "b.jsonl") == first
        assert members(tmp_path / "a.memspan")["memory.jsonl"] == first
        assert other.verify()["ok"]


def test_vectors_of_the_same_encoder_are_not_made_again(tmp_path: Path) -> None:
    made: list[int] = []

    class Counting(WordEncoder):
        def encode(self, texts: Any) -> Any:
            made.append(len(texts))
            return super().encode(texts)

    with Memory(tmp_path / "a", encoder=WordEncoder()) as memory:
        memory.add([{"role": "user", "content": f"thing number {number}"} for number in range(40)])
        memory.export_to(tmp_path / "a.memspan")
    with Memory(tmp_path / "b", encoder=Counting()) as other:
        assert other.import_from(tmp_path / "a.memspan").vectors == 40
        assert sum(made) < 40
        assert other.search("thing number 7", k=1)[0].text == "thing number 7"


def test_token_matrices_come_back_with_their_rows(with_tokens: Path) -> None:
    (header, *records), problems = given_by(with_tokens)
    assert not problems
    assert header.vectors == ABOUT
    assert [None if each.pooled is None else each.pooled.tolist() for each in records] == [[1] * 4, None, [2] * 4]
    assert [each.tokens for each in records] == [b"abcdef", None, None]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.dictionaries(TEXTS, JSON, max_size=2)), max_size=6, unique_by=lambda each: each[0]))
def test_whatever_is_said_comes_back(tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, Any]]) -> None:
    directory = tmp_path_factory.mktemp("any")
    with Memory(":memory:", encoder="hash") as memory, Memory(":memory:", encoder="hash") as other:
        for text, metadata in said:
            memory.add(text, metadata=metadata)
        memory.export_to(directory / "a.memspan")
        assert other.import_from(directory / "a.memspan").failed == 0
        assert out(other, directory / "b.jsonl") == out(memory, directory / "a.jsonl")


def test_an_empty_namespace_is_a_cube_too(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder="hash") as memory, Memory(tmp_path / "b", encoder="hash") as other:
        memory.export_to(tmp_path / "a.memspan")
        assert other.import_from(tmp_path / "a.memspan").read == 0
        assert cube.verify(tmp_path / "a.memspan").counts["versions"] == 0


def test_a_memory_without_an_encoder_has_no_arrays(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder="none") as memory:
        memory.add("only words")
        memory.export_to(tmp_path / "a.memspan")
    assert set(members(tmp_path / "a.memspan")) == {"manifest.json", "memory.jsonl"}
    with Memory(tmp_path / "b", encoder="hash") as other:
        done = other.import_from(tmp_path / "a.memspan")
        assert (done.added, done.vectors, done.pending) == (1, 0, 0)


def test_the_same_memory_gives_the_same_bytes_but_for_the_date(tmp_path: Path, exported: Path) -> None:
    with Memory(exported.parent / "a", encoder="hash") as memory:
        memory.export_to(tmp_path / "again.memspan")
    one, other = members(exported), members(tmp_path / "again.memspan")
    dates = [json.loads(each.pop("manifest.json")) for each in (one, other)]
    assert one == other
    assert [each | {"created_at": None} for each in dates] == [dates[0] | {"created_at": None}] * 2


def test_a_part_says_which_part_it_is(tmp_path: Path, exported: Path) -> None:
    with Memory(exported.parent / "a", encoder="hash") as memory:
        memory.export_to(
            tmp_path / "part.memspan",
            user_id="ana",
            filters={"speaker": "Ana"},
            history=False,
            about={"note": "for a colleague"},
        )
    told = cube.inspect(tmp_path / "part.memspan")
    assert told.about["scope"] == {"user_id": "ana"}
    assert told.about["filters"] == {"speaker": "Ana"}
    assert told.about["history"] is False
    assert told.about["note"] == "for a colleague"
    assert told.counts["segments"] == told.counts["versions"] == 2


def test_inspecting_tells_what_is_in_it_and_imports_nothing(exported: Path) -> None:
    told = cube.inspect(exported)
    with Memory(exported.parent / "a", encoder="hash") as memory:
        stats = memory.stats()
    assert told.namespace == "default"
    assert told.about["store_id"] == stats["store_id"]
    assert told.counts["segments"] == stats["segments"]
    assert told.counts["tombstones"] == stats["tombstones"] == 1
    assert told.vectors is not None
    assert (told.vectors.encoder, told.vectors.dim) == (stats["encoder"]["id"], stats["encoder"]["dim"])
    assert (told.signed_by, told.bytes) == (None, exported.stat().st_size)


def test_arrays_are_as_numpy_reads_them(held: Members) -> None:
    vectors, rows = (np.load(io.BytesIO(held[name])) for name in ("vectors.npy", "rows.npy"))
    lines = held["memory.jsonl"].splitlines()
    assert vectors.dtype == np.float16
    assert len(vectors) == len(rows) == json.loads(held["manifest.json"])["counts"]["vectors"]
    assert all(json.loads(lines[row - 1])["type"] == "segment" for row in rows)


def test_writing_holds_only_a_few_records_in_memory(tmp_path: Path, with_tokens: Path) -> None:
    (_, one, *_), _ = given_by(with_tokens)
    long = replace(one, segment=replace(one.segment, text="x" * 100_000), pooled=None, tokens=None)
    contents = Contents(header=Header(namespace="n"), records=lambda: (long for _ in range(400)))
    with in_little_memory(8 << 20):
        cube.write(tmp_path / "a.memspan", contents)


def test_what_can_be_packed_to_nothing_is_written_so_that_it_is_read_again(
    tmp_path: Path, with_tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cube, "SMALL", 100_000)
    (_, one, *_), _ = given_by(with_tokens)
    long = replace(one, segment=replace(one.segment, text="x" * 1_000_000), pooled=None, tokens=None)
    contents = Contents(header=Header(namespace="n"), records=lambda: iter([long]))
    cube.write(tmp_path / "a.memspan", contents)
    assert given_by(tmp_path / "a.memspan")[0][1].segment.text == long.segment.text


def test_a_failed_export_leaves_the_cube_that_was_there(tmp_path: Path, exported: Path) -> None:
    target = tmp_path / "a.memspan"
    target.write_bytes(b"what was there")
    with Memory(exported.parent / "a", encoder="hash") as memory, pytest.raises(InvalidInput, match="key"):
        memory.export_to(target, key=exported)
    assert target.read_bytes() == b"what was there"
    assert os.listdir(tmp_path) == ["a.memspan"]


# ----------------------------------------------------------------------------------------------------------- signatures


@pytest.fixture
def key(tmp_path: Path) -> Path:
    signing.keygen(tmp_path / "key.pem")
    return tmp_path / "key.pem"


@pytest.fixture
def signed(tmp_path: Path, exported: Path, key: Path) -> Path:
    with Memory(exported.parent / "a", encoder="hash") as memory:
        memory.export_to(tmp_path / "signed.memspan", key=key)
    return tmp_path / "signed.memspan"


def test_a_key_is_its_owners_alone_and_is_never_replaced(tmp_path: Path) -> None:
    fingerprint = signing.keygen(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert signing.fingerprint(tmp_path / "key.pem") == signing.fingerprint(fingerprint) == fingerprint
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(InvalidInput, match="already"):
        signing.keygen(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_bytes() == before


def test_an_import_can_ask_for_a_key_by_fingerprint_or_by_file(tmp_path: Path, signed: Path, key: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    private = serialization.load_pem_private_key(key.read_bytes(), None)
    public = tmp_path / "public.pem"
    public.write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for number, by in enumerate((signing.fingerprint(key), str(key), public)):
        with Memory(tmp_path / f"b{number}", encoder="hash") as other:
            assert other.import_from(signed, signed_by=by).signed_by == signing.fingerprint(key)


@pytest.mark.parametrize("other", ["another key", "no signature"])
def test_an_import_that_asks_for_a_key_takes_nothing_that_it_did_not_sign(
    tmp_path: Path, signed: Path, exported: Path, key: Path, other: str
) -> None:
    fingerprint = signing.keygen(tmp_path / "other.pem") if other == "another key" else signing.fingerprint(key)
    with Memory(tmp_path / "b", encoder="hash") as memory:
        with pytest.raises(InvalidInput, match="signed_by"):
            memory.import_from(signed if other == "another key" else exported, signed_by=fingerprint)
        assert not memory.get_all()


def _relabelled(held: Members) -> Members:
    manifest = json.loads(held["manifest.json"])
    return held | {"manifest.json": json.dumps(manifest | {"namespace": "another"}).encode()}


def _rewritten(held: Members) -> Members:
    return restated(held | {"memory.jsonl": held["memory.jsonl"].replace(b"core", b"cork")})


def _by_another(held: Members) -> Members:
    signature = json.loads(held["signature.json"])
    return held | {"signature.json": json.dumps(signature | {"public_key": "11" * 32}).encode()}


def _garbled(held: Members) -> Members:
    return held | {"signature.json": b'{"algorithm": "ed25519", "public_key": 1}'}


def _of_another_kind(held: Members) -> Members:
    signature = json.loads(held["signature.json"])
    return held | {"signature.json": json.dumps(signature | {"algorithm": "none"}).encode()}


@pytest.mark.parametrize("forge", [_relabelled, _rewritten, _by_another, _garbled, _of_another_kind])
def test_a_wrong_signature_is_refused_though_nobody_asked(
    tmp_path: Path, signed: Path, forge: Callable[[Members], Members]
) -> None:
    forged = packed(tmp_path / "forged.memspan", forge(members(signed)))
    with Memory(tmp_path / "b", encoder="hash") as memory:
        with pytest.raises(InvalidInput, match="sign"):
            memory.import_from(forged)
        assert not memory.get_all()
    with pytest.raises(InvalidInput, match="sign"):
        cube.inspect(forged)


def test_a_signature_holds_for_what_openssl_would_check(signed: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    held = members(signed)
    signature = json.loads(held["signature.json"])
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["public_key"]))
    public.verify(bytes.fromhex(signature["signature"]), held["manifest.json"])


@pytest.mark.parametrize("key", ["no-such-file", "ff", "ff" * 33])
def test_what_is_no_key_is_told(exported: Path, key: str) -> None:
    with Memory(":memory:", encoder="hash") as memory, pytest.raises(InvalidInput, match="signed_by"):
        memory.import_from(exported, signed_by=key)


def test_only_cubes_are_signed(tmp_path: Path, key: Path) -> None:
    with Memory(":memory:", encoder="hash") as memory, pytest.raises(InvalidInput, match="key"):
        memory.export_to(tmp_path / "a.jsonl", key=key)


# -------------------------------------------------------------------------------------------------------- hostile files


def refused(file: Path, match: str) -> None:
    """It is refused before anything of it is given, and nothing of it is imported."""
    given: list[Any] = []
    with pytest.raises(InvalidInput, match=match):
        given.extend(cube.read(file, pytest.fail))
    assert not given
    with Memory(":memory:", encoder="hash") as memory:
        with pytest.raises(InvalidInput, match=match):
            memory.import_from(file, "cube")
        assert not memory.get_all()


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/passwd", "notes.txt", "manifest.json\0x", "memory.jsonl/"])
def test_a_member_that_is_no_part_of_a_cube_is_refused(tmp_path: Path, held: Members, name: str) -> None:
    file = packed(tmp_path / "a.memspan", {**held, name.replace("\0", "\1"): b"x"})
    file.write_bytes(file.read_bytes().replace(b"json\1x", b"json\0x"))
    refused(file, "no part of a cube")
    assert os.listdir(tmp_path) == ["a.memspan"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["memory.jsonl", "manifest.json"])
def test_two_members_of_one_name_are_refused(tmp_path: Path, held: Members, name: str) -> None:
    with zipfile.ZipFile(packed(tmp_path / "a.memspan", held), "a") as archive:
        archive.writestr(name, held[name] + b"\n")
    refused(tmp_path / "a.memspan", "two members")


@pytest.mark.parametrize("name", ["memory.jsonl", "vectors.npy", "rows.npy"])
def test_a_member_that_is_not_what_was_written_is_refused(tmp_path: Path, held: Members, name: str) -> None:
    at = len(held[name]) // 2
    other = bytes([held[name][at] ^ 1])
    refused(packed(tmp_path / "a.memspan", held | {name: held[name][:at] + other + held[name][at + 1 :]}), "checksum")


@pytest.mark.parametrize("name", ["manifest.json", "memory.jsonl", "vectors.npy", "rows.npy"])
def test_a_member_that_is_missing_is_refused(tmp_path: Path, held: Members, name: str) -> None:
    del held[name]
    refused(packed(tmp_path / "a.memspan", held), "manifest")
    if name != "manifest.json":
        refused(packed(tmp_path / "a.memspan", restated(held)), "should hold")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cube_that_was_cut_short_is_refused(tmp_path: Path, exported: Path, share: float) -> None:
    raw = exported.read_bytes()
    (tmp_path / "a.memspan").write_bytes(raw[: int(len(raw) * share)])
    with Memory(":memory:", encoder="hash") as memory, pytest.raises(InvalidInput, match="cannot be read"):
        memory.import_from(tmp_path / "a.memspan")


@pytest.mark.parametrize(
    "manifest",
    [
        b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"type": "memspan cube"}', b'{"type": "other", "format": 1}',
        b'{"type": "memspan cube", "format": 1}',
        b'{"type": "memspan cube", "format": 1, "memspan": "1", "created_at": 1e999, "counts": {}, "about": {},'
        b' "members": {}}',
        b'{"type": "memspan cube", "format": 1, "memspan": "1", "created_at": 1, "counts": {"x": 1e999}, "about": {},'
        b' "members": {}}',
        b'{"type": "memspan cube", "format": 1, "memspan": "1", "created_at": 1, "counts": [], "about": {},'
        b' "members": {}}',
        b'{"type": "memspan cube", "format": 1, "memspan": "1", "created_at": 1, "counts": {}, "about": 1,'
        b' "members": {}}',
        b'{"type": "memspan cube", "format": 1, "memspan": "1", "created_at": 1, "counts": {}, "about": {},'
        b' "members": {"memory.jsonl": 1}}',
        b'{"type": "memspan cube", "format": 1, "memspan": "1", "created_at": 1, "counts": {}, "about": {},'
        b' "members": {}, "vectors": {"encoder": "e", "dim": -1}}',
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_understood_is_refused(tmp_path: Path, held: Members, manifest: bytes) -> None:
    refused(packed(tmp_path / "a.memspan", held | {"manifest.json": manifest}), "manifest.json")


def test_a_cube_of_a_later_format_is_refused_by_name(tmp_path: Path, held: Members) -> None:
    manifest = json.loads(held["manifest.json"]) | {"format": 99}
    packed(tmp_path / "a.memspan", held | {"manifest.json": json.dumps(manifest).encode()})
    with Memory(":memory:", encoder="hash") as memory, pytest.raises(NewerStore, match="99"):
        memory.import_from(tmp_path / "a.memspan")


def test_a_bomb_is_refused_without_being_unpacked(tmp_path: Path, held: Members) -> None:
    bomb = held["memory.jsonl"] + b" " * (cube.SMALL + 1)
    file = packed(tmp_path / "a.memspan", restated(held | {"memory.jsonl": bomb}), zipfile.ZIP_DEFLATED)
    del bomb
    with in_little_memory(16 << 20):
        refused(file, "packed into")


def test_a_bomb_that_says_it_is_small_is_refused(tmp_path: Path, held: Members) -> None:
    bomb = held["memory.jsonl"] + b" " * (cube.SMALL + 1)
    file = packed(tmp_path / "a.memspan", restated(held | {"memory.jsonl": bomb}), zipfile.ZIP_DEFLATED)
    raw = file.read_bytes()
    lie = len(held["memory.jsonl"]).to_bytes(4, "little")
    file.write_bytes(raw.replace(len(bomb).to_bytes(4, "little"), lie))
    refused(file, "does not hold|cannot be read")


def test_a_directory_too_long_to_be_one_is_not_read(tmp_path: Path, held: Members) -> None:
    many = held | {f"{number:0200}": b"" for number in range(5_000)}
    refused(packed(tmp_path / "a.memspan", many), "directory")


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings_are_refused(tmp_path: Path, held: Members, packing: int) -> None:
    refused(packed(tmp_path / "a.memspan", held, packing), "packs")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vectors.npy", lambda rows: np.zeros((len(rows), 3), np.float16)),
        ("vectors.npy", lambda rows: np.zeros((len(rows) + 1, 256), np.float16)),
        ("vectors.npy", lambda rows: np.zeros((len(rows), 256), np.float32)),
        ("vectors.npy", lambda rows: np.zeros((256, len(rows)), np.float16).T),
        ("vectors.npy", lambda rows: np.array(["a"] * len(rows))),
        ("rows.npy", lambda rows: rows[::-1].copy()),
        ("rows.npy", lambda rows: rows * 0 + 2),
        ("rows.npy", lambda rows: rows - 100),
        ("rows.npy", lambda rows: rows[:-1]),
        ("rows.npy", lambda rows: rows.astype(np.float64)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, held: Members, name: str, content: Any) -> None:
    rows = np.load(io.BytesIO(held["rows.npy"]))
    altered = restated(held | {name: array(content(rows))})
    refused(packed(tmp_path / "a.memspan", altered), r"vectors\.npy|rows\.npy")


def test_an_array_that_says_it_has_a_thousand_million_rows_is_refused(tmp_path: Path, held: Members) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f2", "fortran_order": False, "shape": (1_000_000_000, 256)})
    altered = restated(held | {"vectors.npy": head.getvalue() + held["vectors.npy"][-512:]})
    refused(packed(tmp_path / "a.memspan", altered), r"vectors\.npy")


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path, held: Members) -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"gadget": 1}], object), allow_pickle=True)
    refused(packed(tmp_path / "a.memspan", restated(held | {"vectors.npy": file.getvalue()})), r"vectors\.npy")


@pytest.mark.parametrize("offsets", [[0, 6, 7], [1, 6, 6], [0, 9, 6], [0, 6, 5], [0, 6], [0, 6, 6, 6], [-6, 0, 6]])
def test_token_matrices_out_of_bounds_are_refused(tmp_path: Path, with_tokens: Path, offsets: list[int]) -> None:
    altered = restated(members(with_tokens) | {"tokens.npy": array(np.array(offsets, np.int64))})
    refused(packed(tmp_path / "a.memspan", altered), r"tokens\.npy")


def test_a_vector_that_is_not_finite_costs_only_itself(tmp_path: Path, held: Members) -> None:
    vectors = np.load(io.BytesIO(held["vectors.npy"]))
    vectors[0, 0] = np.nan
    packed(tmp_path / "a.memspan", restated(held | {"vectors.npy": array(vectors)}))
    with Memory(tmp_path / "b", encoder="hash") as memory:
        done = memory.import_from(tmp_path / "a.memspan")
        assert (done.failed, done.pending, done.added) == (1, 0, done.read)
        assert "finite" in done.problems[0].problem
        assert out(memory, tmp_path / "b.jsonl") == held["memory.jsonl"]


def test_a_line_that_cannot_be_read_leaves_the_vectors_of_the_others_where_they_are(
    tmp_path: Path, with_tokens: Path
) -> None:
    held = members(with_tokens)
    lines = held["memory.jsonl"].splitlines(keepends=True)
    lines[1] = b'{"type": "segment"}\n'
    (_, second, third), problems = given_by(
        packed(tmp_path / "a.memspan", restated(held | {"memory.jsonl": b"".join(lines)}))
    )
    assert [problem.where for problem in problems] == ["a.memspan/memory.jsonl:2"]
    assert second.pooled is None
    assert third.pooled.tolist() == [2] * 4


def test_a_zip_file_of_something_else_is_no_cube(tmp_path: Path) -> None:
    file = packed(tmp_path / "a.zip", {"manifest.json": b"{}", "conversations.json": b"[]"})
    assert not cube.recognises(file, file.read_bytes())
    refused(file, "no part of a cube")


def test_a_cube_is_recognised_by_what_is_in_it(tmp_path: Path, exported: Path) -> None:
    (tmp_path / "archive.bin").write_bytes(exported.read_bytes())
    with Memory(":memory:", encoder="hash") as memory:
        assert memory.import_from(tmp_path / "archive.bin").format == "cube"


def test_a_cube_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        cube.inspect(tmp_path / "none.memspan")
