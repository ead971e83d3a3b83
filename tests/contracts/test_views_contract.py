"""The vector view and the lexical view keep the contract of views."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memspan.analysis import terms
from memspan.encoders.hash import HashEncoder
from memspan.ledger.base import Ledger
from memspan.ledger.sqlite import SqliteLedger
from memspan.testing import ViewContract
from memspan.views.base import Scored, Selection, View
from memspan.views.lexical import LexicalView
from memspan.views.vectors import VectorView


@pytest.mark.usefixtures("small_snapshots")
class OnDisk(ViewContract):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[Ledger]:
        ledger = SqliteLedger(tmp_path / "ledger.db")
        yield ledger
        ledger.close()

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "views"

    @pytest.fixture
    def view(self, ledger: Ledger, folder: Path) -> View:
        return self.again(ledger, folder)


class TestLexicalView(OnDisk):
    def again(self, ledger: Ledger, folder: Path) -> View:
        return LexicalView(ledger, folder)

    def ask(self, view: View, selection: Selection, text: str) -> Scored:
        assert isinstance(view, LexicalView)
        return view.search(selection, terms(text))


class TestVectorView(OnDisk):
    def again(self, ledger: Ledger, folder: Path) -> View:
        return VectorView(ledger, folder, 64)

    def ask(self, view: View, selection: Selection, text: str) -> Scored:
        assert isinstance(view, VectorView)
        return view.search(selection, HashEncoder(64).encode([text]).pooled[0], 50)
