"""How the cells of one source column are read: SQL that gives their value, or NULL where they are wrong.

Hides what DuckDB would let pass: `2.5` for a whole number, `1_000`, `0x1F`, a time's offset that is
dropped, `infinity` as a date. A cell is read as its kind or not at all. A time without an offset is local to
the mapping's time zone; in the hour that comes twice when the clock is put back, the second is meant.
"""

from __future__ import annotations

from collections.abc import Mapping as Map

import pyarrow as pa

from storekeep.ingest.feeds import Mapping, SourceKind
from storekeep.ingest.formats import FORMATS
from storekeep.sql import literal

SOURCE_TYPES: Map[SourceKind, str] = {
    "text": "VARCHAR",
    "int": "BIGINT",
    "decimal": "DECIMAL(18,6)",
    "float": "DOUBLE",
    "bool": "BOOLEAN",
    "date": "DATE",
    "time": "TIMESTAMPTZ",
    "gtin": "VARCHAR",
    "gln": "VARCHAR",
}
HOLDS: Map[SourceKind, str] = {
    "text": "text",
    "int": "a whole number",
    "decimal": "a number",
    "float": "a number",
    "bool": "true or false",
    "date": "a date",
    "time": "a time",
    "gtin": "an item number (GTIN of 8, 12, 13 or 14 digits, the last one right)",
    "gln": "a location number (GLN of 13 digits, the last one right)",
}
_GS1_DIGITS: Map[SourceKind, tuple[str, int]] = {
    "gtin": (r"\d{8}|\d{12,14}", 14),
    "gln": (r"\d{13}", 13),
}
_INSTANT = r"\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}([.]\d{1,9})?)?)?"
EXCEL = "excel"
"""The format of times and dates that a spreadsheet has turned into numbers: days since 1899-12-30."""
_OFFSET = r" ?(Z|z|[+-]\d{2}(:?\d{2})?)"


