"""Secrets and personal data are replaced before they are stored, and in what is read, when that was asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from memspan import InvalidInput, Memory, MissingExtra
from memspan.redaction import Redacted, Redactor, make

SECRETS = {
    "AWS_ACCESS_KEY": "AKIAQZ3EXR7MHT5YNB2C",
    "GITHUB_TOKEN": "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "JSON_WEB_TOKEN": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "PRIVATE_KEY": "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY/PuoAoG\n"
    "-----END EC PRIVATE KEY-----",
    "CREDENTIALS": "app:c0rrect-h0rse",
    "API_KEY": "sk-ant-api03-x7Yk2mQ9vB4nL8pR5tW1zC6dF3gH0jK-aS",
    "SLACK_TOKEN": "xoxb-123456789012-123456789012-AbCdEfGhIjKlMnOpQrStUvWx",
    "SECRET": "hunter2-and-more",
}
SAID = {"CREDENTIALS": "postgres://{}@db.internal:5432/prod", "SECRET": "DB_PASSWORD={}"}
PERSONAL = {
    "EMAIL": ("ana.b+home@mail.example.org", "ана@пример.рф"),
    "PHONE": ("+49 30 901820", "(415) 555-2671", "+91 98765 43210"),
    "IBAN": ("DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819"),
    "CARD": ("4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444"),
    "IP": ("203.0.113.7", "2001:db8:0:0:8a2e::7334"),
}
HARMLESS = (
    "On 2026-05-30 14:00 we paid 1,234.56 for 12 of the 4111 seats in row 12-14; see version 1.2.3.4567 and 10:30:15.",
    "The secret: never give up. The password is long. A token of love, and the key to my heart: patience.",
    "ISBN 978-3-16-148410-0, order 1234567890123456, DE00 1234 5678 9012 3456 78 and commit 3f786850e387550fdab836ed.",
    "sk-learn and hf_hub are libraries; @ana wrote to ana at example; 127.0.0.1 is home. Score 21-19, 15-21, 11-9.",
)


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_replaced_by_its_kind(kind: str) -> None:
    redactor = make("secrets")
    assert redactor is not None
    said = SAID.get(kind, "It is {}, I think.")
    (redacted,) = redactor.redact([said.format(SECRETS[kind])])
    assert redacted == Redacted(text=said.format(f"[{kind}_1]"), counts={kind: 1})


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in PERSONAL.items() for value in values])
def test_personal_data_are_replaced_by_their_kind(kind: str, value: str) -> None:
    redactor = make("personal")
    assert redactor is not None
    (redacted,) = redactor.redact([f"Please note: {value}, and call later."])
    assert redacted == Redacted(text=f"Please note: [{kind}_1], and call later.", counts={kind: 1})


def test_each_level_finds_its_own_and_all_finds_both() -> None:
    text = f"Mail {PERSONAL['EMAIL'][0]}, the key is {SECRETS['GITHUB_TOKEN']}."
    left = {}
    for level in ("secrets", "personal", "all"):
        redactor = make(level)
        assert redactor is not None
        left[level] = redactor.redact([text])[0].text
    assert left == {
        "secrets": f"Mail {PERSONAL['EMAIL'][0]}, the key is [GITHUB_TOKEN_1].",
        "personal": f"Mail [EMAIL_1], the key is {SECRETS['GITHUB_TOKEN']}.",
        "all": "Mail [EMAIL_1], the key is [GITHUB_TOKEN_1].",
    }


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_it_stays(text: str) -> None:
    redactor = make("all")
    assert redactor is not None
    assert redactor.redact([text]) == [Redacted(text=text, counts={})]


def test_the_same_value_has_the_same_placeholder_within_one_call() -> None:
    redactor = make("personal")
    assert redactor is not None
    one, other = redactor.redact(["a@x.org wrote b@x.org, and a@x.org again", "b@x.org answered"])
    assert one.text == "[EMAIL_1] wrote [EMAIL_2], and [EMAIL_1] again"
    assert other.text == "[EMAIL_2] answered"
    assert (one.counts, other.counts) == ({"EMAIL": 3}, {"EMAIL": 1})


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def test_what_is_redacted_on_write_never_reaches_the_disk(tmp_path: Path) -> None:
    store, file = tmp_path / "store", tmp_path / "notes.md"
    secret, mail = SECRETS["GITHUB_TOKEN"], PERSONAL["EMAIL"][0]
    paragraphs = [f"Paragraph {n} about the river and who may be asked: {mail}." for n in range(60)]
    file.write_text(f"# For {mail}\n\n" + "\n\n".join(paragraphs) + f"\n\nThe key is {secret}.\n")
    with Memory(store, encoder="hash", redact="all") as memory:
        id = memory.add([{"role": "user", "content": f"My token is {secret}, my mail {mail}."}]).ids[0]
        memory.update(id, f"My new token is {secret[::-1]}{secret}.")
        memory.feedback(f"whose token is {secret}?", id)
        added = memory.add_file(file)
        assert added.document_id is not None
        document = memory.document(added.document_id)
        assert document.text == file.read_text().replace(mail, "[EMAIL_1]").replace(secret, "[GITHUB_TOKEN_1]")
        assert document.title == "For [EMAIL_1]"
        assert memory.add_file(file).added == 0
        written = on_disk(store)  # with the write-ahead log
        memory.compact()
    for raw in (written, on_disk(store)):
        assert b"For [EMAIL_1]" in raw
        for value in (secret, mail):
            assert value.encode() not in raw


def test_without_being_asked_nothing_is_redacted(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        memory.add(f"My mail is {PERSONAL['EMAIL'][0]}.")
        assert PERSONAL["EMAIL"][0] in memory.get_all()[0].text


def test_reading_can_be_redacted_and_leaves_what_is_stored(tmp_path: Path) -> None:
    mail, other = PERSONAL["EMAIL"][0], "ben@example.org"
    with Memory(":memory:", encoder="hash") as memory:
        memory.add(f"Ana has the address {mail}.")
        memory.add(f"Ben has the address {other}, Ana {mail}.")
        hits = memory.search("whose address?", redact="personal")
        whole = memory.context("whose address?", redact="personal")
        part = memory.context("whose address?", budget=60, redact="personal")
        active = memory.active_context("whose address?", redact="personal")
        assert sorted(segment.text.count("@") for segment in memory.get_all()) == [1, 2]
    assert len(hits) == 2
    for text in (*(hit.text for hit in hits), whole.text, part.text, active.text):
        assert "@" not in text
        assert "[EMAIL_1]" in text
    assert "> Ana has the address [EMAIL_1]." in whole.text
    assert "> Ben has the address [EMAIL_2], Ana [EMAIL_1]." in whole.text


def test_a_function_or_a_redactor_of_ones_own_does_too() -> None:
    class Loud:
        def redact(self, texts: list[str]) -> list[Redacted]:
            return [Redacted(text=text.upper(), counts={"CASE": 1}) for text in texts]

    assert isinstance(Loud(), Redactor)
    with Memory(":memory:", encoder="hash", redact=lambda text: text.replace("Ana", "[NAME_1]")) as memory:
        memory.add("Ana swims.")
        assert memory.search("swims", redact=Loud())[0].text == "[NAME_1] SWIMS."


@pytest.mark.parametrize("wrong", ["everything", 3, Redactor])
def test_what_redacts_nothing_is_refused_before_a_store_is_made(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(InvalidInput, match="redact"):
        Memory(tmp_path / "store", encoder="hash", redact=wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()
    with Memory(":memory:", encoder="hash") as memory:
        memory.add("Something.")
        with pytest.raises(InvalidInput, match="redact"):
            memory.search("something", redact=wrong)  # type: ignore[arg-type]


def test_a_function_that_gives_no_text_is_told_of_and_nothing_is_written() -> None:
    with Memory(":memory:", encoder="hash", redact=lambda text: None) as memory:  # type: ignore[arg-type,return-value]
        with pytest.raises(InvalidInput, match="gave a NoneType"):
            memory.add("Something.")
        assert memory.get_all() == []


@pytest.mark.parametrize(("level", "package"), [("secrets", "detect_secrets"), ("personal", "phonenumbers")])
def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, level: str, package: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    from memspan import redaction

    redaction._patterns.cache_clear()
    with pytest.raises(MissingExtra, match=r"memspan\[redact\]"):
        make(level)


def test_the_environment_says_what_is_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSPAN_REDACT", "personal")
    with Memory(tmp_path / "store", encoder="hash") as memory:
        memory.add(f"Write to {PERSONAL['EMAIL'][0]}.")
        assert memory.get_all()[0].text == "Write to [EMAIL_1]."
    with Memory(tmp_path / "store", encoder="hash", redact=None) as memory:
        memory.add("Write to b@example.org.")
        assert memory.get_all()[1].text == "Write to b@example.org."
