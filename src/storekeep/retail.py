"""The retailer's vocabulary as table definitions, and the check digits of its identifiers.

One definition of a table makes its Arrow schema, its columns in PostgreSQL, the checks that its rows
must pass and its page in the documentation, so that none of them can say something else than the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import pyarrow as pa

Kind = Literal["text", "int", "float", "bool", "date", "time", "bytes"]
Privacy = Literal["public", "internal", "pseudonym", "personal"]

ARROW: Mapping[Kind, pa.DataType] = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "time": pa.timestamp("us", tz="UTC"),
    "bytes": pa.binary(),
}
"""The Arrow type of each kind of column."""
_POSTGRESQL: Mapping[Kind, str] = {
    "text": "text",
    "int": "bigint",
    "float": "double precision",
    "bool": "boolean",
    "date": "date",
    "time": "timestamptz",
    "bytes": "bytea",
}
DUCKDB: Mapping[Kind, str] = {
    "text": "VARCHAR",
    "int": "BIGINT",
    "float": "DOUBLE",
    "bool": "BOOLEAN",
    "date": "DATE",
    "time": "TIMESTAMPTZ",
    "bytes": "BLOB",
}
"""The type of each kind of column in DuckDB."""


@dataclass(frozen=True)
class Column:
    """One column: what it holds, in which unit, what it means, how private it is, and what it refers to.

    `references` names a column of another table (`product.sku`) among whose values it is to be.
    """

    name: str
    kind: Kind
    meaning: str
    unit: str | None = None
    privacy: Privacy = "internal"
    nullable: bool = False
    at_least: int | float | None = None
    at_most: int | float | None = None
    references: str | None = None


@dataclass(frozen=True)
class Table:
    """One table: its columns, the columns that identify a row, and what a row is.

    A row of the same key that says something else in one of the columns `restated` is a correction: a fact
    of its own, which holds from when it is known.

    What is `personal` of a row is no column: it is kept apart, sealed under a key of the person.
    """

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    restated: tuple[str, ...] = ()
    personal: tuple[Column, ...] = ()

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema, with each column's unit and meaning as field metadata."""
        return pa.schema(
            pa.field(
                column.name,
                ARROW[column.kind],
                nullable=column.nullable,
                metadata={"unit": column.unit or "", "privacy": column.privacy},
            )
            for column in self.columns
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name; `KeyError` when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def postgresql_columns(self) -> str:
        """The column definitions of a CREATE TABLE in PostgreSQL."""
        return ",\n  ".join(
            f"{column.name} {_POSTGRESQL[column.kind]}{'' if column.nullable else ' NOT NULL'}"
            for column in self.columns
        )

    def duckdb_types(self) -> dict[str, str]:
        """Each column's type in DuckDB, by name: the schema that expressions are checked against."""
        return {column.name: DUCKDB[column.kind] for column in self.columns}

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns in which two tellings of the same fact agree: the key, and what can be restated."""
        return self.key + self.restated


OCCURRED_AT = Column("occurred_at", "time", "When it happened.", "UTC")
KNOWN_AT = Column("known_at", "time", "When this home came to know it.", "UTC")
LOCATION = Column("location_id", "text", "Store, distribution centre or web warehouse.")
SKU = Column("sku", "text", "The retailer's identifier of the item.", references="product.sku")
SUPPLIER = Column("supplier_id", "text", "Who delivers it.")
CURRENCY = Column("currency", "text", "ISO 4217 code of the amounts in the row.")
SOURCE = Column("source", "text", "Feed that says so.")
SOURCE_FILE = Column("source_file", "text", "File the row was read from.")
SOURCE_LINE = Column(
    "source_line", "int", "Line or row of that file, counted from 1.", "line", at_least=1
)
FROM_A_FILE = (replace(SOURCE_FILE, nullable=True), replace(SOURCE_LINE, nullable=True))

SALE_LINE = Table(
    "sale_line",
    "One line of one basket as a till or web shop reported it; a return has a negative quantity.",
    ("line_key",),
    (
        Column("line_key", "text", "Natural key: same line, same key, however often it is read."),
        LOCATION,
        Column("store_id", "text", "Store whose till rang it up."),
        Column("basket_id", "text", "Basket, receipt or invoice the line belongs to."),
        SKU,
        Column("quantity_units", "int", "Units sold; negative when returned.", "unit"),
        Column("value_minor", "int", "What the customer paid for the line.", "minor money unit"),
        CURRENCY,
        Column(
            "customer_id",
            "text",
            "Pseudonym of the customer, where known.",
            privacy="pseudonym",
            nullable=True,
        ),
        Column("day", "date", "Trading day in the store's own time zone."),
        OCCURRED_AT,
        KNOWN_AT,
        SOURCE_FILE,
        SOURCE_LINE,
    ),
)

PRODUCT = Table(
    "product",
    "What a catalogue says of an item; another word of the same item is a newer version of it.",
    ("source", "sku"),
    (
        SOURCE,
        SKU,
        Column("gtin", "text", "GTIN of the item.", privacy="public", nullable=True),
        Column("name", "text", "What a person calls it.", privacy="public", nullable=True),
        Column("brand", "text", "Brand.", privacy="public", nullable=True),
        Column("department", "text", "Department.", privacy="public", nullable=True),
        Column("category", "text", "Category within the department.", nullable=True),
        Column("package_size", "text", "Size as printed on the package.", nullable=True),
        Column(
            "occurred_at", "time", "Since when, where the catalogue says.", "UTC", nullable=True
        ),
        KNOWN_AT,
        *FROM_A_FILE,
    ),
    restated=(*("gtin", "name", "brand", "department", "category", "package_size", "occurred_at"),),
)

SUPPLY_TERMS = Table(
    "supply_terms",
    "On which terms a supplier delivers an item to a location.",
    ("sku", "location_id"),
    (
        SKU,
        LOCATION,
        SUPPLIER,
        Column("unit_cost_minor", "int", "Purchase price.", "minor money unit", at_least=0),
        Column("unit_price_minor", "int", "Usual selling price.", "minor money unit", at_least=0),
        CURRENCY,
        Column("pack_size_units", "int", "Units in one orderable pack.", "unit", at_least=1),
        Column("minimum_order_units", "int", "Least quantity of a line.", "unit", at_least=0),
        Column("lead_time_mean_days", "float", "Agreed lead time.", "day", at_least=0),
        Column("lead_time_sd_days", "float", "Its agreed spread.", "day", at_least=0),
        Column("review_period_days", "int", "Days between two orders.", "day", at_least=1),
        Column("review_weekday", "int", "Weekday of ordering, Monday is 1.", at_least=1, at_most=7),
        Column("supplier_minimum_minor", "int", "Least value of an order.", "minor money unit"),
        KNOWN_AT,
    ),
)

STOCK_COUNT = Table(
    "stock_count",
    "What somebody counted on the shelf: from then on it is the stock.",
    ("location_id", "sku", "occurred_at"),
    (
        LOCATION,
        SKU,
        Column("quantity_units", "int", "Units counted.", "unit", at_least=0),
        OCCURRED_AT,
        KNOWN_AT,
        *FROM_A_FILE,
    ),
    restated=("quantity_units",),
)

STOCK_REPORT = Table(
    "stock_report",
    "What a system or a partner says is there; stock positions do not move by it.",
    ("source", "location_id", "sku", "occurred_at"),
    (
        SOURCE,
        LOCATION,
        SKU,
        Column("quantity_units", "int", "Units said to be there; negative when oversold.", "unit"),
        OCCURRED_AT,
        KNOWN_AT,
        SOURCE_FILE,
        SOURCE_LINE,
    ),
    restated=("quantity_units",),
)

SUPPLIER_STEP = Table(
    "supplier_step",
    "One line of what a supplier answers to a purchase order, or says to have shipped of it.",
    ("source", "supplier_id", "document_id", "document_line", "kind"),
    (
        SOURCE,
        SUPPLIER,
        Column("document_id", "text", "The supplier's answer or shipping notice."),
        Column("document_line", "text", "Line of that document."),
        Column("kind", "text", "accepted, changed, rejected, backordered or shipped."),
        Column("purchase_order_id", "text", "Purchase order that it answers."),
        SKU,
        Column("quantity_units", "int", "Units that this is said of.", "unit", at_least=0),
        Column("promised_on", "date", "Day of delivery, where one is named.", nullable=True),
        OCCURRED_AT,
        KNOWN_AT,
        SOURCE_FILE,
        SOURCE_LINE,
    ),
    restated=("purchase_order_id", "sku", "quantity_units", "promised_on", "occurred_at"),
)

DELIVERY = Table(
    "delivery",
    "One delivered line of a purchase order, with the dates it had.",
    ("source", "delivery_id"),
    (
        SOURCE,
        Column("delivery_id", "text", "The delivered line, as the source names it."),
        Column("purchase_order_id", "text", "Purchase order that it is of."),
        SUPPLIER,
        SKU,
        LOCATION,
        Column("quantity_units", "int", "Units delivered.", "unit", at_least=0),
        Column("value_minor", "int", "Value of the line.", "minor money unit", nullable=True),
        CURRENCY,
        Column("ordered_on", "date", "Day it was ordered, where known.", nullable=True),
        Column("scheduled_on", "date", "Day it was to arrive, where known.", nullable=True),
        Column("occurred_at", "time", "When it was delivered.", "UTC"),
        KNOWN_AT,
        SOURCE_FILE,
        SOURCE_LINE,
    ),
    restated=(
        *("purchase_order_id", "supplier_id", "sku", "location_id", "quantity_units"),
        *("value_minor", "currency", "ordered_on", "scheduled_on", "occurred_at"),
    ),
)

FULFILMENT = Table(
    "fulfilment",
    "One line of a customer's order that was sent out, or is to be.",
    ("source", "fulfilment_id", "line_id", "occurred_at"),
    (
        SOURCE,
        Column("fulfilment_id", "text", "The parcel, as the source names it."),
        Column("order_id", "text", "The customer's order."),
        Column("line_id", "text", "Line of that order."),
        LOCATION,
        Column("quantity_units", "int", "Units of the line in it.", "unit", at_least=0),
        Column("status", "text", "How it stands, in the words of the source."),
        Column("tracking", "text", "Number to follow it by.", privacy="pseudonym", nullable=True),
        OCCURRED_AT,
        KNOWN_AT,
        SOURCE_FILE,
        SOURCE_LINE,
    ),
    restated=("order_id", "location_id", "quantity_units", "status", "tracking"),
)

ORDER_MOVE = Table(
    "order_move",
    "One step in the life of one ordered line: committed, released, confirmed, cancelled, received.",
    ("move_key",),
    (
        Column(
            "move_key", "text", "Natural key: decision, step, and delivery if there are several."
        ),
        Column("decision_id", "text", "Decision that ordered it."),
        Column("purchase_order_id", "text", "Purchase order, once it has one.", nullable=True),
        LOCATION,
        SKU,
        SUPPLIER,
        Column("quantity_units", "int", "Units of this step.", "unit", at_least=0),
        OCCURRED_AT,
        KNOWN_AT,
    ),
)

PURCHASE_ORDER_LINE = Table(
    "purchase_order_line",
    "What the action PlacePurchaseOrder needs to know of one line.",
    ("sku", "location_id"),
    (
        SKU,
        LOCATION,
        SUPPLIER,
        Column("order_group", "text", "Lines of one group travel on one purchase order."),
        Column("order_units", "int", "Units to order.", "unit", at_least=1),
        Column("pack_size_units", "int", "Units in one pack.", "unit", at_least=1),
        Column("unit_cost_minor", "int", "Purchase price.", "minor money unit", at_least=0),
        Column("order_value_minor", "int", "Value of the line.", "minor money unit", at_least=0),
        CURRENCY,
    ),
)

FEED_STATE = Table(
    "feed_state",
    "Whether a feed keeps its contract, from a time on.",
    ("feed", "location_id", "occurred_at"),
    (
        Column("feed", "text", "The feed."),
        LOCATION,
        Column("state", "text", "ok, degraded (less good than agreed) or breached."),
        Column("reason", "text", "What was found, in plain words."),
        OCCURRED_AT,
        KNOWN_AT,
    ),
)

REJECTED = Table(
    "rejected",
    "A row that was not taken in, where it stood and why; kept so that it can be replayed.",
    ("source", "source_file", "source_line"),
    (
        Column("source", "text", "Feed the row came by."),
        SOURCE_FILE,
        SOURCE_LINE,
        Column("column", "text", "Column at fault, where one is.", nullable=True),
        Column("rule", "text", "Rule that turned the row away."),
        Column("reason", "text", "Why, in plain words."),
        Column("raw", "text", "The row as it was read.", privacy="pseudonym"),
        KNOWN_AT,
    ),
)

REJECTED_STEP = Table(
    "rejected_step",
    "What was done about a rejected row: it was corrected, taken in after all, or left out by a rule.",
    ("row_id", "known_at"),
    (
        Column("row_id", "text", "The row: a digest of its source, file, line and what it said."),
        Column("step", "text", "corrected, taken_in or left_out."),
        Column("raw", "text", "The row as it was after that.", privacy="pseudonym"),
        Column("done_by", "text", "Who did it."),
        Column("reason", "text", "Why, in plain words.", nullable=True),
        KNOWN_AT,
    ),
)

CUSTOMER = Column(
    "customer_id", "text", "Pseudonym of the customer or household.", privacy="pseudonym"
)
CAMPAIGN_ID = Column("campaign_id", "text", "The campaign.", references="campaign.campaign_id")

EMAIL_KEY, PHONE_KEY, CARD_KEY = (
    Column(name, "text", meaning, privacy="pseudonym", nullable=True)
    for name, meaning in (
        ("email_key", "Pseudonym of the e-mail address, the same at every source."),
        ("phone_key", "Pseudonym of the phone number, the same at every source."),
        ("card_key", "Pseudonym by which another source knows the customer: tills, a web shop."),
    )
)
ANYBODY = replace(CUSTOMER, meaning="Pseudonym of the customer, where known.", nullable=True)


def _consent(channel: str, what: str) -> tuple[Column, Column]:
    return (
        Column(f"{channel}_consent", "bool", what, privacy="pseudonym", nullable=True),
        Column(
            *(f"{channel}_consent_at", "time", "When that was given or withdrawn, where told."),
            *("UTC", "pseudonym"),
            nullable=True,
        ),
    )


CUSTOMER_CHANGE = Table(
    "customer",
    "What a source says of a customer from a time on; a consent that it does not speak of is as before.",
    ("source", "customer_id", "occurred_at"),
    (
        SOURCE,
        CUSTOMER,
        EMAIL_KEY,
        PHONE_KEY,
        CARD_KEY,
        *_consent("email", "Whether the customer agrees to e-mail."),
        *_consent("sms", "Whether the customer agrees to text messages."),
        *_consent("profiling", "Whether the customer agrees to be profiled."),
        Column("country", "text", "ISO 3166 code of the country.", nullable=True),
        Column("language", "text", "Language, as BCP 47 writes it.", nullable=True),
        OCCURRED_AT,
        KNOWN_AT,
        SOURCE_FILE,
        SOURCE_LINE,
    ),
    restated=(
        *("email_key", "phone_key", "card_key", "email_consent", "email_consent_at"),
        *("sms_consent", "sms_consent_at", "profiling_consent", "profiling_consent_at"),
        *("country", "language"),
    ),
    personal=(
        Column("name", "text", "Name of the customer.", privacy="personal"),
        Column("email", "text", "E-mail address.", privacy="personal"),
        Column("phone", "text", "Phone number.", privacy="personal"),
    ),
)

TICKET = Table(
    "ticket",
    "How a ticket of customer service stands from a time on.",
    ("source", "ticket_id", "occurred_at"),
    (
        SOURCE,
        Column("ticket_id", "text", "The ticket, as the source names it."),
        Column("channel", "text", "By which way it came, in the words of the source."),
        ANYBODY,
        EMAIL_KEY,
        PHONE_KEY,
        Column("order_ids", "text", "Orders it is about, apart by a blank.", nullable=True),
        Column("status", "text", "How it stands, in the words of the source."),
        OCCURRED_AT,
        KNOWN_AT,
        SOURCE_FILE,
        SOURCE_LINE,
    ),
    restated=("channel", "customer_id", "email_key", "phone_key", "order_ids", "status"),
    personal=(Column("subject", "text", "What it is about.", privacy="personal"),),
)

TICKET_MESSAGE = Table(
    "ticket_message",
    "One message of the thread of a ticket.",
    ("source", "message_id"),
    (
        SOURCE,
        Column("message_id", "text", "The message, as the source names it."),
        Column("ticket_id", "text", "Ticket that it belongs to."),
        Column("direction", "text", "in (from the customer) or out."),
        Column("author", "text", "Who wrote it: customer, person or machine."),
        ANYBODY,
        OCCURRED_AT,
        KNOWN_AT,
        SOURCE_FILE,
        SOURCE_LINE,
    ),
    restated=("ticket_id", "direction", "author", "customer_id", "occurred_at"),
    personal=(Column("text", "text", "What it says.", privacy="personal"),),
)

CUSTOMER_LINK = Table(
    "customer_link",
    "Somebody said that two customers are one person, or are not.",
    ("link_id",),
    (
        Column("link_id", "text", "Natural key: a digest of what was said, by whom, and when."),
        CUSTOMER,
        replace(CUSTOMER, name="other_id", meaning="Pseudonym of the other."),
        Column("undoes", "text", "Merge that this undoes; it says nothing else.", nullable=True),
        Column("done_by", "text", "Who said it."),
        Column("reason", "text", "Why, in plain words."),
        OCCURRED_AT,
        KNOWN_AT,
    ),
)

ITEM_IDENTITY = Table(
    "item_identity",
    "What an item is called by its makers and by those who supply it.",
    ("source", "sku", "gtin", "supplier_id", "supplier_item", "occurred_at"),
    (
        SOURCE,
        SKU,
        Column("gtin", "text", "GTIN of the item, 14 digits.", privacy="public", nullable=True),
        replace(SUPPLIER, nullable=True),
        Column("supplier_item", "text", "The supplier's own number of it.", nullable=True),
        Column("ends", "bool", "True where this holds no more.", nullable=True),
        Column("occurred_at", "time", "Since when, where it is told.", "UTC", nullable=True),
        KNOWN_AT,
        SOURCE_FILE,
        SOURCE_LINE,
    ),
    restated=("ends",),
)

HOUSEHOLD = Table(
    "household",
    "What is known of a household that takes part in a panel or loyalty scheme.",
    ("customer_id",),
    (
        CUSTOMER,
        Column("age_band", "text", "Age of its head.", "year", "pseudonym", nullable=True),
        Column("income_band", "text", "Yearly income.", "money", "pseudonym", nullable=True),
        Column("home_ownership", "text", "Owner or tenant.", privacy="pseudonym", nullable=True),
        Column("marital_status", "text", "Marital status.", privacy="pseudonym", nullable=True),
        Column("household_size", "text", "People in it.", "person", "pseudonym", nullable=True),
        Column("household_kind", "text", "Who lives in it.", privacy="pseudonym", nullable=True),
        Column("children", "text", "Children in it.", "person", "pseudonym", nullable=True),
        KNOWN_AT,
    ),
)

CAMPAIGN = Table(
    "campaign",
    "A campaign: of which kind, and from when to when its coupons are valid.",
    ("campaign_id",),
    (
        CAMPAIGN_ID,
        Column("kind", "text", "Kind of campaign, as the retailer calls it.", nullable=True),
        Column("begins_at", "time", "Begin of its first day.", "UTC"),
        Column("ends_at", "time", "Begin of its last day.", "UTC"),
        KNOWN_AT,
    ),
)

CAMPAIGN_CUSTOMER = Table(
    "campaign_customer",
    "A customer who was sent a campaign.",
    ("campaign_id", "customer_id"),
    (CAMPAIGN_ID, CUSTOMER, KNOWN_AT),
)

COUPON = Table(
    "coupon",
    "An item that a campaign's coupon is good for.",
    ("coupon_id", "sku", "campaign_id"),
    (Column("coupon_id", "text", "Code on the coupon."), SKU, CAMPAIGN_ID, KNOWN_AT),
)

COUPON_REDEMPTION = Table(
    "coupon_redemption",
    "A customer handed in a coupon.",
    ("coupon_id", "customer_id", "campaign_id", "occurred_at"),
    (
        Column("coupon_id", "text", "Code on the coupon."),
        CUSTOMER,
        CAMPAIGN_ID,
        OCCURRED_AT,
        KNOWN_AT,
    ),
)

PROMOTION = Table(
    "promotion",
    "In how many stores an item was promoted in a week.",
    ("sku", "week"),
    (
        SKU,
        Column("week", "int", "Week as the source counts them, from 1.", "week", at_least=1),
        Column("stores_on_display", "int", "Stores that had it on display.", "store", at_least=0),
        Column("stores_in_mailer", "int", "Stores whose mailer showed it.", "store", at_least=0),
        KNOWN_AT,
    ),
)

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        SALE_LINE,
        PRODUCT,
        SUPPLY_TERMS,
        STOCK_COUNT,
        STOCK_REPORT,
        SUPPLIER_STEP,
        DELIVERY,
        FULFILMENT,
        ORDER_MOVE,
        FEED_STATE,
        PURCHASE_ORDER_LINE,
        REJECTED,
        REJECTED_STEP,
        CUSTOMER_CHANGE,
        TICKET,
        TICKET_MESSAGE,
        CUSTOMER_LINK,
        ITEM_IDENTITY,
        HOUSEHOLD,
        CAMPAIGN,
        CAMPAIGN_CUSTOMER,
        COUPON,
        COUPON_REDEMPTION,
        PROMOTION,
    )
}


# ISO 4217: the currencies whose minor unit is not a hundredth.
WITHOUT_CENTS = frozenset(
    {
        *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"),
        *("RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
    }
)
WITH_MILLS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})


def minor_digits(currency: str) -> int:
    """Decimals of a currency's minor unit (ISO 4217): 2 for most, 0 for the yen, 3 for the dinars."""
    if currency in WITHOUT_CENTS:
        return 0
    return 3 if currency in WITH_MILLS else 2


def money(minor: int, currency: str) -> str:
    """An amount of minor units as people write it.

    >>> money(123456, "USD")
    '1,234.56 USD'
    """
    digits = minor_digits(currency)
    return f"{minor / 10**digits:,.{digits}f} {currency}"


def check_digit(digits: str) -> int:
    """The GS1 check digit that belongs after `digits`.

    Weights 3 and 1 alternate from the right (GS1 General Specifications, section 7.9).

    >>> check_digit("629104150021")
    3
    """
    weights = (3 if place % 2 == 0 else 1 for place in range(len(digits)))
    total = sum(
        int(digit) * weight for digit, weight in zip(reversed(digits), weights, strict=False)
    )
    return -total % 10


def gtin14(text: str) -> str | None:
    """The item number a GTIN-8, -12, -13 or -14 stands for, as 14 digits; None when it is none.

    >>> gtin14("6291041500213")
    '06291041500213'
    >>> gtin14("6291041500214") is None
    True
    """
    if len(text) not in {8, 12, 13, 14} or not (text.isascii() and text.isdigit()):
        return None
    return text.rjust(14, "0") if check_digit(text[:-1]) == int(text[-1]) else None


def gln(text: str) -> str | None:
    """The location number if `text` is a GLN (13 digits, check digit right); None when it is none.

    >>> gln("9501101020016")
    '9501101020016'
    """
    if len(text) != 13 or not (text.isascii() and text.isdigit()):
        return None
    return text if check_digit(text[:-1]) == int(text[-1]) else None
