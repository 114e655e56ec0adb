"""What a file of ours must look like, and how a person is told what in it does not.

Hides the checker of forms: whatever does not fit is refused in plain words, with file, line and column, and
with the name that was probably meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from storekeep.errors import Refused
from storekeep.policy.written import Steps, Written

_SMALL_NAME = "write a name in small letters, digits, - and _, beginning with a letter"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Words = Annotated[str, Field(min_length=1, max_length=1000)]


class Form(BaseModel):
    """Keys with values, of which none may be unknown, missing or of another kind."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_AForm = TypeVar("_AForm", bound=Form)


def fitted(
    source: Written,
    form: type[_AForm],
    within: Mapping[str, type[BaseModel]],
    wanted: Mapping[str, str],
) -> _AForm:
    """The content of a file as its form; `Refused` with the place of the first thing that does not fit.

    `within` names the form of what stands under a key, and `wanted` what a key's value must be where that
    takes words of its own; the empty key is for all others.
    """
    try:
        return form.model_validate(source.value)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # Of a misspelt key the one that is there says more than the one that is missing.
        first = next((each for each in errors if _misspelt(each, errors[0])), errors[0])
        path: Steps = tuple(first["loc"])
        inside = [str(part) for part in path[:-1] if str(part) in within]
        _misfit(
            source,
            path,
            (within[inside[-1]] if inside else form),
            (first["type"], first["msg"]),
            wanted,
        )


def _misspelt(one: ErrorDetails, first: ErrorDetails) -> bool:
    return one["type"] == "extra_forbidden" and one["loc"][:-1] == first["loc"][:-1]


def _misfit(
    source: Written,
    path: Steps,
    form: type[BaseModel],
    said: tuple[str, str],
    wanted: Mapping[str, str],
) -> NoReturn:
    kind, message = said
    if kind == "missing":
        raise Refused(f"{source.place(*path[:-1])}: key {path[-1]!r} is missing")
    if kind == "extra_forbidden":
        hint = near(str(path[-1]), form.model_fields)
        raise Refused(f"{source.key(*path)}: unknown key {str(path[-1])!r}; {hint}")
    depth = next(at for at in range(len(path), -1, -1) if path[:at] in source.values)
    key = next((part for part in reversed(path[:depth]) if isinstance(part, str)), "the file")
    plain = message.removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        plain = wanted.get(key, _SMALL_NAME)
    elif depth < len(path):
        plain = wanted.get(key) or wanted.get("", plain)
    raise Refused(f"{source.place(*path)}: {key}: {plain}")


def near(name: str, known: Iterable[str]) -> str:
    """Which name was probably meant, or which there are."""
    names = list(known)
    found = difflib.get_close_matches(name, names, 1)
    return f"did you mean {found[0]!r}?" if found else f"allowed are {', '.join(names) or 'none'}"
