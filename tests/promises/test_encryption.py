"""An encrypted store: nothing of it is in clear on the disk, only its key opens it, and it is as safe as another."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import keyring
import numpy as np
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked
from running import started
from test_crash import campaign, lines_until_killed

from memspan import InvalidInput, KeyNeeded, Memory, MissingExtra, NewerStore, NotEncrypted, StoreCorrupt, WrongKey
from memspan.cli import main
from memspan.config import Config
from memspan.encryption import encrypt, rekey
from memspan.keys import Key
from memspan.ledger import schema
from memspan.testing import WordEncoder

PASSPHRASE = "correct horse battery staple"
RANDOM = bytes(range(32))
OTHER = bytes(range(1, 33))
TEXT = "The zebulon treaty hides beneath the marzipan lighthouse."
CLEAR = [
    "zebulon", "marzipan", "lighthous", "Quillon", "persimmon", "Vermeer", "obsidian-42", "Zanzibar", "telltale",
    "tenantx",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _small(small_snapshots: None, words: WordEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots from a few rows on, and token activations by an encoder without a model; of stores made here by another
    encoder none. Passphrases cost little here; in other processes they cost what they do for users."""
    monkeypatch.delenv("MEMSPAN_TOKENS")
    monkeypatch.setattr("memspan.keys._SCRYPT", {"n": 1 << 8, "r": 8, "p": 1})


def filled(path: Path, key: Key | None, many: int = 40) -> None:
    """A store with something of everything that a store keeps."""
    with Memory(path, key=key, encoder=WordEncoder(), namespace="tenantx") as memory:
        kept = memory.add(
            TEXT,
            category="Vermeer / Inner",
            metadata={"persimmon": "obsidian-42"},
            user_id="Zanzibar",
            session="telltale",
        )
        spoken = [{"role": "user", "name": "Quillon", "content": f"Of number {n} I know zebulon."} for n in range(many)]
        memory.add(spoken, session="telltale")
        memory.update(kept.ids[0], TEXT + " Indeed.")
        memory.feedback("where is the marzipan?", kept.ids[0])
        memory.search("marzipan")
        memory.compact()
        memory.add("Written after the snapshot: zebulon again.")


def needles(path: Path, key: Key | None) -> dict[str, bytes]:
    """What must not be found in the files: words, and numbers that the encoder made of them."""
    found = {word: word.encode() for word in CLEAR}
    with Memory(path, key=key, encoder=WordEncoder(), namespace="tenantx") as memory:
        seqs, vectors = memory._ledger.vectors("tenantx", -1, 100)
        found["vector"] = vectors[0].astype(np.float16).tobytes()
        found["tokens"] = memory._ledger.tokens_of("tenantx", seqs[:1].tolist()).codes.tobytes()
    assert len(found["tokens"]) >= 16
    return found


def in_files(path: Path, wanted: dict[str, bytes]) -> set[str]:
    """Which of ``wanted`` are in any byte of any file under ``path``, whatever their case."""
    raws = [file.read_bytes() for file in path.rglob("*") if file.is_file()]
    assert sum(map(len, raws)) > 10_000
    return {name for name, what in wanted.items() if any(what in raw or what.lower() in raw.lower() for raw in raws)}


def arena(path: Path) -> Path:
    (file,) = (path / "activations").glob("arena-*.bin")
    return file


# Nothing in clear


def test_nothing_of_an_encrypted_store_is_in_clear_in_any_of_its_files(tmp_path: Path) -> None:
    filled(tmp_path / "clear", None)
    filled(tmp_path / "sealed", PASSPHRASE)
    wanted = needles(tmp_path / "clear", None)
    assert needles(tmp_path / "sealed", PASSPHRASE) == wanted
    assert in_files(tmp_path / "clear", wanted) == set(wanted), "the search of the files finds what is there"
    assert not in_files(tmp_path / "sealed", wanted)
    assert len(list((tmp_path / "sealed" / "views").glob("*.safetensors"))) >= 3


