"""The tree view keeps the contract of views, in trees of several levels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memspan.encoders.hash import HashEncoder
from memspan.ledger.base import Ledger
from memspan.ledger.sqlite import SqliteLedger
from memspan.testing import ViewContract
from memspan.views.base import Scored, Selection, View
from memspan.views.tree import TreeView
from memspan.views.vectors import VectorView


class TestTreeView(ViewContract):
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("memspan.views.tree.SNAPSHOT_ROWS", 8)
        monkeypatch.setattr("memspan.views.forest.LEAF", 4)
        monkeypatch.setattr("memspan.views.forest.FAN", 3)

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

    def again(self, ledger: Ledger, folder: Path) -> View:
        self.vectors = VectorView(ledger, None, 64)
        return TreeView(ledger, folder, 64)

    def ask(self, view: View, selection: Selection, text: str) -> Scored:
        """The rows that the tree leads to, by cosine."""
        assert isinstance(view, TreeView)
        vector = HashEncoder(64).encode([text]).pooled[0]
        return self.vectors.among(selection, view.route(selection, vector, 8).seqs, vector, 50)
