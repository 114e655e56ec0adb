from __future__ import annotations

import ast

import pytest

from tools import check_tree


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("see https://" + "pypi" + ".org/simple", "names a package registry"),
        ("-" + "-index-url https://example.test", "names a package registry"),
        ("open('/" + "work/main/a')", "names a path of one machine"),
        ("# TO" + "DO later", "leaves something to do; file an issue"),
    ],
)
def test_a_line_that_may_not_be_committed_is_found(line: str, fault: str) -> None:
    assert list(check_tree.check_lines(f"fine\n{line}\n")) == [(2, fault)]


@pytest.mark.parametrize(
    "line",
    ["docs/work/plan.md", "https://www.apache.org/", "~/root/a", "a todo list", "the index url"],
)
def test_a_line_that_only_looks_alike_passes(line: str) -> None:
    assert list(check_tree.check_lines(line)) == []


@pytest.mark.parametrize(
    ("comment", "faults"),
    [
        ("# noqa", 2),
        ("# noqa: S603", 1),
        ("# noqa: S603 - our own binary, no shell", 0),
        ("# type: ignore", 2),
        ("# type: ignore[attr-defined]", 1),
        ("# type: ignore[attr-defined]  # pyarrow ships no types", 0),
        ("# pragma: no cover", 1),
        ("# pragma: no cover - only on a machine without /proc", 0),
        ("# mypy: ignore-errors", 1),
        ("# an ordinary comment", 0),
    ],
)
def test_a_silenced_check_names_its_rule_and_its_reason(comment: str, faults: int) -> None:
    assert len(list(check_tree.check_comments(f"x = 1  {comment}\n"))) == faults


def test_a_comment_inside_a_text_silences_nothing() -> None:
    assert list(check_tree.check_comments('x = "# noqa"\n')) == []


@pytest.mark.parametrize(("lines", "faults"), [(70, 0), (71, 1)])
def test_a_function_fits_on_a_screen(lines: int, faults: int) -> None:
    text = "def order() -> None:\n" + "    pass\n" * (lines - 1)
    assert len(list(check_tree.check_sizes(ast.parse(text), text))) == faults


@pytest.mark.parametrize(("lines", "faults"), [(800, 0), (801, 1)])
def test_a_module_has_a_bound(lines: int, faults: int) -> None:
    text = "x = 1\n" * lines
    assert len(list(check_tree.check_sizes(ast.parse(text), text))) == faults


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("class OrderManager: ...", 1),
        ("def load_data() -> None: ...", 1),
        ("def load_database() -> None: ...", 0),
        ("class Informed: ...", 0),
    ],
)
def test_a_name_says_what_it_names(text: str, faults: int) -> None:
    path = check_tree.ROOT / "src" / "storekeep" / "ledger.py"
    assert len(list(check_tree.check_names(ast.parse(text), path))) == faults