def test_neither_the_log_nor_a_torn_write_of_a_killed_process_is_in_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSPAN_KEY", RANDOM.hex())
    monkeypatch.setenv("MEMSPAN_TOKENS", "1bit")
    choose = random.Random(5)
    assert len(list(lines_until_killed(tmp_path / "store", 1, choose))) > 2
    assert (tmp_path / "store" / "ledger.db-wal").stat().st_size > 0
    assert not in_files(tmp_path / "store", {"text": b"kettle"})


def test_a_backup_before_a_migration_is_encrypted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "store", PASSPHRASE)
    known = schema.migrations("sqlite")
    more = schema.Migration(known[-1].number + 1, "notes", "CREATE TABLE notes (note TEXT);")
    monkeypatch.setattr(schema, "migrations", lambda dialect: [*known, more])
    with Memory(tmp_path / "store", key=PASSPHRASE, encoder=WordEncoder(), namespace="tenantx") as memory:
        assert memory.search("marzipan", k=1)[0].text.startswith(TEXT)
    (backup,) = (tmp_path / "store").glob("ledger.db.before-*")
    assert backup.stat().st_size > 10_000
    assert not in_files(tmp_path / "store", needles(tmp_path / "store", PASSPHRASE))
    monkeypatch.undo()
    monkeypatch.setattr("memspan.store.shipped", lambda id: WordEncoder().basis())
    backup.replace(tmp_path / "store" / "ledger.db")
    for left in (tmp_path / "store").glob("ledger.db-*"):
        left.unlink()
    with Memory(tmp_path / "store", key=PASSPHRASE, encoder=WordEncoder(), namespace="tenantx") as memory:
        assert memory.verify()["ok"], "the backup opens with the same key"


