"""Any transformers model as an adapter: the extra ``huggingface``."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import numpy as np

from memspan.encoders.running import sound
from memspan.errors import EncoderError, InvalidInput, MissingExtra
from memspan.membank.adapters import ModelAdapter, Vectors

Pooling = Literal["mean", "last", "cls"]

BATCH: Final = 32  # texts computed at once
MOST_TOKENS: Final = 1 << 20  # a tokenizer's way of saying that it knows no limit is a far larger number


class HuggingFaceAdapter(ModelAdapter):
    """The activation of a block of a transformers model, encoder or decoder, caught by a forward hook.

    ``model``: a name on the Hugging Face hub or a directory; a pair (model, tokenizer); or a model, with ``tokenizer``.
    ``layer``: which block, counted from the end where negative. ``pooling``: over the text's own tokens, their
    ``"mean"``, the ``"last"`` or the first (``"cls"``). ``device``: as torch calls it; None leaves a given model where
    it is, and a loaded one on the CPU. ``model_id`` says model, block and pooling.

    Texts are cut to what the model reads. A tokenizer without a padding token uses its end token, which no activation
    sees. Safe to use from many threads, which wait for one another. Raises MissingExtra, InvalidInput, and EncoderError
    when there is no such model or it has no blocks.
    """

    def __init__(
        self,
        model: Any,
        layer: int = -1,
        pooling: Pooling = "mean",
        device: str | None = None,
        *,
        tokenizer: Any = None,
    ) -> None:
        if pooling not in get_args(Pooling):
            raise InvalidInput("pooling", f"{pooling!r} is unknown", mend="give 'mean', 'last' or 'cls'")
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingExtra(
                "HuggingFaceAdapter needs transformers and torch", mend="pip install 'memspan[huggingface]'"
            ) from error
        self._torch: Any = torch
        if isinstance(model, (str, os.PathLike)):
            name = os.fspath(model)
            try:
                tokenizer = tokenizer or transformers.AutoTokenizer.from_pretrained(name)
                model = transformers.AutoModel.from_pretrained(name)
            except (OSError, ValueError, KeyError) as error:
                mend = "give the name of a model on huggingface.co, or a directory that holds one"
                raise EncoderError(f"transformers cannot load {name!r} ({error})", mend=mend) from error
        elif isinstance(model, tuple):
            model, tokenizer = model
        if tokenizer is None:
            raise InvalidInput("tokenizer", "is missing", mend="give (model, tokenizer), or tokenizer=")
        self._model: Any = model.eval() if device is None else model.to(device).eval()
        self._tokenizer: Any = tokenizer
        self.pooling = pooling
        blocks = self._blocks()
        if not -len(blocks) <= layer < len(blocks):
            raise InvalidInput("layer", f"{layer} is none of {len(blocks)}", mend=f"give 0 to {len(blocks) - 1}, or -1")
        self.layer = layer % len(blocks)
        self._block = blocks[self.layer]
        config = self._config
        name = str(getattr(model, "name_or_path", "") or type(model).__name__)
        self._id = f"{name}:{self.layer}:{pooling}"
        self._window = int(
            min(
                getattr(tokenizer, "model_max_length", MOST_TOKENS),
                getattr(config, "max_position_embeddings", MOST_TOKENS) or MOST_TOKENS,
            )
        )
        self._pad = next(
            (
                int(id)
                for id in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
                if id is not None
            ),
            0,
        )
        self._lock = threading.Lock()

    @property
    def hidden_dim(self) -> int:
        return int(self._config.hidden_size)

    def model_id(self) -> str:
        return self._id

    def encode(self, text: str) -> Vectors:
        vector: Vectors = self.encode_batch([text])[0]
        return vector

    def encode_batch(self, texts: Sequence[str]) -> Vectors:
        pooled = np.zeros((len(texts), self.hidden_dim), np.float32)
        if not texts:
            return pooled
        with self._lock:
            clean = [sound(text) for text in texts]
            ids = self._tokenizer(clean, truncation=self._window < MOST_TOKENS, max_length=self._window)["input_ids"]
            ids = [row or [self._pad] for row in ids]  # a decoder's tokenizer makes nothing of an empty text
            order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
            for start in range(0, len(order), BATCH):
                some = order[start : start + BATCH]
                pooled[some] = self._pooled([ids[at] for at in some])
        return pooled

    def _pooled(self, ids: Sequence[Sequence[int]]) -> Vectors:
        """float32[n, hidden_dim]. Rows are padded on the right, where a decoder's own tokens never look."""
        torch, caught = self._torch, []
        lengths = torch.tensor([len(row) for row in ids])
        width = int(lengths.max())
        padded = torch.tensor([[*row, *[self._pad] * (width - len(row))] for row in ids])
        mask = torch.arange(width)[None] < lengths[:, None]
        hook = self._block.register_forward_hook(lambda block, given, made: caught.append(made))
        try:
            with torch.inference_mode():
                device = next(self._model.parameters()).device
                self._model(input_ids=padded.to(device), attention_mask=mask.long().to(device))
        finally:
            hook.remove()
        states = (caught[0][0] if isinstance(caught[0], tuple) else caught[0]).float().cpu()
        if self.pooling == "cls":
            found = states[:, 0]
        elif self.pooling == "last":
            found = states[torch.arange(len(ids)), lengths - 1]
        else:
            found = (states * mask[..., None]).sum(1) / lengths[:, None]
        return np.asarray(found.numpy(), np.float32)

    @property
    def _config(self) -> Any:
        config = self._model.config
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    def _blocks(self) -> Any:
        """The model's blocks: its list of as many modules as its configuration says it has layers."""
        count = self._config.num_hidden_layers
        for module in self._model.modules():
            if isinstance(module, self._torch.nn.ModuleList) and len(module) == count:
                return module
        mend = "give a model whose blocks stand in one list"
        raise EncoderError(f"no list of {count} blocks in {type(self._model).__name__}", mend=mend)
