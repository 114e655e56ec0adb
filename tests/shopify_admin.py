"""A shop that answers questions in GraphQL as Shopify's documentation says that Shopify does.

It is made up: nobody reaches a real one from a test. What it holds are documents as webhooks bring them, and
turned here into what GraphQL calls the same. A question is parsed and held against a part of the schema that
was written by hand (`shopify_admin.graphql`): one about a field, an argument or a type that is not there is
refused, as is one that asks for a list without saying how much of it. Then it is carried out: pages within
pages, what was updated since, in the order that was asked for. It costs points by the published rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TOKEN = re.compile(r'#[^\n]*|[\s,]+|(\.\.\.|"[^"]*"|[!$(){}\[\]:=]|-?\d+|\w+)')
_SINCE = re.compile(r"updated_at:>='([^']+)'")
MOST_POINTS, MOST_OF_A_LIST = 1000, 250


class Wrong(Exception):
    """A question that Shopify would refuse."""


# The language -------------------------------------------------------------------------------------------


class _Words:
    """The words of a text, one after the other."""

    def __init__(self, text: str) -> None:
        found = [(each.start(), each[0], each[1]) for each in _TOKEN.finditer(text)]
        if sum(len(said) for _, said, _ in found) != len(text):
            raise Wrong("syntax error: this is no GraphQL")
        self.left = [word for _, _, word in found if word]

    def __bool__(self) -> bool:
        return bool(self.left)

    def next(self, *wanted: str) -> str:
        if not self.left or (wanted and self.left[0] not in wanted):
            raise Wrong(f"syntax error at {self.left[:1]}: expected {wanted}")
        return self.left.pop(0)

    def has(self, word: str) -> bool:
        if self.left[:1] != [word]:
            return False
        self.left.pop(0)
        return True

    def name(self) -> str:
        found = self.next()
        if not found.isidentifier():
            raise Wrong(f"syntax error: {found} is no name")
        return found

    def type(self) -> str:
        told = f"[{self.type()}{self.next(']')}" if self.has("[") else self.next()
        return f"{told}!" if self.has("!") else told

    def types(self, sign: str) -> dict[str, str]:
        """Names and types between brackets."""
        found = {}
        while not self.has(")"):
            if sign:
                self.next(sign)
            name = self.next()
            self.next(":")
            found[name] = self.type()
        return found

    def value(self) -> Any:
        if self.has("$"):
            return _Variable(self.next())
        if self.has("["):
            found = []
            while not self.has("]"):
                found.append(self.value())
            return found
        word = self.next()
        if word.startswith('"'):
            return word[1:-1]
        return int(word) if word.lstrip("-").isdecimal() else word

    def selection(self) -> list[_Field | _Spread]:
        found: list[_Field | _Spread] = []
        while not self.has("}"):
            if self.has("..."):
                if self.has("on"):
                    on = self.next()
                    self.next("{")
                    found.append(_Spread(on, None, self.selection()))
                else:
                    found.append(_Spread(None, self.next(), []))
                continue
            alias = name = self.name()
            if self.has(":"):
                name = self.name()
            arguments = {}
            if self.has("("):
                while not self.has(")"):
                    key = self.next()
                    self.next(":")
                    arguments[key] = self.value()
            found.append(_Field(alias, name, arguments, self.selection() if self.has("{") else []))
        return found


@dataclass(frozen=True)
class _Variable:
    name: str


@dataclass
class _Field:
    alias: str
    name: str
    arguments: dict[str, Any]
    within: list[_Field | _Spread]


@dataclass
class _Spread:
    on: str | None
    fragment: str | None
    within: list[_Field | _Spread]


@dataclass
class _Asked:
    """What is asked: the variables of each operation and what it selects, and the fragments."""

    operations: dict[str, tuple[dict[str, str], list[_Field | _Spread]]] = field(
        default_factory=dict
    )
    fragments: dict[str, tuple[str, list[_Field | _Spread]]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> _Asked:
        words, found = _Words(text), cls()
        while words:
            if words.next("query", "fragment") == "query":
                name = words.next()
                variables = words.types("$") if words.has("(") else {}
                words.next("{")
                found.operations[name] = (variables, words.selection())
            else:
                name = words.next()
                words.next("on")
                on = words.next()
                words.next("{")
                found.fragments[name] = (on, words.selection())
        return found


def _schema() -> tuple[dict[str, dict[str, tuple[dict[str, str], str]]], set[str]]:
    """The fields of each type with their arguments and types; and the values of all enumerations."""
    words = _Words((Path(__file__).parent / "shopify_admin.graphql").read_text())
    types: dict[str, dict[str, tuple[dict[str, str], str]]] = {}
    values: set[str] = set()
    while words:
        kind, name = words.next("type", "enum"), words.next()
        words.next("{")
        while not words.has("}"):
            own = words.next()
            if kind == "enum":
                values.add(own)
                continue
            arguments = words.types("") if words.has("(") else {}
            words.next(":")
            types.setdefault(name, {})[own] = (arguments, words.type())
    return types, values


TYPES, VALUES = _schema()


def _bare(type_: str) -> str:
    return type_.strip("[]!")


@dataclass
class _Question:
    """One question, held against the schema and then carried out."""

    asked: _Asked
    operation: str
    given: Mapping[str, Any]
    things: Mapping[str, Any]
    spent: int = 0

    def check(self) -> None:
        """Every operation is held against the schema, as Shopify does, and not only the one that is meant."""
        used: set[str] = set()
        for variables, selection in self.asked.operations.values():
            self._check(selection, "QueryRoot", variables, used)
        if unused := self.asked.fragments.keys() - used:
            raise Wrong(f"fragments {sorted(unused)} are not used")
        variables, _ = self.asked.operations[self.operation]
        for name, type_ in variables.items():
            if type_.endswith("!") and self.given.get(name) is None:
                raise Wrong(f"variable {name} of type {type_} was given no value")
        if extra := self.given.keys() - variables.keys():
            raise Wrong(f"variables {sorted(extra)} are not declared")

    def _check(
        self, selection: Sequence[Any], on: str, variables: Mapping[str, str], used: set[str]
    ) -> None:
        for each in selection:
            if isinstance(each, _Spread):
                target, within = self._spread(each, used)
                if on not in (target, "Node") or target not in TYPES:
                    raise Wrong(f"a fragment on {target} cannot be spread within {on}")
                self._check(within, target, variables, used)
                continue
            if each.name not in TYPES[on]:
                raise Wrong(f"field '{each.name}' doesn't exist on type '{on}'")
            arguments, type_ = TYPES[on][each.name]
            self._check_arguments(each, arguments, variables)
            inner = _bare(type_)
            if (inner in TYPES) != bool(each.within):
                raise Wrong(f"field '{each.name}' of type {type_} selects wrongly")
            if each.within:
                self._check(each.within, inner, variables, used)

    def _spread(self, each: _Spread, used: set[str]) -> tuple[str, list[Any]]:
        if each.fragment is None:
            return str(each.on), each.within
        if each.fragment not in self.asked.fragments:
            raise Wrong(f"fragment {each.fragment} is not there")
        used.add(each.fragment)
        return self.asked.fragments[each.fragment]

    def _check_arguments(
        self, each: _Field, allowed: Mapping[str, str], variables: Mapping[str, str]
    ) -> None:
        for name, value in each.arguments.items():
            if name not in allowed:
                raise Wrong(f"field '{each.name}' doesn't accept argument '{name}'")
            if isinstance(value, _Variable):
                told = variables.get(value.name, "")
                if _bare(told) != _bare(allowed[name]):
                    raise Wrong(f"type mismatch on variable ${value.name} and argument {name}")
            elif allowed[name].endswith("SortKeys") and value not in VALUES:
                raise Wrong(f"{value} is no value of {allowed[name]}")
        for name, type_ in allowed.items():
            if type_.endswith("!") and name not in each.arguments:
                raise Wrong(f"field '{each.name}' is missing argument '{name}'")
        if "after" in allowed:
            many = self._given(each.arguments).get(
                "first", 1 if "first" in each.arguments else None
            )
            if many is None or not 1 <= many <= MOST_OF_A_LIST:
                raise Wrong(f"you must provide `first` on the {each.name} connection, at most 250")

    def _given(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        told = {
            name: self.given.get(value.name) if isinstance(value, _Variable) else value
            for name, value in arguments.items()
        }
        return {name: value for name, value in told.items() if value is not None}

    def cost(self, selection: Sequence[Any], on: str) -> int:
        """Points that may be needed: of a list 2, and for each of its things 1 and what is within it."""
        points = 0
        for each in selection:
            if isinstance(each, _Spread):
                target, within = self._spread(each, set())
                points += self.cost(within, target)
                continue
            type_ = _bare(TYPES[on][each.name][1])
            if type_ not in TYPES or type_ == "PageInfo":
                continue
            if type_.endswith("Connection"):
                many = self._given(each.arguments)["first"]
                points += 2 + many * self.cost(each.within, type_)
            else:
                points += 1 + self.cost(each.within, type_)
        return points

    def answer(self) -> tuple[Any, int]:
        selection = self.asked.operations[self.operation][1]
        return self._object(selection, "QueryRoot", self.things), self.spent

    def _object(self, selection: Sequence[Any], on: str, thing: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for each in selection:
            if isinstance(each, _Spread):
                target, within = self._spread(each, set())
                if target == thing.get("__typename", target):
                    found |= self._object(within, target, thing)
                continue
            type_ = TYPES[on][each.name][1]
            given = self._given(each.arguments)
            node = self.things["nodes"].get(given.get("id"))
            held = node if each.name == "node" else thing[each.name]
            found[each.alias] = self._value(each, type_, held, given)
        return found

    def _value(self, each: _Field, type_: str, held: Any, given: Mapping[str, Any]) -> Any:
        bare = _bare(type_)
        if held is None or bare not in TYPES:
            return held
        if bare.endswith("Connection"):
            held = _page(held, given)
        elif isinstance(held, list):
            some = held[: given.get("first")]
            self.spent += len(some)
            return [self._object(each.within, bare, one) for one in some]
        self.spent += 1
        return self._object(each.within, bare, held)


def _page(things: list[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    if "query" in given:
        since = _SINCE.fullmatch(given["query"])
        if since is None:
            raise Wrong(f"nothing here reads the filter {given['query']}")
        things = [each for each in things if each["updatedAt"] >= since[1]]
    if given.get("sortKey") == "UPDATED_AT":
        things = sorted(things, key=lambda each: str(each["updatedAt"]))
    start = int(given.get("after", "at 0").removeprefix("at "))
    end = start + given["first"]
    return {
        "nodes": things[start:end],
        "pageInfo": {"hasNextPage": end < len(things), "endCursor": f"at {end}"},
    }


# The shop -----------------------------------------------------------------------------------------------


@dataclass
class Admin:
    """What a shop holds, and how many points it has left; `moods` are answered first, each once.

    `lists`: orders, products, customers and inventory_levels as webhooks bring them.
    """

    lists: Mapping[str, Sequence[Mapping[str, Any]]]
    available: float = 1e9
    restores: float = 100.0
    most: int = MOST_POINTS
    moods: list[Any] = field(default_factory=list)
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)

    def rest(self, seconds: float) -> None:
        """Time that goes by gives points back."""
        self.available += seconds * self.restores

    def answer(self, body: bytes) -> bytes:
        told = json.loads(body)
        operation, variables = told["operationName"], told["variables"]
        self.asked.append((operation, variables))
        if self.moods:
            mood = self.moods.pop(0)
            return mood if isinstance(mood, bytes) else json.dumps(mood).encode()
        try:
            return json.dumps(self._carried_out(told["query"], operation, variables)).encode()
        except Wrong as wrong:
            return json.dumps(refusal(str(wrong), "undefinedField")).encode()

    def _carried_out(self, text: str, operation: str, variables: Mapping[str, Any]) -> Any:
        question = _Question(_Asked.of(text), operation, variables, _held(self.lists))
        question.check()
        points = question.cost(question.asked.operations[operation][1], "QueryRoot")
        self.costs.append(points)
        if points > self.most:
            return refusal(f"Query cost is {points}", "MAX_COST_EXCEEDED")
        if points > self.available:
            return refusal("Throttled", "THROTTLED") | self._cost(points)
        found, spent = question.answer()
        self.available -= spent
        return {"data": found} | self._cost(points)

    def _cost(self, points: int) -> dict[str, Any]:
        status = {"currentlyAvailable": self.available, "restoreRate": self.restores}
        return {"extensions": {"cost": {"requestedQueryCost": points, "throttleStatus": status}}}


def refusal(said: str, code: str) -> dict[str, Any]:
    return {"errors": [{"message": said, "extensions": {"code": code}}]}


def _held(lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    places: dict[str, Any] = {}
    for each in lists.get("inventory_levels", ()):
        place = _named("Location", {"id": each["location_id"]})
        places.setdefault(place["id"], place | {"inventoryLevels": []})
        places[place["id"]]["inventoryLevels"].append(_level(each))
    held: dict[str, Any] = {
        "orders": [_order(each) for each in lists.get("orders", ())],
        "products": [_product(each) for each in lists.get("products", ())],
        "customers": [_customer(each) for each in lists.get("customers", ())],
        "locations": list(places.values()),
    }
    return {**held, "nodes": {each["id"]: each for each in _nodes(held)}}


def _nodes(held: Any) -> Iterator[Any]:
    if isinstance(held, dict):
        if "__typename" in held:
            yield held
        held = list(held.values())
    if isinstance(held, list):
        for each in held:
            yield from _nodes(each)


def _named(kind: str, thing: Mapping[str, Any]) -> dict[str, Any]:
    own = thing.get("admin_graphql_api_id") or f"gid://shopify/{kind}/{thing['id']}"
    return {"__typename": kind, "id": own, "legacyResourceId": str(thing["id"])}


def _at(said: str | None) -> str | None:
    if said is None:
        return None
    return datetime.fromisoformat(said).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _money(amount: Any, currency: Any) -> dict[str, Any]:
    return {"shopMoney": {"amount": str(amount), "currencyCode": currency}}


def _order(order: Mapping[str, Any]) -> dict[str, Any]:
    currency, customer = order["currency"], order.get("customer")
    lines = {str(each["id"]): _line(each, currency) for each in order["line_items"]}
    return {
        **_named("Order", order),
        "name": order.get("name"),
        "createdAt": _at(order["created_at"]),
        "updatedAt": _at(order["updated_at"]),
        "cancelledAt": _at(order.get("cancelled_at")),
        "currencyCode": currency,
        "displayFinancialStatus": (order.get("financial_status") or "paid").upper(),
        "test": order.get("test") or False,
        "customer": customer and _named("Customer", customer),
        "lineItems": list(lines.values()),
        "refunds": [_refund(each, currency, lines) for each in order.get("refunds", ())],
        "fulfillments": [_fulfilment(each) for each in order.get("fulfillments", ())],
    }


def _line(line: Mapping[str, Any], currency: Any) -> dict[str, Any]:
    def legacy(name: str) -> Any:
        return line.get(name) and {"legacyResourceId": str(line[name])}

    return {
        **_named("LineItem", line),
        "sku": line.get("sku"),
        "title": line.get("title"),
        "quantity": line["quantity"],
        "currentQuantity": line.get("current_quantity", line["quantity"]),
        "isGiftCard": line.get("gift_card") or False,
        "originalUnitPriceSet": _money(line.get("price"), currency),
        "discountAllocations": [
            {"allocatedAmountSet": _money(each["amount"], currency)}
            for each in line.get("discount_allocations", ())
        ],
        "product": legacy("product_id"),
        "variant": legacy("variant_id"),
    }


def _refund(refund: Mapping[str, Any], currency: Any, lines: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_named("Refund", refund),
        "createdAt": _at(refund["created_at"]),
        "refundLineItems": [
            {
                "id": f"gid://shopify/RefundLineItem/{each['id']}",
                "quantity": each["quantity"],
                "subtotalSet": _money(each["subtotal"], currency),
                "lineItem": lines[str(each["line_item_id"])],
            }
            for each in refund["refund_line_items"]
        ],
    }


def _fulfilment(parcel: Mapping[str, Any]) -> dict[str, Any]:
    place = parcel.get("location_id")
    return {
        **_named("Fulfillment", parcel),
        "status": parcel["status"].upper(),
        "displayStatus": (parcel.get("shipment_status") or "fulfilled").upper(),
        "createdAt": _at(parcel["created_at"]),
        "updatedAt": _at(parcel["updated_at"]),
        "location": place and {"legacyResourceId": str(place)},
        "trackingInfo": [{"company": parcel.get("tracking_company")}],
        "fulfillmentLineItems": [
            {"quantity": each["quantity"], "lineItem": _line(each, None)}
            for each in parcel["line_items"]
        ],
    }


def _product(product: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_named("Product", product),
        "title": product["title"],
        "vendor": product.get("vendor", ""),
        "productType": product.get("product_type", ""),
        "status": (product.get("status") or "active").upper(),
        "updatedAt": _at(product["updated_at"]),
        "variants": [
            {
                **_named("ProductVariant", each),
                "title": each.get("title"),
                "sku": each.get("sku"),
                "barcode": each.get("barcode"),
                "price": each.get("price"),
                "updatedAt": _at(each.get("updated_at") or product["updated_at"]),
                "inventoryItem": {"legacyResourceId": str(each.get("inventory_item_id"))},
            }
            for each in product["variants"]
        ],
    }


def _customer(customer: Mapping[str, Any]) -> dict[str, Any]:
    address = customer.get("default_address")
    return {
        **_named("Customer", customer),
        "firstName": customer["first_name"],
        "lastName": customer["last_name"],
        "createdAt": _at(customer["created_at"]),
        "updatedAt": _at(customer["updated_at"]),
        "defaultEmailAddress": _channel(customer, "email", "emailAddress", "email"),
        "defaultPhoneNumber": _channel(customer, "phone", "phoneNumber", "sms"),
        "defaultAddress": address and {"countryCodeV2": address["country_code"]},
    }


def _channel(customer: Mapping[str, Any], name: str, field_: str, channel: str) -> Any:
    agreed = customer.get(f"{channel}_marketing_consent") or {"state": "not_subscribed"}
    return customer[name] and {
        field_: customer[name],
        "marketingState": agreed["state"].upper(),
        "marketingUpdatedAt": _at(agreed.get("consent_updated_at")),
    }


def _level(level: Mapping[str, Any]) -> dict[str, Any]:
    available = level["available"]
    item = {"id": level["inventory_item_id"]}
    return {
        "updatedAt": _at(level["updated_at"]),
        "item": _named("InventoryItem", item) | {"tracked": available is not None},
        "quantities": [{"name": "available", "quantity": available or 0}],
    }