def test_what_is_not_encrypted_loads_no_cipher_and_is_what_it_was(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom memspan import Memory\n"
        f"with Memory({str(tmp_path / 'store')!r}, encoder='hash') as memory:\n"
        "    memory.add('in clear')\n    assert not memory.stats()['encrypted']\n"
        "assert not {'sqlcipher3', 'cryptography'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert (tmp_path / "store" / "ledger.db").read_bytes().startswith(b"SQLite format 3\0")


# Keys


@pytest.mark.parametrize(
    "key", [PASSPHRASE, RANDOM, RANDOM.hex(), lambda: PASSPHRASE], ids=["text", "bytes", "hex", "function"]
)
def test_a_store_opens_with_the_key_it_was_made_with(tmp_path: Path, key: Key) -> None:
    with Memory(tmp_path / "store", key=key, encoder="hash") as memory:
        memory.add("The key is under the mat.")
    with Memory(tmp_path / "store", key=key) as memory:
        assert [hit.text for hit in memory.search("mat")] == ["The key is under the mat."]
        assert memory.stats()["encrypted"]


def test_one_passphrase_is_the_same_however_its_letters_are_composed(tmp_path: Path) -> None:
    Memory(tmp_path / "store", key="caf\u00e9", encoder="hash").close()
    Memory(tmp_path / "store", key="cafe\u0301").close()


@pytest.mark.parametrize("wrong", ["another", OTHER, "0" * 64])
@pytest.mark.parametrize("right", [PASSPHRASE, RANDOM])
def test_a_wrong_key_is_told_and_changes_nothing(tmp_path: Path, right: Key, wrong: Key) -> None:
    filled(tmp_path / "store", right, many=3)
    before = {file: file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file()}
    with pytest.raises(WrongKey, match="; give the right one"):
        Memory(tmp_path / "store", key=wrong)
    assert {file: file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file()} == before


def test_no_key_and_a_key_too_many_are_told_apart(tmp_path: Path) -> None:
    Memory(tmp_path / "sealed", key=PASSPHRASE, encoder="hash").close()
    Memory(tmp_path / "clear", encoder="hash").close()
    with pytest.raises(KeyNeeded, match="MEMSPAN_KEY"):
        Memory(tmp_path / "sealed")
    with pytest.raises(NotEncrypted, match="memspan encrypt"):
        Memory(tmp_path / "clear", key=PASSPHRASE)
    assert not (tmp_path / "clear" / "encryption.json").exists()


@pytest.mark.parametrize("key", ["", b"", b"short", 7, lambda: None])
def test_what_is_no_key_is_refused_before_anything_is_made(tmp_path: Path, key: Key) -> None:
    with pytest.raises(InvalidInput, match="give a passphrase") as told:
        Memory(tmp_path / "store", key=key)
    assert told.value.argument == "key"
    assert not (tmp_path / "store").exists()


def test_the_key_comes_from_the_environment_or_a_file_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSPAN_KEY", PASSPHRASE)
    Memory(tmp_path / "store", encoder="hash").close()
    assert PASSPHRASE not in repr(Config.load())
    monkeypatch.delenv("MEMSPAN_KEY")
    (tmp_path / "key").write_text(PASSPHRASE + "\n", encoding="utf-8")
    monkeypatch.setenv("MEMSPAN_KEY_FILE", str(tmp_path / "key"))
    Memory(tmp_path / "store").close()
    monkeypatch.setenv("MEMSPAN_KEY_FILE", str(tmp_path / "nothing"))
    with pytest.raises(InvalidInput, match="cannot be read"):
        Memory(tmp_path / "store")
    (tmp_path / "config.toml").write_text('key = "no"', encoding="utf-8")
    monkeypatch.setenv("MEMSPAN_CONFIG", str(tmp_path / "config.toml"))
    with pytest.raises(InvalidInput, match="is not a setting"):
        Config.load()


def test_a_missing_library_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sqlcipher3", None)
    with pytest.raises(MissingExtra, match=r"memspan\[encryption\]"):
        Memory(tmp_path / "store", key=PASSPHRASE)
    assert not (tmp_path / "store").exists()


class Ring(KeyringBackend):
    """A keyring as a system has one."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked("nobody is here")
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


@pytest.fixture
def ring() -> Iterator[Ring]:
    before, ring = keyring.get_keyring(), Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


def test_a_store_whose_key_is_in_the_keyring_opens_without_one(tmp_path: Path, ring: Ring) -> None:
    filled(tmp_path / "store", PASSPHRASE)
    rekey(tmp_path / "store", key=PASSPHRASE, keyring=True)
    (held,) = ring.held.values()
    with Memory(tmp_path / "store", encoder=WordEncoder(), namespace="tenantx") as memory:
        assert memory.search("marzipan", k=1)[0].text.startswith(TEXT)
    Memory(tmp_path / "store", key=held, encoder=WordEncoder()).close()
    with pytest.raises(WrongKey):
        Memory(tmp_path / "store", key=PASSPHRASE)
    ring.locked = True
    with pytest.raises(KeyNeeded, match="unlock it"):
        Memory(tmp_path / "store")
    ring.locked = False
    ring.held.clear()
    with pytest.raises(KeyNeeded, match="has no key"):
        Memory(tmp_path / "store")


def test_another_key_opens_a_store_and_who_holds_it_open_goes_on(tmp_path: Path) -> None:
    filled(tmp_path / "store", PASSPHRASE)
    with Memory(tmp_path / "store", key=PASSPHRASE, encoder=WordEncoder(), namespace="tenantx") as memory:
        rekey(tmp_path / "store", key=PASSPHRASE, new_key=RANDOM)
        memory.add("Written while the key was changed.")
        with Memory(tmp_path / "store", key=RANDOM, encoder=WordEncoder(), namespace="tenantx") as other:
            assert other.search("changed", k=1)[0].text == "Written while the key was changed."
    with pytest.raises(WrongKey):
        Memory(tmp_path / "store", key=PASSPHRASE)
    with pytest.raises(WrongKey):
        rekey(tmp_path / "store", key=PASSPHRASE, new_key="third")
    with pytest.raises(InvalidInput, match="is missing"):
        rekey(tmp_path / "store", key=RANDOM)


# Copies


@pytest.mark.parametrize("key", [None, PASSPHRASE], ids=["clear", "encrypted"])
def test_an_encrypted_copy_holds_all_and_the_store_is_left_as_it_was(tmp_path: Path, key: Key | None) -> None:
    filled(tmp_path / "store", key)
    encrypt(tmp_path / "store", tmp_path / "copy", key=key, new_key=RANDOM)
    wanted = needles(tmp_path / "store", key)
    assert not in_files(tmp_path / "copy", wanted)
    with (
        Memory(tmp_path / "store", key=key, encoder=WordEncoder(), namespace="tenantx") as memory,
        Memory(tmp_path / "copy", key=RANDOM, encoder=WordEncoder(), namespace="tenantx") as copy,
    ):
        assert copy.verify() == memory.verify()
        assert copy.verify()["ok"]
        assert copy.get_all(limit=100) == memory.get_all(limit=100)
        for recipe in ("default", "keyword", "semantic"):
            told = [hit.id for hit in memory.search("zebulon marzipan", recipe=recipe)]
            assert told == [hit.id for hit in copy.search("zebulon marzipan", recipe=recipe)]
        kept, same = copy.stats(), memory.stats()
        assert kept["activations"]["tensors"] == same["activations"]["tensors"] > 0
        assert {name: view["rows"] for name, view in kept["views"].items()} == {
            name: view["rows"] for name, view in same["views"].items()
        }
        copy.add("The copy goes its own way.")
        copy.compact()
        assert copy.verify()["ok"]
    with pytest.raises(InvalidInput, match="there is something at"):
        encrypt(tmp_path / "store", tmp_path / "copy", key=key, new_key=RANDOM)
    with pytest.raises(InvalidInput, match="is missing"):
        encrypt(tmp_path / "store", tmp_path / "another", key=key)
    assert {file.name for file in tmp_path.iterdir()} == {"store", "copy"}, "what was begun is gone"


def test_a_damaged_matrix_is_left_out_of_a_copy_and_made_again_there(tmp_path: Path) -> None:
    filled(tmp_path / "store", None)
    damage(arena(tmp_path / "store"))
    encrypt(tmp_path / "store", tmp_path / "copy", new_key=RANDOM)
    with Memory(tmp_path / "copy", key=RANDOM, encoder=WordEncoder(), namespace="tenantx") as copy:
        assert copy.stats()["activations"]["lost"] > 0
        copy.compact()
        assert copy.stats()["activations"]["lost"] == 0
        assert copy.verify()["ok"]


def test_the_commands_take_keys_from_files_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return int(ended.value.code or 0)

    with Memory(tmp_path / "store", encoder="hash") as memory:
        memory.add("The key is under the mat.")
    (tmp_path / "new").write_text("a new key\n", encoding="utf-8")
    assert run("encrypt", "--store", tmp_path / "store", "--to", tmp_path / "copy") == 2, "no key is named"
    monkeypatch.setenv("MEMSPAN_KEY", PASSPHRASE)
    assert run("encrypt", "--store", tmp_path / "store", "--to", tmp_path / "copy", "--json") == 0
    assert run("rekey", "--store", tmp_path / "copy", "--new-key-file", tmp_path / "new") == 0
    assert run("search", "mat", "--store", tmp_path / "copy") == 3
    assert "Mend:  give the right one" in capsys.readouterr().err
    monkeypatch.setenv("MEMSPAN_KEY", "a new key")
    assert run("search", "mat", "--store", tmp_path / "copy") == 0
    assert "under the mat" in capsys.readouterr().out


# Damage


def damage(file: Path, *, mend_checksum: bool = False) -> None:
    """Change one bit of the first record of an arena, and its checksum to match, as somebody would who means it."""
    raw = bytearray(file.read_bytes())
    mark, checksum, size = struct.unpack_from("<4sIQ", raw, 16)
    assert (mark, checksum) == (b"rec\n", zlib.crc32(raw[32 : 32 + size]))
    raw[32 + size // 2] ^= 1
    if mend_checksum:
        struct.pack_into("<I", raw, 20, zlib.crc32(raw[32 : 32 + size]))
    file.write_bytes(raw)


def test_a_changed_token_matrix_is_named_and_made_again_even_if_its_checksum_fits(tmp_path: Path) -> None:
    filled(tmp_path / "store", RANDOM)
    damage(arena(tmp_path / "store"), mend_checksum=True)
    with Memory(tmp_path / "store", key=RANDOM, encoder=WordEncoder(), namespace="tenantx") as memory:
        assert memory.search("marzipan", k=1)[0].text.startswith(TEXT), "searches do without it"
        (problem,) = memory.verify()["problems"]
        assert f"{arena(tmp_path / 'store')} is damaged at byte 32" in problem
        memory.compact()
        assert memory.verify()["problems"] == []
        assert memory.stats()["activations"]["lost"] == 0


def test_token_matrices_that_were_exchanged_are_named(tmp_path: Path) -> None:
    filled(tmp_path / "store", RANDOM)
    file = arena(tmp_path / "store")
    raw, places, at = bytearray(file.read_bytes()), {}, 16
    while raw[at : at + 4] == b"rec\n":
        size = struct.unpack_from("<Q", raw, at + 8)[0]
        places.setdefault(size, []).append(at)
        at += 16 + -(-size // 16) * 16
    size, (one, two, *_) = next((size, found) for size, found in places.items() if len(found) > 1)
    first, second = raw[one : one + 16 + size], raw[two : two + 16 + size]
    raw[one : one + 16 + size], raw[two : two + 16 + size] = second, first
    file.write_bytes(raw)
    with Memory(tmp_path / "store", key=RANDOM, encoder=WordEncoder(), namespace="tenantx") as memory:
        assert len(memory.verify()["problems"]) == 2


@pytest.mark.parametrize("how", ["changed", "cut", "renamed"])
def test_a_snapshot_that_is_not_what_was_written_is_named_and_made_anew(tmp_path: Path, how: str) -> None:
    filled(tmp_path / "store", RANDOM)
    file, other = sorted((tmp_path / "store" / "views").glob("*.safetensors"))[:2]
    raw = file.read_bytes()
    changed = {"changed": raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:], "cut": raw[:-9], "renamed": other.read_bytes()}
    file.write_bytes(changed[how])
    with Memory(tmp_path / "store", key=RANDOM, encoder=WordEncoder(), namespace="tenantx") as memory:
        assert any(f"{file} is not what was written" in problem for problem in memory.verify()["problems"])
        assert memory.search("marzipan", k=1)[0].text.startswith(TEXT)
        memory.rebuild()
        assert memory.verify()["problems"] == []


def test_a_changed_page_of_the_ledger_is_a_damaged_store(tmp_path: Path) -> None:
    filled(tmp_path / "store", RANDOM)
    ledger = tmp_path / "store" / "ledger.db"
    raw = bytearray(ledger.read_bytes())
    for page in range(3 * 4096, len(raw), 4096):
        raw[page + 100] ^= 1
    ledger.write_bytes(raw)
    with pytest.raises(StoreCorrupt, match="is damaged"):
        Memory(tmp_path / "store", key=RANDOM, encoder=WordEncoder()).verify()


def test_encryption_json_cannot_be_changed_or_lost_without_being_told(tmp_path: Path) -> None:
    filled(tmp_path / "store", PASSPHRASE, many=3)
    file = tmp_path / "store" / "encryption.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    for change, error in [
        ({"keyring": "mine"}, WrongKey),
        ({"kdf": {**about["kdf"], "salt": "00" * 16}}, WrongKey),
        ({"kdf": {**about["kdf"], "n": 1 << 40}}, StoreCorrupt),
        ({"key": "none"}, StoreCorrupt),
        ({"format": 2}, NewerStore),
    ]:
        file.write_text(json.dumps(about | change), encoding="utf-8")
        with pytest.raises(error):
            Memory(tmp_path / "store", key=PASSPHRASE)
    file.unlink()
    with pytest.raises(StoreCorrupt, match=r"encryption\.json is gone"):
        Memory(tmp_path / "store", key=PASSPHRASE)
    with pytest.raises(StoreCorrupt):
        Memory(tmp_path / "store")
    file.write_text(json.dumps(about), encoding="utf-8")
    Memory(tmp_path / "store", key=PASSPHRASE, encoder=WordEncoder()).close()


def test_a_ledger_in_clear_is_not_taken_for_an_encrypted_one(tmp_path: Path) -> None:
    filled(tmp_path / "store", RANDOM, many=3)
    Memory(tmp_path / "clear", encoder="hash").close()
    shutil.copy(tmp_path / "clear" / "ledger.db", tmp_path / "store" / "ledger.db")
    with pytest.raises(StoreCorrupt, match="in clear"):
        Memory(tmp_path / "store", key=RANDOM)


def test_a_store_that_was_being_made_when_the_power_went_is_made_again(tmp_path: Path) -> None:
    filled(tmp_path / "store", RANDOM, many=3)
    about = (tmp_path / "store" / "encryption.json").read_bytes()
    for name, raw in (("encryption.json.part", about[:20]), ("encryption.json", about)):
        (tmp_path / name / "store").mkdir(parents=True)
        (tmp_path / name / "store" / name).write_bytes(raw)
        with Memory(tmp_path / name / "store", key=RANDOM, encoder="hash") as memory:
            memory.add("The key is under the mat.")
            assert memory.stats()["encrypted"]


def test_the_ledger_is_no_database_without_its_key(tmp_path: Path) -> None:
    filled(tmp_path / "store", RANDOM, many=3)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        sqlite3.connect(tmp_path / "store" / "ledger.db").execute("SELECT * FROM segments")


# As safe as another


def test_every_acknowledged_write_to_an_encrypted_store_survives_a_killed_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: WordEncoder
) -> None:
    monkeypatch.setenv("MEMSPAN_KEY", RANDOM.hex())
    monkeypatch.setenv("MEMSPAN_TOKENS", "1bit")
    campaign(tmp_path / "store", kills=2, seed=22, encoder=words)
    assert not in_files(tmp_path / "store", {"text": b"kettle"})


@pytest.mark.soak
def test_every_acknowledged_write_to_an_encrypted_store_survives_a_hundred_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: WordEncoder
) -> None:
    monkeypatch.setenv("MEMSPAN_KEY", RANDOM.hex())
    monkeypatch.setenv("MEMSPAN_TOKENS", "1bit")
    campaign(tmp_path / "store", kills=100, seed=random.SystemRandom().randrange(1 << 30), encoder=words)
    assert not in_files(tmp_path / "store", {"text": b"kettle"})


def test_processes_share_an_encrypted_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSPAN_KEY", PASSPHRASE)
    monkeypatch.setenv("MEMSPAN_TOKENS", "1bit")
    store = tmp_path / "store"
    with started("open_new", store) as one, started("open_new", store) as two:
        for process in (one, two):
            process.hear()
        for process in (one, two):
            process.tell("now")
        said = [process.finish()[0] for process in (one, two)]
    assert len({line["store"] for line in said}) == 1, "they made one store, with one key"
    kdf = json.loads((store / "encryption.json").read_text(encoding="utf-8"))["kdf"]
    assert (kdf["n"], kdf["r"], kdf["p"]) == (1 << 15, 8, 3), "what a guess costs"
    with started("write", store, 1, 20) as one, started("write", store, 2, 20) as two:
        told = [*one.finish(), *two.finish()]
    with Memory(store, encoder=WordEncoder()) as memory:
        assert {line["id"] for line in (*told, *said)} == {segment.id for segment in memory.get_all(limit=100)}
        assert memory.verify()["problems"] == []


def test_a_forked_child_goes_on_with_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSPAN_KEY", RANDOM.hex())
    monkeypatch.setenv("MEMSPAN_TOKENS", "1bit")
    with started("fork", tmp_path / "store") as process:
        assert process.finish() == [{"child": 0}]
    with Memory(tmp_path / "store", encoder=WordEncoder()) as memory:
        assert memory.stats()["segments"] == 103
        assert memory.verify()["problems"] == []
