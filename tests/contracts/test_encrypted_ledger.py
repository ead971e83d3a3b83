"""The ledger keeps its contracts where it is encrypted, and a view where its snapshots are sealed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memspan.analysis import terms
from memspan.keys import Keys
from memspan.ledger.base import Ledger
from memspan.ledger.sqlite import SqliteLedger
from memspan.testing import ArchivingContract, LedgerContract, ViewContract
from memspan.views.base import Scored, Selection, View
from memspan.views.lexical import LexicalView

KEYS = Keys(data=bytes(32))


class TestEncryptedLedger(LedgerContract, ArchivingContract):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[Ledger]:
        ledger = SqliteLedger(tmp_path / "ledger.db", keys=KEYS)
        yield ledger
        ledger.close()

    @pytest.fixture
    def again(self, tmp_path: Path) -> Callable[[], Ledger]:
        return lambda: SqliteLedger(tmp_path / "ledger.db", keys=KEYS)


@pytest.mark.usefixtures("small_snapshots")
class TestLexicalViewWithSealedSnapshots(ViewContract):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[Ledger]:
        ledger = SqliteLedger(tmp_path / "ledger.db", keys=KEYS)
        yield ledger
        ledger.close()

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "views"

    @pytest.fixture
    def view(self, ledger: Ledger, folder: Path) -> View:
        return self.again(ledger, folder)

    def again(self, ledger: Ledger, folder: Path) -> View:
        return LexicalView(ledger, folder)

    def ask(self, view: View, selection: Selection, text: str) -> Scored:
        assert isinstance(view, LexicalView)
        return view.search(selection, terms(text))
