"""One small frozen Config. The environment and the configuration file are read in ``Config.load`` and nowhere else.

Each setting is taken from the first place that names it: the argument of ``Config.load`` (or an option of the command
line), the environment variable (an empty one counts as unset), the configuration file, the default.

    setting     variable             default
    store       MEMSPAN_STORE        <user data directory>/default
    encoder     MEMSPAN_ENCODER      auto
    reranker    MEMSPAN_RERANKER     none
    llm         MEMSPAN_LLM          none
    namespace   MEMSPAN_NAMESPACE    default
    redact      MEMSPAN_REDACT       none
    model       MEMSPAN_MODEL        none: the model is searched for
    cache       MEMSPAN_CACHE        <user cache directory>
    key_file    MEMSPAN_KEY_FILE     none
    key         MEMSPAN_KEY          none: what key_file holds; never in the configuration file

The configuration file is TOML with these settings at its top level, at ``<user configuration directory>/config.toml``
or where MEMSPAN_CONFIG says. The user directories are those of ``platformdirs`` for "memspan"; on Linux
``~/.local/share/memspan``, ``~/.cache/memspan`` and ``~/.config/memspan``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from memspan.errors import InvalidInput


def _data() -> Path:
    return Path(platformdirs.user_data_dir("memspan", appauthor=False))


SECRET = ("password=", "sslpassword=")
SCHEMES = ("postgresql://", "postgres://")


def _cache() -> Path:
    return Path(platformdirs.user_cache_dir("memspan", appauthor=False))


@dataclass(frozen=True, slots=True)
class Database:
    """The address of a store on a server, ``postgresql://user:password@host:port/database``; as a text it is without
    the password."""

    url: str = field(repr=False)

    def __str__(self) -> str:
        scheme, slashes, rest = self.url.partition("://")
        user, at, rest = rest.rpartition("@")  # the last: whoever writes the address may have forgotten to quote others
        there, mark, query = rest.partition("?")
        told = "&".join(part for part in query.split("&") if not part.startswith(SECRET))
        return scheme + slashes + user.partition(":")[0] + at + there + (mark and told and mark) + told


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where things are and what they are called.

    ``store``: the directory, or the database, opened when no path is given. ``encoder``: ``"auto"`` (what the store was
    made with, else the default model) or a spec of ``memspan.encoders``: ``"minilm"``, ``"hash"``, ``"none"`` (keywords
    only), ``"http:MODEL@http://HOST:PORT/v1"``, ... ``tokens``: how the token activations of a new store are kept:
    ``"auto"``, ``"none"``, ``"1bit"``, ``"4bit"``, ``"int8"`` or ``"f16"``. ``reranker``: ``"none"`` or a spec of
    ``memspan.rerankers``: ``"onnx:DIRECTORY"``, ``"cross-encoder:NAME"``, ... ``llm``: ``"none"`` or
    ``"http:MODEL@http://HOST:PORT/v1"``, the language model that may write facts and summaries (see ``memspan.facts``).
    ``redact``: what is replaced before it is stored, ``"none"``, ``"secrets"``, ``"personal"`` or ``"all"``.
    ``namespace``: the one used when a call names none. ``model``: a sentence-transformers directory that holds the
    default model. ``cache``: where models built for this machine are kept; safe to delete. ``key`` opens encrypted
    stores; ``key_file`` is a text file that holds it.
    """

    store: Path | Database = field(default_factory=lambda: _data() / "default")
    encoder: str = "auto"
    tokens: str = "auto"
    reranker: str = "none"
    redact: str = "none"
    llm: str = "none"
    namespace: str = "default"
    model: Path | None = None
    cache: Path = field(default_factory=_cache)
    key_file: Path | None = None
    key: str | None = field(default=None, repr=False)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Config:
        """The configuration in force. ``environ`` defaults to ``os.environ``; ``given`` values that are None are unset.

        Raises InvalidInput naming the variable, or the file and its key, that holds a bad value.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        path, table = _read_file(environ)
        for name, value in table.items():
            values[name] = _checked(name, value, f"{name} in {path}")
        for name in READERS:
            variable = f"MEMSPAN_{name.upper()}"
            if environ.get(variable):
                values[name] = _checked(name, environ[variable], variable)
        values["key"] = environ.get("MEMSPAN_KEY") or None
        for name, value in given.items():
            if name not in READERS:
                raise TypeError(f"Config.load() got an unexpected keyword argument {name!r}")
            if value is not None:
                values[name] = _checked(name, os.fspath(value) if isinstance(value, os.PathLike) else value, name)
        return cls(**values)

    def secret(self) -> str | None:
        """The key of encrypted stores, from ``key`` or out of ``key_file``. Raises InvalidInput."""
        return self.key if self.key or self.key_file is None else key_in(self.key_file, "key_file")

    @staticmethod
    def data_directory() -> Path:
        """The user's data directory for memspan, which holds the default store; it may not exist yet."""
        return _data()


def key_in(path: Path, argument: str) -> str:
    """The key in a file: its text without the line break at its end. Raises InvalidInput naming ``argument``."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        mend = "name a text file that this user can read"
        raise InvalidInput(argument, f"{path} cannot be read ({error})", mend=mend) from error


def _read_file(environ: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    named = environ.get("MEMSPAN_CONFIG")
    path = Path(named or Path(platformdirs.user_config_dir("memspan", appauthor=False)) / "config.toml").expanduser()
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if not named:
            return path, {}
        raise InvalidInput("MEMSPAN_CONFIG", f"there is no file {path}", mend="name a TOML file or unset it") from None
    except OSError as error:
        argument = "MEMSPAN_CONFIG" if named else str(path)
        raise InvalidInput(argument, f"{path} cannot be read ({error.strerror})", mend="make it readable") from error
    try:
        table = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(str(path), f"is not TOML ({error})", mend="correct that line or remove the file") from error
    unknown = sorted(set(table) - set(READERS))
    if unknown:
        raise InvalidInput(f"{unknown[0]} in {path}", "is not a setting", mend=f"settings are {', '.join(READERS)}")
    return path, table


def _checked(name: str, value: Any, origin: str) -> Any:
    if not isinstance(value, str) or not value.strip():
        kind = "empty" if isinstance(value, str) else f"a {type(value).__name__}"
        raise InvalidInput(origin, f"is {kind}", mend="give a text that is not empty, or leave it out")
    if "\0" in value:
        raise InvalidInput(origin, "holds a NUL byte", mend="give a text without it")
    return READERS[name](value.strip())


def _path(value: str) -> Path:
    return Path(value).expanduser()


def _place(value: str) -> Path | Database:
    return Database(value) if value.startswith(SCHEMES) else _path(value)


READERS: dict[str, Callable[[str], Any]] = {
    f.name: _place if f.name == "store" else _path if f.name in {"model", "cache", "key_file"} else str
    for f in fields(Config)
    if f.name != "key"
}
