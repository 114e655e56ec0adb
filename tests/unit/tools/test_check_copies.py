from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_copies


@pytest.mark.parametrize(("lines", "code"), [(11, 0), (12, 1), (30, 1)])
def test_twelve_lines_in_two_modules_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int, code: int
) -> None:
    monkeypatch.setattr(check_copies, "ROOT", tmp_path)
    (tmp_path / "src").mkdir()
    shared = "".join(f"x{number} = {number}\n" for number in range(lines))
    for name in ("first", "second"):
        (tmp_path / "src" / f"{name}.py").write_text(f"{shared}{name} = 0\n", encoding="utf-8")
    assert check_copies.main() == code
