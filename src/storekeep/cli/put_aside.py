"""`put-aside`: messages of a transport that could not be read, and what a person does with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Group, pass_asked
from storekeep.cli.shown import Column

_LONGEST_SHOWN = 2_000
_LISTED = (
    Column("Message"),
    Column("Transport", drop=3),
    Column("Partition", right=True, drop=4),
    Column("Position", right=True, drop=2),
    Column("Bytes", right=True, drop=5),
    Column("Put aside", drop=1),
    Column("Why", wrap=True),
)
_BECAME = (Column("Message"), Column("Result"), Column("Why", wrap=True))


@click.group("put-aside", cls=Group)
def put_aside() -> None:
    """Messages of a transport that could not be read."""


@put_aside.command("list")
@pass_asked
def list_(asked: Asked) -> None:
    """List the messages, oldest first, without what is in them."""
    zone = asked.zone()
    with asked.pipeline() as pipeline:
        rows = pipeline.put_aside()
    cells = [
        (
            *(row["message_id"], row["transport"], row["partition"], f"{row['position']:,}"),
            *(f"{row['size_bytes']:,}", shown.moment(row["at"], zone), row["reason"]),
        )
        for row in rows
    ]
    said = (
        f"{shown.table(_LISTED, cells)}\n\nTimes in {zone.key}. To go on: storekeep put-aside show MESSAGE, "
        "then retry MESSAGE..., or drop MESSAGE... --reason TEXT"
    )
    asked.answer(rows, said if rows else "No message is put aside.")


@put_aside.command()
@click.argument("message", metavar="MESSAGE", help="The message.")
@pass_asked
def show(asked: Asked, message: str) -> None:
    """Show one message, headers, reason and body.

    The body is shown as far as it is text. It may hold personal data.
    """
    zone = asked.zone()
    with asked.pipeline() as pipeline:
        letter = pipeline.message(message)
    text = _text(letter.body)
    document = {
        "message_id": letter.message_id,
        **{name: getattr(letter, name) for name in ("transport", "partition", "position", "at")},
        "reason": letter.reason,
        "headers": dict(letter.headers),
        "size_bytes": len(letter.body),
        "text": text,
    }
    facts = {
        "from": letter.transport,
        "stood at": f"partition {letter.partition}, position {letter.position:,}",
        "put aside": f"{shown.moment(letter.at, zone)} {zone.key}",
        "why": shown.printable(letter.reason),
    }
    headers = [
        (shown.printable(name), shown.printable(said)) for name, said in letter.headers.items()
    ]
    lines = [f"Message {letter.message_id}", shown.pairs(facts)]
    lines += ["", "Headers:", shown.pairs(headers)] if headers else ["", "No headers."]
    size = shown.count(len(letter.body), "byte")
    if text:
        lines += [
            "",
            f"Body, {size}, as far as it is text:",
            shown.printable(text[:_LONGEST_SHOWN]),
        ]
        lines += ["..."] if len(text) > _LONGEST_SHOWN else []
    else:
        lines += ["", f"Body, {size}, which do not begin as text."]
    asked.answer(document, "\n".join(lines))


@put_aside.command()
@click.argument("messages", metavar="MESSAGE...", nargs=-1, required=True, help="Messages.")
@click.option("--reason", metavar="TEXT", default="", help="Why; the ledger keeps it.")
@click.option("--as", "principal", metavar="NAME", help="Who retries, if not you.")
@pass_asked
def retry(asked: Asked, messages: tuple[str, ...], reason: str, principal: str | None) -> None:
    """Receive messages again, as if they came now.

    For after an update, or a mistake that was mended here. What cannot be read still stays put aside, and the
    command then exits with 1.
    """
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        results = pipeline.receive_again(list(dict.fromkeys(messages)), by, reason)
    _tell(asked, by, results)
    if any(each["result"] == "unreadable" for each in results):
        raise click.exceptions.Exit(1)


@put_aside.command()
@click.argument("messages", metavar="MESSAGE...", nargs=-1, required=True, help="Messages.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; the ledger keeps it.")
@click.option("--as", "principal", metavar="NAME", help="Who drops them, if not you.")
@pass_asked
def drop(asked: Asked, messages: tuple[str, ...], reason: str, principal: str | None) -> None:
    """Drop messages: what is in them is not received.

    Their sender can send them again, mended.
    """
    by, keys = principal or asked.settings().principal, list(dict.fromkeys(messages))
    with asked.pipeline() as pipeline:
        pipeline.drop_messages(keys, by, reason)
    _tell(asked, by, [{"message_id": key, "result": "dropped", "reason": reason} for key in keys])


def _tell(asked: Asked, by: str, results: Sequence[Mapping[str, Any]]) -> None:
    counts = shown.tally(each["result"] for each in results)
    said = f"By {by}: {shown.listed(counts)}."
    if left := [each for each in results if each["result"] == "unreadable"]:
        cells = [(each["message_id"], each["result"], each["reason"]) for each in left]
        said = f"{shown.table(_BECAME, cells)}\n\n{said}"
    asked.answer({"by": by, "counts": counts, "results": list(results)}, said)


def _text(body: bytes) -> str:
    """A body as far as it is text: up to the first byte that is none."""
    found = re.match(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*", _decoded(body))
    return found[0] if found else ""


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        return body[: error.start].decode()
