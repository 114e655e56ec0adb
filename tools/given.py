"""Run the tests that use a database against a PostgreSQL that was given by URL, an older one at that.

The embedded server is PostgreSQL 18; a company's own may be 15. Where Debian's binaries of another version
are installed, a server is started from them in a temporary home, and the tests get nothing but its URL. Says
so and does nothing where there are none.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from storekeep import servers
from storekeep.config import Settings

FOLDERS = Path("/usr/lib/postgresql")
TESTS = (
    "tests/contracts",
    "tests/properties/test_laws.py",
    "tests/properties/test_ledger.py",
    "tests/unit/test_store.py",
    "tests/unit/test_bus.py",
    "tests/unit/test_tenants.py",
)


def main() -> int:
    """Start the oldest server that is installed, and run the tests on it."""
    found = sorted(FOLDERS.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        print(f"skipped: no PostgreSQL in {FOLDERS}; Debian's package postgresql has one")
        return 0
    with tempfile.TemporaryDirectory(prefix="sk-given-") as folder:
        # The server's own user must be able to pass.
        Path(folder).chmod(0o711)
        settings = Settings(home=Path(folder) / "home", postgres_bin=found[0].parent)
        with servers.lease(settings) as database:
            print(f"PostgreSQL {database.version}, given by URL", flush=True)
            return subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *TESTS],
                env={**os.environ, "STOREKEEP_DATABASE_URL": database.conninfo},
                check=False,
            ).returncode


if __name__ == "__main__":
    sys.exit(main())
