"""Search a format's reader for what it does not expect, guided by coverage: needs atheris."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from storekeep.errors import Misused, Refused
from storekeep.ingest.archives import Opened
from tests.fuzz import READERS, samples

USAGE = f"python -m tests.fuzz {{{'|'.join(sorted(READERS))}}} [options of libFuzzer]"


def main() -> int:
    """Run until something else than a refusal is raised, or as long as libFuzzer is told."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in READERS:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        import atheris
    except ImportError:
        print("atheris is not installed (pip install atheris)", file=sys.stderr)
        return 2
    reader, columns = READERS[name]
    with TemporaryDirectory(prefix="storekeep-fuzz-") as folder:
        corpus, path = Path(folder) / "corpus", Path(folder) / "document"
        corpus.mkdir()
        for number, content in enumerate(samples(name)):
            (corpus / str(number)).write_bytes(content)

        def once(content: bytes) -> None:
            path.write_bytes(content)
            try:
                for block in reader(Opened(path, path.name), columns):
                    block.cells.validate(full=True)
            except (Refused, Misused):
                return

        atheris.instrument_all()
        atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], once)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
