"""What every test shares: in which order they run, how Hypothesis searches, a home with a running database.

`ci` is the default everywhere, so that a run on a laptop and a run in CI see the same examples. `quick` is
for `make quick`. `search` looks for what the others have not seen: HYPOTHESIS_PROFILE=search make test.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from storekeep.config import Settings
    from storekeep.store import Store

# A shared machine may be slow for a moment; a deadline would then fail a test that is right.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", settings.get_profile("ci"), max_examples=10)
settings.register_profile(
    "search", settings.get_profile("ci"), derandomize=False, max_examples=2000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# One worker carries out a file whole: what comes last must be short, or the other has nothing left to do.
LONGEST_FIRST = ("crash", "external", "contracts", "docs", "properties")
# To trace each line makes a test twice as long. What these come by, and slow ones, quicker ones come by too.
UNTRACED = {"crash", "docs", "external", "golden", "properties"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of folders with long tests come first; what others come by too is not counted as coverage.

    What needs the home with a database is marked `database`.
    """
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(ranks)))
    for item in items:
        if item.path.parent.name in UNTRACED or item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.no_cover)
        if "home_settings" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.database)


@pytest.fixture(scope="session")
def home_settings() -> Iterator[Settings]:
    """A home whose database runs as long as the tests do; its tenant is new where the database is not."""
    from storekeep import servers
    from storekeep.config import Settings

    # Unlike pytest's own folders this one lets the server's user pass.
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    folder.chmod(0o711)
    chosen = Settings(home=folder / "home", tenant=f"t{uuid4().hex[:12]}")
    with servers.lease(chosen) as database:
        if chosen.database_url is None:
            # A process that is killed loses nothing by it, only a machine that falls, and none falls here.
            with database.admin() as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("SELECT pg_reload_conf()")
        yield chosen
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def conninfo(home_settings: Settings) -> Iterator[str]:
    """The database of the home, its schema up to date."""
    from storekeep import servers
    from storekeep.store import Store

    with servers.lease(home_settings) as database:
        with Store(database.conninfo) as store:
            store.migrate()
        yield database.conninfo


@pytest.fixture
def store(conninfo: str) -> Iterator[Store]:
    """The record of the home."""
    from storekeep.store import Store

    with Store(conninfo) as one:
        yield one


@pytest.fixture
def tenant() -> str:
    """A tenant that nobody had before."""
    return f"t{uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def nats_url(home_settings: Settings) -> Iterator[str]:
    """The home's own NATS server."""
    from storekeep import servers

    with servers.nats(home_settings) as url:
        yield url


@pytest.fixture(scope="module")
def there(home_settings: Settings) -> Iterator[str]:
    """The database of another home."""
    from psycopg import sql
    from psycopg.conninfo import make_conninfo

    from storekeep import servers
    from storekeep.store import Store

    with servers.lease(home_settings) as database:
        name = f"there_{uuid4().hex[:8]}"
        with database.admin() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        conninfo = make_conninfo(database.conninfo, dbname=name)
        with Store(conninfo) as store:
            store.migrate()
        yield conninfo
