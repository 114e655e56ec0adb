"""What is assumed about the simulated supply side: one file, read once, checked and frozen.

Hides the file's form: each assumption stands in `assumptions.yaml` with its value, its unit and why it is
so, and is read from here by name as a plain value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from storekeep.errors import Misused

FILE = "assumptions.yaml"


def _ascending(span: tuple[Any, ...]) -> tuple[Any, ...]:
    if list(span) != sorted(set(span)):
        raise ValueError("values must ascend and differ")
    return span


def _span(low_and_high: tuple[float, float]) -> tuple[float, float]:
    if low_and_high[0] > low_and_high[1]:
        raise ValueError("the first value must not exceed the second")
    return low_and_high


Days = Annotated[int, Field(ge=1, le=60)]
Share = Annotated[float, Field(ge=0, lt=1)]
DaySpan = Annotated[tuple[Days, Days], AfterValidator(_span)]
Span = Annotated[
    tuple[Annotated[float, Field(gt=0, le=60)], Annotated[float, Field(gt=0, le=60)]],
    AfterValidator(_span),
]


class Assumptions(BaseModel):
    """Every number and rule that the simulated shop rests on; `assumptions.yaml` says why of each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unmet_demand: Literal["lost"]
    demand_seen: Literal["in full"]
    delivered_share: Literal[1]
    returned_goods: Literal["not restocked"]
    perishing: Literal["none"]
    skus_per_supplier: int = Field(ge=1)
    most_suppliers: int = Field(ge=1)
    fresh_departments: tuple[str, ...]
    shortest_lead_time_days: DaySpan
    fresh_shortest_lead_time_days: DaySpan
    delay_mean_days: Span
    delay_shape: float = Field(gt=0)
    longest_delay_days: int = Field(ge=0, le=60)
    review_period_days: Literal[7]
    review_weekdays: Annotated[
        tuple[Annotated[int, Field(ge=1, le=7)], ...],
        Field(min_length=1),
        AfterValidator(_ascending),
    ]
    supplier_minimum_share: Share
    margin: Share
    margin_by_department: Mapping[str, Share]
    margin_spread: Share
    pack_sizes: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1), AfterValidator(_ascending)
    ]
    pack_cover_days: Span
    minimum_order_packs: int = Field(ge=1)
    demand_weeks: int = Field(ge=1)
    opening_extra_days: float = Field(ge=0)
    holding_rate_per_year: float = Field(ge=0)
    order_cost_minor: int = Field(ge=0)
    order_line_cost_minor: int = Field(ge=0)
    baseline_demand_weeks: int = Field(ge=1)
    baseline_safety_days: float = Field(ge=0)

    @model_validator(mode="after")
    def _margins_stay_between_zero_and_one(self) -> Self:
        for margin in (self.margin, *self.margin_by_department.values()):
            if not self.margin_spread <= margin < 1 - self.margin_spread:
                raise ValueError(f"a margin of {margin} ± {self.margin_spread} leaves 0 to 1")
        return self


@dataclass(frozen=True)
class Stated:
    """One assumption as the file states it."""

    name: str
    value: Any
    unit: str
    why: str


def stated(path: Path | None = None) -> tuple[Stated, ...]:
    """The assumptions with unit and reason, in the order of the file.

    `path` names a file of one's own; without it the one that ships is read. Raises `Misused` naming file
    and assumption when it cannot be read or an assumption lacks its value, unit or reason.
    """
    source = resources.files(__package__).joinpath(FILE) if path is None else path
    try:
        entries = YAML(typ="safe", pure=True).load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        first = str(error).splitlines()[0]
        raise Misused(f"the assumptions in {source} cannot be read: {first}") from None
    if not isinstance(entries, dict):
        raise Misused(f"{source} must name assumptions, each with value, unit and why")
    found = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != {"value", "unit", "why"}:
            raise Misused(f"assumption {name!r} in {source} must have exactly value, unit and why")
        found.append(Stated(str(name), entry["value"], str(entry["unit"]), str(entry["why"])))
    return tuple(found)


def read(path: Path | None = None) -> Assumptions:
    """The assumptions a simulated shop is made from.

    `path` names a file of one's own; without it the one that ships is read. Raises `Misused` naming file,
    assumption and what is wrong with it.
    """
    try:
        return Assumptions.model_validate({entry.name: entry.value for entry in stated(path)})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "margin"
        raise Misused(
            f"assumption {name!r} in {path or FILE} is not acceptable: {first['msg']}"
        ) from None
