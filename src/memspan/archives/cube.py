"""A cube, ``.memspan``: a namespace or a part of it in one zip file, with its vectors, checksums and a signature.

    manifest.json   what it is, of what, by which encoder; the size and SHA-256 of every other member; always first
    signature.json  Ed25519, over the bytes of manifest.json, where it is signed
    memory.jsonl    every record, byte for byte as the format jsonl writes it
    vectors.npy     float16[n, dim], the vector of each version that has one
    rows.npy        int64[n], ascending: the line of memory.jsonl, from 1, that each of these rows belongs to
    tokens.bin      the token matrix of each row, one after the other, where the manifest names a level
    tokens.npy      int64[n + 1]: where in tokens.bin each begins, and where the last one ends

Text is deflated, arrays lie as they are. Nothing of a cube is used before its manifest, its signature and the checksum
of every member were checked, and no member is ever extracted.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed
from itertools import pairwise, repeat
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from memspan import arguments
from memspan.archives import jsonl
from memspan.archives.base import Contents, Header, Record, Report, Vectors, aside, attempt, lines, refused
from memspan.archives.signing import signed, signer
from memspan.errors import InvalidInput, NewerStore, NotFound
from memspan.records import Edge, Filing, Judgement, Tombstone, Usage, Verdict, Version
from memspan.segmenting import parse_time, shown

TYPE = "memspan cube"
FORMAT = 1

MANIFEST, SIGNATURE, MEMORY = "manifest.json", "signature.json", "memory.jsonl"
VECTORS, ROWS, TOKENS, OFFSETS = "vectors.npy", "rows.npy", "tokens.bin", "tokens.npy"
ARRAYS = (VECTORS, ROWS)
MATRICES = (TOKENS, OFFSETS)
MEMBERS = (MANIFEST, SIGNATURE, MEMORY, *ARRAYS, *MATRICES)

BLOCK = 1 << 20  # bytes read at once
LARGEST_MANIFEST = 1 << 20
LARGEST_MATRIX = 64 << 20  # bytes of the token matrix of one text
SMALL = 64 << 20  # bytes that a member may have whatever it was packed into,
SWOLLEN = 200  # and how many times what it was packed into beyond
FIRST_LINE = 2  # of memory.jsonl that holds a record

COUNTED = {Version: "versions", Filing: "documents", Edge: "links", Judgement: "judgements", Verdict: "verdicts",
           Usage: "usages", Tombstone: "tombstones"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of a cube: its size, and the SHA-256 of what it holds in hexadecimal."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cube:
    """What a cube says of itself: made by which version of ``memspan``, when, of which ``namespace``; ``counts`` of
    segments that are current, of all their versions, and of each other kind of record; ``about`` where it comes from,
    and which part it is. ``signed_by``: the fingerprint of the key that signed it, checked; None where it is not
    signed. ``bytes`` of the file."""

    path: str
    format: int
    memspan: str
    created_at: datetime
    namespace: str
    vectors: Vectors | None
    counts: Mapping[str, int]
    about: Mapping[str, Any]
    members: Mapping[str, Member]
    signed_by: str | None
    bytes: int


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is a zip file that is named as a cube, or begins as one does."""
    if not head.startswith(b"PK\3\4"):
        return False
    named = head[30:].startswith(MANIFEST.encode()) and f'"type": "{TYPE}"'.encode() in head[:512]
    return path.suffix.lower() == ".memspan" or named


# Writing


def write(path: Path, contents: Contents) -> list[Path]:
    """Write the file, signed where ``contents.key`` is given. Raises InvalidInput, MissingExtra, StoreError."""
    with aside(path) as part, ExitStack() as stack:
        # what is put together at the end waits beside it: no more than a few records are ever in memory
        spool = {name: stack.enter_context(tempfile.TemporaryFile(dir=part.parent)) for name in MEMBERS[2:]}
        counts, heads = _spooled(contents, spool)
        manifest = _manifest(contents, counts, {name: _member(head, spool[name]) for name, head in heads.items()})
        told = {MANIFEST: manifest}
        if contents.key is not None:
            told[SIGNATURE] = _dumped(signed(contents.key, manifest))
        for packing in (ZIP_DEFLATED, ZIP_STORED):  # stored where no reader would take it for what it is
            with ZipFile(part, "w") as archive:
                for name, content in told.items():
                    archive.writestr(_entry(name, ZIP_STORED, len(content)), content)
                for name, head in heads.items():
                    _pack(archive, name, packing if name == MEMORY else ZIP_STORED, head, spool[name])
                swollen = any(map(_swollen, archive.infolist()))
            if not swollen:
                break
    return [path]


