"""Search a format's reader for what it does not expect, guided by coverage.

`tests/properties/test_formats.py` damages documents in every run of the tests, and `tests/unit/test_fuzz.py`
runs this for a moment. To search for longer, where atheris is installed:

    python -m tests.fuzz poslog -max_total_time=600
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from tempfile import TemporaryDirectory


def main(arguments: list[str]) -> int:
    """Run until something else than a refusal is raised, or for as long as libFuzzer is told."""
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed; there are wheels for Python 3.11 to 3.13", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["storekeep.ingest", "storekeep.edi"]):
        formats = importlib.import_module("tests.fuzz.formats")
        archives = importlib.import_module("storekeep.ingest.archives")
        errors = importlib.import_module("storekeep.errors")
    if not arguments or arguments[0] not in formats.READERS:
        print(f"which format? {', '.join(formats.READERS)}", file=sys.stderr)
        return 2
    reader, columns = formats.READERS[arguments[0]]
    with TemporaryDirectory(prefix="storekeep-fuzz-") as folder:
        corpus, path = Path(folder) / "corpus", Path(folder) / "document"
        corpus.mkdir()
        name = arguments[0]
        for number, content in enumerate([*formats.samples(name), *formats.shared(name)]):
            (corpus / str(number)).write_bytes(content)

        def once(content: bytes) -> None:
            path.write_bytes(content)
            try:
                for block in reader(archives.Opened(path, path.name), columns):
                    block.cells.validate(full=True)
            except (errors.Refused, errors.Misused):
                return

        atheris.Setup(["fuzz", *arguments[1:], str(corpus)], once)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
