"""The commands about encryption at rest: encrypt, rekey.

Keys come from files, the environment or the keyring, never from the command line: every process here can read that.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.config import Config, key_in
from memspan.errors import InvalidInput

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", metavar="FILE", help="Holds the key of the store as it is; else MEMSPAN_KEY.", show_default=False
    ),
]
NewKeyFile = Annotated[
    Path | None,
    typer.Option("--new-key-file", metavar="FILE", help="Holds the new key; - is stdin.", show_default=False),
]
Keyring = Annotated[
    bool,
    typer.Option("--keyring", help="Make a random key and keep it in the system's keyring.", show_default=False),
]


def encrypt(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the copy goes.", show_default=False)],
    key_file: KeyFile = None,
    new_key_file: NewKeyFile = None,
    keyring: Keyring = False,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Make an encrypted copy of a store; one in clear takes MEMSPAN_KEY unless a new key is named."""
    from memspan import encryption

    config = Config.load(store=store, key_file=key_file)
    place = o.directory(config.store)
    new = _new(new_key_file)
    if new is None and not keyring and not encryption.is_encrypted(place):
        new = _given(config, key_file)
    encryption.encrypt(place, to, key=_given(config, key_file), new_key=new, keyring=keyring)
    _tell(f"encrypted copy at {to}; remove {place} when you have opened the copy", json, encrypted=str(to))


def rekey(
    key_file: KeyFile = None,
    new_key_file: NewKeyFile = None,
    keyring: Keyring = False,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Have another key open an encrypted store, from now on and at once."""
    from memspan import encryption

    config = Config.load(store=store, key_file=key_file)
    place = o.directory(config.store)
    new = _new(new_key_file)
    encryption.rekey(place, key=_given(config, key_file), new_key=new, keyring=keyring)
    _tell(f"the new key opens {place}", json, rekeyed=str(place))


def _given(config: Config, key_file: Path | None) -> str | None:
    """The key of the store as it is: what an option names goes before the environment."""
    return config.secret() if key_file is None else key_in(key_file, "--key-file")


def _new(file: Path | None) -> str | None:
    if file is None:
        return None
    if str(file) != "-":
        return key_in(file, "--new-key-file")
    if not (line := sys.stdin.readline().rstrip("\r\n")):
        raise InvalidInput("--new-key-file", "stdin holds no line", mend="write the new key to it")
    return line


def _tell(done: str, json: bool, **report: str) -> None:
    if json:
        output.emit(report)
    else:
        typer.echo(output.line(done))
