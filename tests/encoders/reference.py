"""The texts whose vectors are in ``reference.npz``: float32[12, 384], in this order, rows of length 1.

Made with sentence-transformers 6.2.0 on torch 2.13.0 (CPU, fp32), ``SentenceTransformer(model).encode(TEXTS,
normalize_embeddings=True, batch_size=1)``, from the model.safetensors with sha256
53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db.
"""

from __future__ import annotations

from typing import Final

TEXTS: Final = [
    "Ana moved to Lisbon in May.",
    "Where does Ana live now?",
    "The core logic resides in dsm/memory.py.",
    "昨日、友達と新しいレストランに行きました。",
    "我们下周三在上海开会。",
    "오늘 날씨가 정말 좋네요.",
    "Naïve café, Straße, İstanbul, Ελλάδα, Привет",
    "🎉🎉 happy birthday!! 👩‍👩‍👧‍👦 ❤️",
    "def f(x): return {k: v for k, v in x.items() if v is not None}",
    ".",
    " ",
    " ".join(
        f"Sentence number {i} tells of a long winter in the north and of what was eaten there." for i in range(40)
    ),
]