def _spooled(contents: Contents, spool: Mapping[str, IO[bytes]]) -> tuple[dict[str, int], dict[str, bytes]]:
    """Write what there is of each member; how many of each kind there are, and the members with what each begins
    with."""
    about = contents.header.vectors
    matrices = about is not None and about.tokens != "none"
    counts = Counter(dict.fromkeys(("segments", *COUNTED.values(), "vectors"), 0))
    spool[MEMORY].write(jsonl.line_of(replace(contents.header, vectors=None)))
    spool[OFFSETS].write(_number(0))
    for line, record in enumerate(contents.records(), FIRST_LINE):
        counts[COUNTED[type(record)]] += 1
        spool[MEMORY].write(jsonl.line_of(record))
        if not isinstance(record, Version):
            continue
        counts["segments"] += record.segment.ended_at is None
        if about is None or record.pooled is None:
            continue
        counts["vectors"] += 1
        spool[VECTORS].write(np.asarray(record.pooled, "<f2").tobytes())
        spool[ROWS].write(_number(line))
        if matrices:
            spool[TOKENS].write(record.tokens or b"")
            spool[OFFSETS].write(_number(spool[TOKENS].tell()))
    rows = counts["vectors"]
    heads = {MEMORY: b""}
    if about is not None:
        heads |= {VECTORS: _array_head("<f2", (rows, about.dim)), ROWS: _array_head("<i8", (rows,))}
    if matrices:
        heads |= {TOKENS: b"", OFFSETS: _array_head("<i8", (rows + 1,))}
    return dict(counts), heads


def _manifest(contents: Contents, counts: Mapping[str, int], members: Mapping[str, Member]) -> bytes:
    vectors = contents.header.vectors
    about = arguments.metadata(json.loads(json.dumps(dict(contents.about), default=_told)), "about")
    return _dumped(
        {
            "type": TYPE,
            "format": FORMAT,
            "memspan": installed("memspan"),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "namespace": contents.header.namespace,
            "vectors": None if vectors is None else asdict(vectors),
            "counts": counts,
            "about": dict(about),
            "members": {name: asdict(member) for name, member in members.items()},
        }
    )


def _told(value: object) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _dumped(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2).encode() + b"\n"


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _array_head(dtype: str, shape: tuple[int, ...]) -> bytes:
    head = io.BytesIO()
    npy.write_array_header_1_0(head, {"descr": dtype, "fortran_order": False, "shape": shape})
    return head.getvalue()


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _member(head: bytes, file: IO[bytes]) -> Member:
    file.seek(0)
    digest, size = hashlib.sha256(head), len(head)
    for block in _blocks(file):
        digest.update(block)
        size += len(block)
    return Member(bytes=size, sha256=digest.hexdigest())


def _entry(name: str, packing: int, size: int) -> ZipInfo:
    """With one date, so that the same contents give the same bytes."""
    entry = ZipInfo(name)
    entry.compress_type, entry.external_attr, entry.create_system, entry.file_size = packing, 0o644 << 16, 3, size
    return entry


def _pack(archive: ZipFile, name: str, packing: int, head: bytes, file: IO[bytes]) -> None:
    size = len(head) + file.seek(0, io.SEEK_END)
    file.seek(0)
    with archive.open(_entry(name, packing, size), "w") as member:
        member.write(head)
        for block in _blocks(file):
            member.write(block)


def _swollen(entry: ZipInfo) -> bool:
    return entry.file_size > max(SMALL, SWOLLEN * entry.compress_size)


# Reading


def read(path: Path, report: Report) -> Iterator[Record]:
    """The records of a cube, after every byte of it was checked. Raises InvalidInput where it is not as it was made,
    NewerStore, MissingExtra where it is signed and that cannot be checked."""
    with _opened(path) as (archive, cube):
        _check(archive, cube)
        yield Header(namespace=cube.namespace, vectors=cube.vectors, signed_by=cube.signed_by)
        activations = _activations(archive, cube)
        following = next(activations, None)
        name = f"{path.name}/{MEMORY}"
        with _member_of(archive, MEMORY) as file:
            for number, line in lines(file, name, report):
                where = f"{name}:{number}"
                if number == 1:
                    jsonl.header_of(jsonl.decoded(line), where)
                    continue
                while following is not None and following[0] < number:
                    following = next(activations, None)
                with attempt(report, where):
                    record = jsonl.record_of(jsonl.decoded(line))
                    if isinstance(record, Version) and following is not None and following[0] == number:
                        record = replace(record, pooled=following[1], tokens=following[2])
                    yield record


def inspect(path: Path) -> Cube:
    """What a cube says of itself, with its signature checked, but not yet its members: see ``verify``.

    Raises InvalidInput, NewerStore, MissingExtra as ``read`` does.
    """
    with _opened(path) as (_, cube):
        return cube


