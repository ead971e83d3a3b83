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


class Trees(ViewContract):
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("memspan.views.tree.SNAPSHOT_ROWS", 8)
        monkeypatch.setattr("memspan.views.forest.LEAF", 4)
        monkeypatch.setattr("memspan.views.forest.FAN", 3)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "views"

    @pytest.fixture
    def view(self, ledger: Ledger, folder: Path) -> View:
        self.vectors = VectorView(ledger, None, 64)
        return self.again(ledger, folder)

    def ask(self, view: View, selection: Selection, text: str) -> Scored:
        """The rows that the tree leads to, by cosine."""
        assert isinstance(view, TreeView)
        vector = HashEncoder(64).encode([text]).pooled[0]
        return self.vectors.among(selection, view.route(selection, vector, 8).seqs, vector, 50)


class TestTreeView(Trees):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[Ledger]:
        ledger = SqliteLedger(tmp_path / "ledger.db")
        yield ledger
        ledger.close()

    def again(self, ledger: Ledger, folder: Path) -> View:
        return TreeView(ledger, folder, 64)


class TestTreeOnPostgres(Trees):
    @pytest.fixture
    def ledger(self, postgres: str) -> Iterator[Ledger]:
        from memspan.ledger.postgres.ledger import PostgresLedger

        ledger = PostgresLedger(postgres)
        yield ledger
        ledger.close()

    def again(self, ledger: Ledger, folder: Path) -> View:
        from memspan.ledger.postgres.ledger import PostgresLedger
        from memspan.views.postgres.tree import PostgresTree

        assert isinstance(ledger, PostgresLedger)
        return PostgresTree(ledger, 64)

    @pytest.mark.parametrize("how", ["removed", "cut", "changed"])
    def test_a_damaged_file_costs_no_row_and_is_reported_and_mended(
        self, ledger: Ledger, view: View, folder: Path, how: str, postgres: str
    ) -> None:
        import psycopg

        harm = {
            "removed": "DELETE FROM memspan.snapshot_parts",
            "cut": "UPDATE memspan.snapshot_parts SET bytes = substring(bytes FOR length(bytes) - 9)",
            "changed": "UPDATE memspan.snapshot_parts SET bytes = set_byte(bytes, 999, 255 - get_byte(bytes, 999))",
        }
        texts = self.fill(ledger)
        view.compact("default")
        assert view.problems("default") == []
        with psycopg.connect(postgres) as raw:
            raw.execute(harm[how])
        for reader in (view, self.again(ledger, folder)):
            assert len(reader.problems("default")) == 1
            assert [self.best(ledger, reader, text)[0] for text in texts] == texts
        assert reader.failure
        assert reader.compact("default")
        assert (reader.failure, reader.problems("default")) == (None, [])
        assert [self.best(ledger, reader, text)[0] for text in texts] == texts

    def test_what_a_crash_left_is_swept_away(self, ledger: Ledger, view: View, folder: Path, postgres: str) -> None:
        import psycopg

        self.fill(ledger)
        with psycopg.connect(postgres) as raw:
            (number,) = raw.execute("SELECT number FROM memspan.namespaces").fetchone() or (0,)
            raw.execute("INSERT INTO memspan.snapshot_parts VALUES (%s, 'tree-0123456789ab', 0, 'half')", (number,))
        view.compact("default")
        with psycopg.connect(postgres) as raw:
            files = raw.execute("SELECT file FROM memspan.snapshots WHERE view = 'tree'").fetchall()
            assert raw.execute("SELECT DISTINCT file FROM memspan.snapshot_parts").fetchall() == files
        assert view.problems("default") == []
