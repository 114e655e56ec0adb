"""`orders`: purchase orders as documents that suppliers' systems read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from storekeep.cli.asked import Asked, Group, pass_asked
from storekeep.edi import Syntax
from storekeep.errors import Refused


@click.group(cls=Group)
def orders() -> None:
    """Purchase orders, for suppliers to read."""


@orders.command()
@click.argument("order_id", metavar="ORDER", help="Number of the purchase order.")
@click.option(
    "--format",
    "syntax",
    type=click.Choice(get_args(Syntax)),
    required=True,
    help="How it is written.",
)
@click.option("--cancellation", is_flag=True, help="Write what was cancelled of it.")
@click.option(
    "--out",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write, byte for byte.  [default: stdout]",
)
@click.option("--as", "principal", metavar="NAME", help="Who writes it, if not you.")
@pass_asked
def write(
    asked: Asked,
    order_id: str,
    syntax: Syntax,
    *,
    cancellation: bool,
    file: Path | None,
    principal: str | None,
) -> None:
    """Write a purchase order as a document for its supplier.

    It has a control number of its own, and is the same whenever it is written again. Nothing is sent.
    """
    settings = asked.settings()
    with asked.pipeline() as pipeline:
        document = pipeline.write_order(
            order_id,
            syntax,
            principal or settings.principal,
            cancels=cancellation,
            identity=settings.edi_identity,
            partners=settings.edi_partners,
        )
    told: dict[str, Any] = {
        "purchase_order_id": order_id,
        "format": syntax,
        "cancellation": cancellation,
        "number": document.number,
        "file": file,
    }
    if file is None:
        text = document.body.decode("utf-8", errors="replace")
        asked.answer({**told, "document": text}, text.rstrip("\n"))
        return
    try:
        file.write_bytes(document.body)
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror}; choose another place") from None
    asked.answer(told, f"Wrote document {document.number} of {order_id} to {file}.")