def verify(path: Path) -> Cube:
    """What a cube says of itself, after every byte of it was checked. Raises as ``read`` does."""
    with _opened(path) as (archive, cube):
        _check(archive, cube)
        return cube


class _Bounded(io.FileIO):
    """A file that gives no more than ``most`` bytes at once: a zip's directory is read whole, however long it says it
    is."""

    most = BLOCK

    def read(self, size: int | None = -1, /) -> Any:
        if size is not None and size > self.most:
            raise BadZipFile(f"its directory has over {self.most >> 20} MiB")
        return super().read(size)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ZipFile, Cube]]:
    """The zip file and its manifest, both checked. What zipfile raises inside is raised as InvalidInput."""
    if not path.exists():
        raise NotFound(f"there is nothing at {path}", mend="check the name, and where you are")
    try:
        with _Bounded(path) as file, ZipFile(file) as archive:
            file.most = LARGEST_MATRIX
            yield archive, _cube(path, archive)
    except (BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise refused(path, f"cannot be read: {error or type(error).__name__}") from error


def _member_of(archive: ZipFile, name: str) -> io.BufferedReader:
    return io.BufferedReader(archive.open(name), BLOCK)  # type: ignore[arg-type] # it reads as a raw file does


def _cube(path: Path, archive: ZipFile) -> Cube:
    entries = {entry.filename: entry for entry in archive.infolist()}
    for entry in archive.infolist():
        if entry.orig_filename not in MEMBERS:
            raise refused(path, f"holds {shown(entry.orig_filename)}, which is no part of a cube")
        if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or entry.flag_bits & 1:
            raise refused(path, f"packs {entry.filename} in a way that no cube does")
        if _swollen(entry):
            raise refused(
                path, f"holds {entry.filename} of {entry.file_size:,} bytes packed into {entry.compress_size:,}"
            )
    if len(entries) < len(archive.infolist()):
        raise refused(path, "holds two members of one name")
    told = {name: _small(path, archive, entries[name]) for name in (MANIFEST, SIGNATURE) if name in entries}
    if MANIFEST not in told:
        raise refused(path, f"has no {MANIFEST}")
    signed_by = None
    if SIGNATURE in told:
        signed_by = signer(_object(path, SIGNATURE, told[SIGNATURE]), told[MANIFEST], path.name)
    value = _object(path, MANIFEST, told[MANIFEST])
    if value.get("type") != TYPE or not isinstance(value.get("format"), int):
        raise refused(path, f"has a {MANIFEST} that is not one of a cube")
    if value["format"] > FORMAT:
        mend = "upgrade memspan (pip install -U memspan); nothing was imported"
        raise NewerStore(f"{path.name} is a cube of format {value['format']}, this memspan reads {FORMAT}", mend=mend)
    try:
        cube = _cube_of(path, value, signed_by)
    except (InvalidInput, KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{error.argument} {error.problem}" if isinstance(error, InvalidInput) else f"{error}"
        raise refused(path, f"has a {MANIFEST} that cannot be understood: {said}") from error
    held = {name: entry.file_size for name, entry in entries.items() if name not in (MANIFEST, SIGNATURE)}
    if held != {name: member.bytes for name, member in cube.members.items()}:
        raise refused(path, f"does not hold what its {MANIFEST} says")
    due = {MEMORY, *(ARRAYS if cube.vectors else ()), *(MATRICES if _matrices(cube) else ())}
    if set(held) != due:
        raise refused(path, f"should hold {', '.join(sorted(due))}, and holds {', '.join(sorted(held))}")
    return cube


def _small(path: Path, archive: ZipFile, entry: ZipInfo) -> bytes:
    if entry.file_size > LARGEST_MANIFEST:
        raise refused(path, f"has a {entry.filename} of over {LARGEST_MANIFEST >> 20} MiB")
    return archive.read(entry)


def _object(path: Path, name: str, raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise refused(path, f"has a {name} that is not JSON") from error
    if not isinstance(value, dict):
        raise refused(path, f"has a {name} that is no JSON object")
    return value


def _cube_of(path: Path, value: Mapping[str, Any], signed_by: str | None) -> Cube:
    """Raises InvalidInput, KeyError, TypeError, ValueError or AttributeError where it is not as it is written."""
    header = jsonl.header_of({**value, "type": "memspan", "format": 1}, MANIFEST)
    created_at = parse_time(value["created_at"], "created_at")
    if created_at is None:
        raise InvalidInput("created_at", "is missing")
    return Cube(
        path=str(path),
        format=value["format"],
        memspan=str(value["memspan"]),
        created_at=created_at,
        namespace=header.namespace,
        vectors=header.vectors,
        counts={str(name): _count(name, count) for name, count in value["counts"].items()},
        about=arguments.metadata(value["about"], "about"),
        members={
            name: Member(bytes=_count(name, member["bytes"]), sha256=str(member["sha256"]))
            for name, member in value["members"].items()
        },
        signed_by=signed_by,
        bytes=path.stat().st_size,
    )


def _count(name: str, value: object) -> int:
    return arguments.count(name, value, least=0, most=1 << 62)


def _matrices(cube: Cube) -> bool:
    return cube.vectors is not None and cube.vectors.tokens != "none"


def _check(archive: ZipFile, cube: Cube) -> None:
    """Read and hash every member, and look whether the arrays fit each other. Raises InvalidInput."""
    path = Path(cube.path)
    for name, member in cube.members.items():
        with _member_of(archive, name) as file:
            digest = hashlib.sha256()
            for block in _blocks(file):
                digest.update(block)
        if digest.hexdigest() != member.sha256:
            raise refused(path, f"holds a {name} with another checksum than its {MANIFEST} says")
    if cube.vectors is None:
        return
    with _array(archive, cube, ROWS, "<i8", None) as (file, rows):
        last = FIRST_LINE - 1
        for places in _numbers(file):
            if (places <= np.concatenate(([last], places[:-1]))).any():
                raise refused(path, f"has lines in {ROWS} that do not ascend")
            last = int(places[-1])
    with _array(archive, cube, VECTORS, "<f2", cube.vectors.dim, rows):
        pass
    if not _matrices(cube):
        return
    with _array(archive, cube, OFFSETS, "<i8", None, rows + 1) as (file, _):
        last = 0
        for number, places in enumerate(_numbers(file)):
            sizes = np.diff(places, prepend=last)
            if (not number and places[0]) or (sizes < 0).any() or (sizes > LARGEST_MATRIX).any():
                raise refused(path, f"has places in {OFFSETS} that are none of {TOKENS}")
            last = int(places[-1])
    if last != cube.members[TOKENS].bytes:
        raise refused(path, f"has places in {OFFSETS} that are none of {TOKENS}")


@contextmanager
def _array(
    archive: ZipFile, cube: Cube, name: str, dtype: str, dim: int | None, rows: int | None = None
) -> Iterator[tuple[IO[bytes], int]]:
    """The open member where its numbers begin, and how many rows it has: ``rows``, of ``dim`` numbers or one, of this
    ``dtype``, and as many as there are bytes for. Raises InvalidInput where it says anything else."""
    with _member_of(archive, name) as file:
        try:
            if npy.read_magic(file) != (1, 0):
                raise ValueError("it is of another version")
            shape, turned, kind = npy.read_array_header_1_0(file)
        except ValueError as error:
            raise refused(Path(cube.path), f"has a {name} that is no array: {error}") from error
        width = np.dtype(dtype).itemsize * (dim or 1)
        left = cube.members[name].bytes - file.tell()
        due = (left // width if rows is None else rows, *(() if dim is None else (dim,)))
        if shape != due or left != due[0] * width or turned or kind != np.dtype(dtype):
            held = f"{kind}{list(shape)}" + (" by columns" if turned else "")
            problem = f"has a {name} of {held} in {left:,} bytes instead of {np.dtype(dtype)}{list(due)}"
            raise refused(Path(cube.path), problem)
        yield file, due[0]


def _numbers(file: IO[bytes]) -> Iterator[NDArray[np.int64]]:
    for block in _blocks(file):
        yield np.frombuffer(block, "<i8").astype(np.int64)


def _activations(archive: ZipFile, cube: Cube) -> Iterator[tuple[int, NDArray[np.float16], bytes | None]]:
    """The line, the vector and the token matrix of each row, from members that were checked."""
    if cube.vectors is None:
        return
    dim, matrices = cube.vectors.dim, _matrices(cube)
    with ExitStack() as stack:
        rows, count = stack.enter_context(_array(archive, cube, ROWS, "<i8", None))
        vectors, _ = stack.enter_context(_array(archive, cube, VECTORS, "<f2", dim, count))
        tokens = stack.enter_context(_member_of(archive, TOKENS)) if matrices else None
        sizes: Iterator[int] = repeat(0)
        if matrices:
            offsets, _ = stack.enter_context(_array(archive, cube, OFFSETS, "<i8", None, count + 1))
            sizes = (end - start for start, end in pairwise(_each(offsets)))
        for line in _each(rows):
            pooled = np.frombuffer(vectors.read(2 * dim), "<f2").astype(np.float16)
            yield line, pooled, None if tokens is None else tokens.read(next(sizes)) or None


def _each(file: IO[bytes]) -> Iterator[int]:
    for block in _numbers(file):
        yield from block.tolist()