class Cell:
    """One source column: how its cells are read, and when a cell is not what it should be."""

    def __init__(
        self, cell: str, name: str, kind: SourceKind, type_: pa.DataType, mapping: Mapping
    ) -> None:
        self.cell, self.name, self.kind, self.mapping = cell, name, kind, mapping
        self.is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_)
        self.is_float = pa.types.is_floating(type_)
        self.is_naive = pa.types.is_timestamp(type_) and type_.tz is None
        self.is_day = pa.types.is_date(type_)
        self.from_csv = mapping.format == "csv"
        self.has_marks = self.is_text and FORMATS[mapping.format].text

    @property
    def present(self) -> str:
        """True where the cell holds something."""
        if self.is_float:
            return f"({self.cell} IS NOT NULL AND NOT isnan({self.cell}))"
        return f"({self._unmarked()} IS NOT NULL)"

    @property
    def empty(self) -> str:
        """True where there is nothing in the cell, not even a null mark."""
        return f"({self.cell} = '')" if self.from_csv else f"({self.cell} IS NULL)"

    @property
    def can_fail(self) -> bool:
        """Whether a cell can be something that its kind is not."""
        return self.kind != "text" or (self.is_text and not self.from_csv)

    @property
    def gap(self) -> str | None:
        """True where a local time did not exist because the clock was put forward."""
        local = self._local()
        zone = self.mapping.time_zone
        if self.kind != "time" or local is None or zone == "UTC":
            return None
        there = f"timezone({literal(zone)}, {local})"
        return f"coalesce(timezone({literal(zone)}, {there}) <> {local}, false)"

    @property
    def value(self) -> str:
        """The cell as its kind, NULL where it is not."""
        if self.kind == "text":
            return self._as_text()
        if self.kind in {"date", "time"}:
            return self._as_time() if self.kind == "time" else self._as_date()
        if self.kind == "bool":
            return f"TRY_CAST({self._unmarked()} AS BOOLEAN)"
        if self.kind in _GS1_DIGITS:
            return self._as_gs1_number()
        return self._number_from_text() if self.is_text else self._number_from_number()

    def _unmarked(self) -> str:
        """The cell, NULL where it is a null mark."""
        if not self.has_marks:
            return self.cell
        nulls = self.mapping.csv.nulls
        if len(nulls) == 1:
            return f"nullif({self.cell}, {literal(nulls[0])})"
        marks = ", ".join(literal(mark) for mark in nulls)
        return (
            f"CASE WHEN {self.cell} NOT IN ({marks}) THEN {self.cell} END" if nulls else self.cell
        )

    def _as_text(self) -> str:
        if not self.is_text:
            return f"CAST({self.cell} AS VARCHAR)"
        if self.from_csv:
            return self._unmarked()
        return f"CASE WHEN NOT contains({self.cell}, chr(0)) THEN {self._unmarked()} END"

    def _as_gs1_number(self) -> str:
        """The cell with zeros before it up to its full length, where `retail.check_digit` is its last.

        Counted from the right, the weights are 1 and 3 in turn, and the sum is a multiple of ten.
        """
        shape, digits = _GS1_DIGITS[self.kind]
        cell = f"trim(CAST({self._unmarked()} AS VARCHAR))"
        number = f"TRY_CAST({cell} AS BIGINT)"
        terms = [f"{3 if at % 2 else 1} * ({number} // {10**at} % 10)" for at in range(digits)]
        fits = f"regexp_full_match({cell}, {literal(shape)})"
        return f"CASE WHEN {fits} AND ({' + '.join(terms)}) % 10 = 0 THEN lpad({cell}, {digits}, '0') END"

    def _number_from_number(self) -> str:
        if self.kind == "int":
            whole = f"{self.cell} = trunc({self.cell})"
            return f"CASE WHEN {whole} THEN TRY_CAST({self.cell} AS BIGINT) END"
        if self.kind == "float":
            number = f"TRY_CAST({self.cell} AS DOUBLE)"
            return f"CASE WHEN isfinite({number}) THEN {number} END"
        return f"TRY_CAST({self.cell} AS {SOURCE_TYPES['decimal']})"

    def _number_from_text(self) -> str:
        csv, cell = self.mapping.csv, self._unmarked()
        mark = "," if csv.decimal == "," else "[.]"
        whole, plain = r"\d+", cell
        if csv.thousands:
            group = {".": "[.]", " ": "[ \u00a0\u202f]"}.get(csv.thousands, csv.thousands)
            whole = rf"(\d+|\d{{1,3}}({group}\d{{3}})+)"
            plain = f"regexp_replace({plain}, {literal(group)}, '', 'g')"
        if csv.decimal == ",":
            plain = f"replace({plain}, ',', '.')"
        shape = rf"\s*[+-]?({whole}({mark}\d*)?|{mark}\d+)([eE][+-]?\d{{1,3}})?\s*"
        fits = f"regexp_full_match({cell}, {literal(shape)})"
        if self.kind == "float":
            number = f"TRY_CAST({plain} AS DOUBLE)"
            return f"CASE WHEN {fits} AND isfinite({number}) THEN {number} END"
        if self.kind == "decimal":
            return f"CASE WHEN {fits} THEN TRY_CAST({plain} AS {SOURCE_TYPES['decimal']}) END"
        shape = rf"\s*[+-]?{whole}(({mark}0*)?|({mark}\d*)?[eE][+-]?\d{{1,3}})\s*"
        fits = f"regexp_full_match({cell}, {literal(shape)})"
        # DuckDB reads a text into a wide decimal a hundred times slower than into a narrow one.
        number = f"TRY_CAST({plain} AS {SOURCE_TYPES['decimal']})"
        # What pandas makes of whole numbers of which some are missing ends in a point and a zero.
        zeros = "" if csv.decimal == "," else "([.]0*)?"
        short = rf"regexp_full_match({cell}, '[+-]?\d{{1,18}}{zeros}')"
        return (
            f"CASE WHEN {short} THEN TRY_CAST({cell} AS BIGINT) "
            f"WHEN {fits} AND {number} = trunc({number}) THEN TRY_CAST({number} AS BIGINT) END"
        )

    def _local(self) -> str | None:
        """The cell as a time without a zone; None when its files carry instants."""
        if self.is_naive:
            return self.cell
        if self.is_day:
            return f"CAST({self.cell} AS TIMESTAMP)"
        cell, given = self._unmarked(), self.mapping.time_format
        if given == EXCEL:
            return self._from_spreadsheet()
        if not self.is_text:
            return None
        if given is not None:
            return None if "%z" in given else f"try_strptime({cell}, {literal(given)})"
        return self._from_iso()

    def _from_iso(self) -> str:
        cell = self._unmarked()
        fits = f"regexp_full_match({cell}, {literal(_INSTANT)})"
        return f"CASE WHEN {fits} THEN TRY_CAST({cell} AS TIMESTAMP) END"

    def _from_spreadsheet(self) -> str:
        """A number of days, to the second, or what the spreadsheet left as it was, in ISO 8601.

        From 1900-03-01 on: for Excel the day before is the 29th of February, which there was not.
        """
        if not self.is_text:
            days = f"TRY_CAST({self.cell} AS DOUBLE)"
        else:
            cell = f"replace({self._unmarked()}, ',', '.')"
            fits = rf"regexp_full_match({cell}, '\s*\d{{1,7}}([.]\d{{1,15}})?\s*')"
            days = f"CASE WHEN {fits} THEN TRY_CAST({cell} AS DOUBLE) END"
        seconds = f"CAST(round(({days}) * 86400) AS BIGINT)"
        there = f"TIMESTAMP '1899-12-30' + to_seconds({seconds})"
        read = f"CASE WHEN ({days}) >= 61 AND ({days}) < 2958466 THEN {there} END"
        return f"coalesce({read}, {self._from_iso()})" if self.is_text else read

    def _as_time(self) -> str:
        cell, local = self._unmarked(), self._local()
        zone = literal(self.mapping.time_zone)
        if local is None:
            given = self.mapping.time_format
            return f"try_strptime({cell}, {literal(given)})" if self.is_text and given else cell
        if not self.is_text or self.mapping.time_format is not None:
            return f"timezone({zone}, {local})"
        fits = f"regexp_full_match({cell}, {literal(_INSTANT + _OFFSET)})"
        # DuckDB reads an offset only with a colon and without a space.
        cell = rf"regexp_replace({cell}, ' ?([+-]\d{{2}}):?(\d{{2}})$', '\1:\2')"
        return f"CASE WHEN {fits} THEN TRY_CAST({cell} AS TIMESTAMPTZ) ELSE timezone({zone}, {local}) END"

    def _as_date(self) -> str:
        if self.mapping.date_format == EXCEL and not self.is_day:
            return f"CAST({self._from_spreadsheet()} AS DATE)"
        if not self.is_text:
            return f"TRY_CAST({self.cell} AS DATE)"
        cell, given = self._unmarked(), self.mapping.date_format
        if given is not None:
            return f"CAST(try_strptime({cell}, {literal(given)}) AS DATE)"
        fits = rf"regexp_full_match({cell}, '\d{{4}}-\d{{1,2}}-\d{{1,2}}')"
        return f"CASE WHEN {fits} THEN TRY_CAST({cell} AS DATE) END"
