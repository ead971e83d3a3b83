"""The contracts as test classes: subclass one, give its fixture, and pytest tells whether your part keeps it.

class TestMine(EncoderContract):
    @pytest.fixture
    def encoder(self):
        return MyEncoder()
"""

from memspan.testing.archiving import ArchivingContract
from memspan.testing.encoders import EncoderContract
from memspan.testing.memories import MemoryContract
from memspan.testing.parts import (
    LedgerContract,
    ViewContract,
    WordEncoder,
    activations_of,
    drafts,
    turns,
    write,
)
from memspan.testing.rerankers import RerankerContract

__all__ = [
    "ArchivingContract",
    "EncoderContract",
    "LedgerContract",
    "MemoryContract",
    "RerankerContract",
    "ViewContract",
    "WordEncoder",
    "activations_of",
    "drafts",
    "turns",
    "write",
]
