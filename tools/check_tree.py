"""Check what no other tool does: addresses, machine paths, sizes, names, unexplained silence."""

from __future__ import annotations

import ast
import os
import re
import sys
import tokenize
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES_OF_A_FUNCTION = 70
MOST_LINES_OF_A_MODULE = 800
LEAST_LETTERS_OF_A_REASON = 8

NOT_OURS = {"__pycache__", "_build", "build", "dist", "htmlcov", "node_modules"}
OURS_DESPITE_ITS_DOT = {".ci"}
NOT_TEXT = {".gz", ".ico", ".jpg", ".parquet", ".pdf", ".png", ".pyc", ".woff", ".woff2", ".zip"}

# Patterns are put together from parts, so that this file passes its own check.
HOSTS = ("pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "deb.debian" + ".org")
OPTIONS = ("--index" + "-url", "--extra-index" + "-url", "--find" + "-links")
LINE_RULES = {
    "names a package registry": re.compile("|".join(map(re.escape, HOSTS + OPTIONS))),
    "names a path of one machine": re.compile(r"(?<![\w.~-])/(?:work|root|tmp/w)/"),
    "leaves something to do; file an issue": re.compile(
        r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"
    ),
}
SILENCED = re.compile(
    r"#\s*(?P<how>noqa|type:\s*ignore|pragma:\s*no cover)"
    r"(?P<what>:\s*[A-Z]+[0-9]+(?:\s*,\s*[A-Z]+[0-9]+)*|\[[\w, -]+\])?(?P<reason>.*)"
)
WHOLE_FILE = re.compile(r"#\s*(?:ruff|flake8|mypy|pylint)\s*:")
VAGUE = {"base", "common", "data", "engine", "handler", "helper", "info", "manager", "misc"}
VAGUE |= {"engines", "handlers", "helpers", "managers", "service", "services", "util", "utils"}


def project_files() -> Iterator[Path]:
    """Every text file of the project; a folder with a leading dot is the machine's, but for .ci."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(
            name
            for name in folders
            if name in OURS_DESPITE_ITS_DOT or not (name.startswith(".") or name in NOT_OURS)
        )
        for name in sorted(names):
            if Path(name).suffix not in NOT_TEXT and not name.startswith(".coverage"):
                yield Path(folder, name)


def check_lines(text: str) -> Iterator[tuple[int, str]]:
    """What no line of any file may hold."""
    for number, line in enumerate(text.splitlines(), start=1):
        for fault, pattern in LINE_RULES.items():
            if pattern.search(line):
                yield number, fault


def check_comments(text: str) -> Iterator[tuple[int, str]]:
    """Comments that silence a check: one rule at a time, with the reason after it."""
    for token in tokenize.generate_tokens(StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if WHOLE_FILE.match(token.string):
            yield (
                line,
                "silences a check for a whole file; say it in pyproject.toml with its reason",
            )
        if (found := SILENCED.search(token.string)) is None:
            continue
        if found["what"] is None and not found["how"].startswith("pragma"):
            yield line, f"'{found['how']}' without the rule it silences"
        if sum(map(str.isalpha, found["reason"])) < LEAST_LETTERS_OF_A_REASON:
            yield line, f"'{found['how']}' without a reason after it"


def check_sizes(tree: ast.Module, text: str) -> Iterator[tuple[int, str]]:
    """A function fits on a screen, and a module has a bound."""
    if (length := text.count("\n")) > MOST_LINES_OF_A_MODULE:
        yield 1, f"{length} lines in one module; the most is {MOST_LINES_OF_A_MODULE}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_LINES_OF_A_FUNCTION:
                most = MOST_LINES_OF_A_FUNCTION
                yield node.lineno, f"{node.name} has {length} lines; the most is {most}"


def check_names(tree: ast.Module, path: Path) -> Iterator[tuple[int, str]]:
    """Modules, classes and functions are called by what they are, not by a word that fits everything."""
    named = [(1, path.stem), (1, path.parent.name)]
    named += [
        (node.lineno, node.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    for line, name in named:
        for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name):
            if word.lower() in VAGUE:
                yield line, f"{name!r} says nothing: {word.lower()!r}"


def check(path: Path) -> Iterator[tuple[int, str]]:
    """Every fault of one file, with its line."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    yield from check_lines(text)
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield error.lineno or 1, f"is not Python: {error.msg}"
        return
    yield from check_comments(text)
    if path.is_relative_to(ROOT / "src"):
        yield from check_sizes(tree, text)
        yield from check_names(tree, path)


def main() -> int:
    """Print each fault as file:line: what; return 1 if there is any."""
    faults = [
        f"{path.relative_to(ROOT)}:{line}: {fault}"
        for path in project_files()
        for line, fault in check(path)
    ]
    print("\n".join(faults) if faults else "the tree is clean")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
