"""A cross-encoder as an ONNX file, by onnxruntime: no torch. So are ms-marco-MiniLM and the like on the hub.

Sources: Nogueira & Cho 2019 (arXiv:1901.04085) for reading question and text as one pair; the files are those that
sentence-transformers and Optimum export: ``model.onnx`` or ``onnx/model.onnx``, ``tokenizer.json``, ``config.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memspan.encoders.running import CHARACTERS, Session, batches, exact_bytes, options, sound
from memspan.errors import InvalidInput, ModelNotFound, RerankerError
from memspan.rerankers.base import probabilities

_WINDOW: Final = 512
_LEAST: Final = 16
_READ: Final = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""What a graph may ask for, and where an encoding of ``tokenizers`` has it."""


class OnnxReranker:
    """``path``: the directory of an exported cross-encoder, or one ``.onnx`` file in it, such as an int8 one.

    ``window``: tokens of question and text together, special ones among them; None takes what the model allows, at most
    512. A text is cut to what the question leaves of it, a question to half. ``threads``: of onnxruntime; None takes
    the cores this process may use.

    Making one reads small files; the network is loaded by the first ``rerank``. Safe to use from many threads. Raises
    ModelNotFound, RerankerError when a file is not what it should be.
    """

    def __init__(self, path: str | os.PathLike[str], *, window: int | None = None, threads: int | None = None) -> None:
        self.file, tokenizer = _files(Path(path).expanduser())
        given = Path(path).expanduser().resolve()
        self.spec = f"onnx:{given}"
        self.id = f"onnx-{given.name}" if given.suffix != ".onnx" else f"onnx-{tokenizer.parent.name}-{given.stem}"
        config = _json(tokenizer.with_name("config.json"))
        longest = _json(tokenizer.with_name("tokenizer_config.json")).get("model_max_length") or _WINDOW
        self.window = min(_limit(config), int(longest), _WINDOW) if window is None else window
        if not self.window >= _LEAST:
            raise InvalidInput("window", f"{self.window!r} is too small", mend=f"give {_LEAST} or more")
        self._pairs, self._alone = _engines(tokenizer, self.window)
        self._padding = int(config.get("pad_token_id") or 0)
        self._threads = threads
        self._session = Session()

    def __repr__(self) -> str:
        return f"OnnxReranker({str(self.file)!r})"

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[n] in [0, 1], in the order of ``texts``. Raises RerankerError when the graph cannot be run."""
        scores = np.zeros(len(texts), np.float32)
        if not texts:
            return scores
        question = self._cut(sound(query[: self.window * CHARACTERS]))
        pairs = [(question, sound(text[: self.window * CHARACTERS])) for text in texts]
        rows = self._pairs.encode_batch(pairs)
        session = self._session.made(self._load)
        types = {each.name: np.int32 if "int32" in each.type else np.int64 for each in session.get_inputs()}
        for batch in batches([len(row.ids) for row in rows]):
            shape = len(batch), max(len(rows[i].ids) for i in batch)
            inputs = {name: np.zeros(shape, kind) for name, kind in types.items()}
            inputs["input_ids"][:] = self._padding
            for at, i in enumerate(batch):
                for name, padded in inputs.items():
                    padded[at, : len(rows[i].ids)] = getattr(rows[i], _READ[name])
            try:
                logits = session.run([_output(session)], inputs)[0]
            except Exception as error:  # onnxruntime's errors have no common root below Exception
                raise RerankerError(
                    f"{self.id} failed on {shape[0]} texts of up to {shape[1]} tokens ({error})",
                    mend="check that tokenizer.json belongs to this model, or give a smaller window",
                ) from error
            scores[batch] = probabilities(logits, self.id)
        return scores

    def _cut(self, query: str) -> str:
        """The question without what is over half the window."""
        offsets = self._alone.encode(query, add_special_tokens=False).offsets
        most = self.window // 2 - 2
        return query if len(offsets) <= most else query[: offsets[most - 1][1]]

    def _load(self) -> Any:
        import onnxruntime

        try:
            session = onnxruntime.InferenceSession(
                str(self.file), exact_bytes(options(self._threads)), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common root below Exception
            raise RerankerError(
                f"onnxruntime {onnxruntime.__version__} cannot load {self.file} ({error})",
                mend="download or export the model again, or pip install --upgrade onnxruntime",
            ) from error
        inputs = {each.name for each in session.get_inputs()}
        if not {"input_ids", "attention_mask"} <= inputs <= _READ.keys():
            raise RerankerError(
                f"{self.file} is no exported cross-encoder: its inputs are {', '.join(sorted(inputs))}",
                mend=f"give one whose inputs are {', '.join(_READ)}, or the first two",
            )
        return session


def _output(session: Any) -> str:
    names = [each.name for each in session.get_outputs()]
    return "logits" if "logits" in names else str(names[0])


def _files(path: Path) -> tuple[Path, Path]:
    """The graph and the tokenizer. Raises ModelNotFound."""
    graphs = [path] if path.suffix == ".onnx" else [path / "model.onnx", path / "onnx" / "model.onnx"]
    graph = next((file for file in graphs if file.is_file()), None)
    folders = [] if graph is None else [graph.parent, graph.parent.parent]
    tokenizer = next((file for folder in folders if (file := folder / "tokenizer.json").is_file()), None)
    if graph is None or tokenizer is None:
        lacking = "tokenizer.json" if graph is not None else "model.onnx"
        raise ModelNotFound(
            f"reranker: {str(path)!r} lacks {lacking}",
            mend="give the directory of an exported cross-encoder: hf download cross-encoder/ms-marco-MiniLM-L6-v2"
            " onnx/model.onnx tokenizer.json config.json tokenizer_config.json --local-dir DIRECTORY",
        )
    return graph, tokenizer


def _engines(file: Path, window: int) -> tuple[Any, Any]:
    """The tokenizer twice: for pairs cut to ``window``, and for a question alone, whole."""
    from tokenizers import Tokenizer

    try:
        pairs, alone = (Tokenizer.from_str(file.read_text(encoding="utf-8")) for _ in range(2))
    except Exception as error:  # what tokenizers raises has no common root below Exception
        raise RerankerError(f"cannot read {file} ({error})", mend="download or export the model again") from error
    for engine in (pairs, alone):
        engine.no_padding()
        engine.no_truncation()
    pairs.enable_truncation(window, strategy="only_second")
    return pairs, alone


def _limit(config: dict[str, Any]) -> int:
    """How many positions the model has for tokens; those of RoBERTa's kind count from after the padding's."""
    positions = int(config.get("max_position_embeddings") or _WINDOW)
    if "roberta" in str(config.get("model_type", "")) or config.get("model_type") == "camembert":
        return positions - int(config.get("pad_token_id") or 0) - 1
    return positions if positions > 0 else _WINDOW


def _json(file: Path) -> dict[str, Any]:
    """The object in ``file``; nothing where there is no such file, as a graph alone can be run."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RerankerError(f"cannot read {file} ({error})", mend="download or export the model again") from error
    return found if isinstance(found, dict) else {}
