"""The pages on commands and settings say what the code takes: no less, and nothing that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from storekeep.cli.asked import EVERYWHERE
from storekeep.cli.program import program
from storekeep.config import Settings

pytestmark = pytest.mark.docs
DOCS = Path(__file__).parents[2] / "docs"


def sections(page: str) -> dict[str, str]:
    """The text under each heading of the second level."""
    parts = re.split(r"^## (.+)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command under its full name."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}")


COMMANDS = dict(list(commands(program, "storekeep"))[1:])
PAGE = sections("commands.md")


def taken(command: click.Command) -> set[str]:
    """The options and arguments of a command's own, by the words of its help."""
    words = set()
    for each in command.params:
        if isinstance(each, click.Argument):
            words.add((each.metavar or str(each.name).upper()).strip("[].").replace("]", ""))
        elif each.name not in EVERYWHERE:
            words.update(each.opts)
    return words


def rows(text: str) -> dict[str, str]:
    """What the tables of a section say of each option or argument, by its first word."""
    found = re.findall(r"^\| `((?:[^`|]|\\\|)+)`(?:, `[^`]+`)? \| (.+) \|$", text, re.MULTILINE)
    return {words.split()[0]: said for words, said in found}


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    documented = {heading for heading in PAGE if heading.startswith("storekeep ")}
    assert documented == set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_is_documented_with_what_it_takes_and_no_more(path: str) -> None:
    assert set(rows(PAGE[path])) == taken(COMMANDS[path])


@pytest.mark.parametrize("path", COMMANDS)
def test_a_default_is_documented(path: str) -> None:
    for each in COMMANDS[path].params:
        if isinstance(each, click.Option) and type(each.default) is int:
            assert f"{each.default} unless given" in rows(PAGE[path])[each.opts[0]]


@pytest.mark.parametrize("path", COMMANDS)
def test_a_choice_is_documented(path: str) -> None:
    for each in COMMANDS[path].params:
        if isinstance(each.type, click.Choice):
            word = each.opts[0] if isinstance(each, click.Option) else str(each.metavar)
            assert set(each.type.choices) <= set(re.findall(r"`(\w+)`", rows(PAGE[path])[word]))


def test_the_options_of_every_command_are_documented() -> None:
    told = set(rows(PAGE["Options of every command"]))
    assert told == {f"--{name}" for name in EVERYWHERE} | {"--help"}


def test_every_command_answers_in_json_and_says_how() -> None:
    for path, command in COMMANDS.items():
        assert isinstance(command, click.Group) or "\nJSON: " in PAGE[path], path


def test_every_command_and_option_has_help() -> None:
    for path, command in COMMANDS.items():
        assert command.help, path
        for each in command.params:
            assert each.help, f"{path} {each.name}"


def test_a_command_is_told_in_one_line_where_it_is_listed() -> None:
    for path, command in COMMANDS.items():
        assert not command.get_short_help_str(limit=63).endswith("..."), path


SETTINGS = sections("settings.md")


def test_every_setting_has_a_section_and_every_section_a_setting() -> None:
    assert set(SETTINGS) - {"Variables of others"} == set(Settings.model_fields)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_is_documented_by_its_own_words_variable_and_default(name: str) -> None:
    field, said = Settings.model_fields[name], SETTINGS[name]
    assert said.strip().splitlines()[0] == field.description
    assert f"`STOREKEEP_{name.upper()}`" in said
    default = "not set" if field.default is None else f"`{field.default}`"
    assert f"Default: {default}" in said


def test_settings_that_an_option_sets_say_so() -> None:
    for name in EVERYWHERE:
        if name in Settings.model_fields:
            assert f"`--{name} " in SETTINGS[name]
