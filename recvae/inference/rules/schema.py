"""JSON schemas of the rules that fit the items of a model."""

from typing import Any

from recvae.inference.rules.item_column import MOST_TOGETHER, MOST_VALUES, ORDERED, ORDERS
from recvae.inference.rules.metadata import Metadata
from recvae.inference.rules.selection import MOST_BOOSTS, MOST_DEVIATIONS


def describe_rules(metadata: Metadata) -> dict[str, dict[str, Any]]:
    """Describe the filters, boosts and caps that fit the items, as JSON schemas by the name of the field."""
    filters, caps = dict[str, Any](), dict[str, Any]()
    for name, kind in metadata.kinds().items():
        value = {"text": {"type": "string"}, "number": {"type": "number"}, "truth value": {"type": "boolean"}}.get(
            kind, {"type": "string", "format": "date-time"}
        )
        listed = {"type": "array", "items": value, "minItems": 1}
        several, together = ({"anyOf": [value, {**listed, "maxItems": n}]} for n in (MOST_VALUES, MOST_TOGETHER))
        operators: dict[str, Any] = {"not": several, "all": together}
        operators |= dict.fromkeys(ORDERS, value) if kind in ORDERED else {}
        compared = {"type": "object", "properties": operators, "additionalProperties": False, "minProperties": 1}
        filters[name] = {"anyOf": [*several["anyOf"], compared]}
        caps[name] = {"type": "integer", "minimum": 1}
    kept = {"type": "object", "properties": filters, "additionalProperties": False}
    by = {"type": "number", "minimum": -MOST_DEVIATIONS, "maximum": MOST_DEVIATIONS}
    boost = {
        "type": "object",
        "properties": {"filter": kept, "by": by},
        "required": ["filter", "by"],
        "additionalProperties": False,
    }
    return {
        "filter": {"anyOf": [kept, {"type": "null"}]},
        "boost": {"type": "array", "items": boost, "maxItems": MOST_BOOSTS},
        "cap": {"type": "object", "properties": caps, "additionalProperties": False},
    }
