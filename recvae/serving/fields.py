"""Types of what requests hold: ids, weights, times, items with these, events, and values of metadata."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from recvae.inference.ids import LARGEST_NUMBER, Id
from recvae.serving.problems import ProblemError
from recvae.store.events import Event

LONGEST_ID, LONGEST_TYPE = 256, 64
DAY = 86_400.0
MOST_WEIGHT = 1e9
NO_NUL = r"^[^\x00]*$"
"""PostgreSQL cannot keep NUL in a text."""
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
"""Unix seconds of the years 1 to 9999."""
SHOWN = 40
"""Characters of a wrong time that an error quotes."""

ItemId = (
    Annotated[int, Field(strict=True, ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
    | Annotated[str, Field(strict=True, min_length=1, max_length=LONGEST_ID, pattern=NO_NUL)]
)
TextId = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, pattern=NO_NUL)]
Weight = Annotated[float, Field(strict=True, gt=0, le=MOST_WEIGHT)]


def _parse_time(given: Any) -> Any:
    """Turn a date and time in ISO 8601 into Unix seconds; one without an offset is in UTC."""
    if not isinstance(given, str):
        return given
    try:
        parsed = datetime.fromisoformat(given)
    except ValueError:
        raise ValueError(f"is {given[:SHOWN]!r}; expected a time in ISO 8601 or Unix seconds") from None
    seconds = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    return min(max(seconds, FIRST_SECOND), LAST_SECOND)  # an offset may reach a day beyond


Time = Annotated[
    float,
    Field(strict=True, ge=FIRST_SECOND, le=LAST_SECOND),
    BeforeValidator(_parse_time),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "number", "minimum": FIRST_SECOND, "maximum": LAST_SECOND},
            ]
        }
    ),
]


class Request(BaseModel):
    """Base of requests and their parts: nothing but the declared fields, and nothing changes them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightedItem(Request):
    """An item of a history with its weight; an id alone weighs 1."""

    id: ItemId
    weight: Weight


class EventItem(Request):
    """An interaction with more than an item.

    An event with the item, type and time of an earlier one is that one, sent again; without a time, there is one for
    each item and type.
    """

    id: ItemId
    type: Annotated[str, Field(min_length=1, max_length=LONGEST_TYPE, pattern=NO_NUL)] | None = Field(
        default=None, description="Kind of interaction, such as buy; models may give each a weight of its own."
    )
    weight: Weight = 1.0
    time: Time | None = Field(
        default=None, description="Time of the interaction by the client's clock, at most a day ahead."
    )


def _tell_kind(entry: Any) -> str:
    return "an-object" if isinstance(entry, dict | Request) else "an-id"


HistoryItem = Annotated[
    Annotated[ItemId, Tag("an-id")] | Annotated[WeightedItem, Tag("an-object")], Discriminator(_tell_kind)
]
EventEntry = Annotated[
    Annotated[ItemId, Tag("an-id")] | Annotated[EventItem, Tag("an-object")], Discriminator(_tell_kind)
]

LONGEST_VALUE, MOST_COLUMNS, MOST_OF_A_SET = 1000, 64, 100
_Text = Annotated[str, Field(strict=True, max_length=LONGEST_VALUE)]
_Number = Annotated[float, Field(strict=True, ge=-(2**53), le=2**53)]


def _kind_of_value(value: Any) -> str | None:
    if isinstance(value, list):
        return "a-list-of-numbers" if value and _is_number(value[0]) else "a-list-of-texts"
    if value is None:
        return "no-value"
    kinds = {bool: "a-truth", int: "a-number", float: "a-number", str: "a-text"}
    return kinds.get(type(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


MetadataValue = Annotated[
    Annotated[None, Tag("no-value")]
    | Annotated[bool, Field(strict=True), Tag("a-truth")]
    | Annotated[_Number, Tag("a-number")]
    | Annotated[_Text, Tag("a-text")]
    | Annotated[list[_Text], Field(max_length=MOST_OF_A_SET), Tag("a-list-of-texts")]
    | Annotated[list[_Number], Field(max_length=MOST_OF_A_SET), Tag("a-list-of-numbers")],
    Discriminator(
        _kind_of_value,
        custom_error_type="metadata",
        custom_error_message="expected a text, a number, true or false, a list of texts or of numbers, or null",
    ),
]


def parse_events(given: Sequence[Id | EventItem]) -> list[Event]:
    """Return events as the store keeps them; problem 409 for one that comes twice, or long before its time."""
    latest, places = time.time() + DAY, dict[tuple[str, str, float], int]()
    events = []
    for i, entry in enumerate(given):
        if not isinstance(entry, EventItem):
            event = Event(str(entry))
        else:
            event = Event(str(entry.id), entry.type or "", entry.weight, entry.time or 0.0)
        if event.time > latest:
            raise ProblemError(409, f"items[{i}].time is more than a day ahead", f"items[{i}].time")
        before = places.setdefault((event.item, event.type, event.time), i)
        if before != i:
            raise ProblemError(
                409, f"items[{i}] is items[{before}] again; a repetition has another time", f"items[{i}]"
            )
        events.append(event)
    return events
