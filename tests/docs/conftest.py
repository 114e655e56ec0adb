"""Who reads a page and types what it shows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.console import Console


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    """A reader's folder, which the server's user can pass through, and nothing set."""
    for name in ("STOREKEEP_HOME", "STOREKEEP_TENANT", "STOREKEEP_DATABASE_URL", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    folder.chmod(0o711)
    monkeypatch.chdir(folder)
    yield Console(folder)
    shutil.rmtree(folder)
