"""What requests and answers look like."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from recvae.inference.ids import LARGEST_NUMBER
from recvae.serving.settings import Settings

LONGEST_ID = 256
NO_NUL = r"^[^\x00]*$"
"""Which databases cannot keep in a text."""

ItemId = (
    Annotated[int, Field(strict=True, ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
    | Annotated[str, Field(strict=True, min_length=1, max_length=LONGEST_ID, pattern=NO_NUL)]
)
UserId = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, pattern=NO_NUL)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Recommend(_Request):
    """What to list for a history."""

    history: list[ItemId] = Field(description="Items played; none gives the popular items.")
    n: int = Field(10, description="Length of the list.")
    exclude: list[ItemId] = Field([], description="Not to be listed, beside the history.")
    only: list[ItemId] | None = Field(None, description="The only items to be listed.")
    explain: Annotated[bool, Field(strict=True)] = Field(
        False, description="Whether to say which items of the history speak for each item."
    )


class Events(_Request):
    """Interactions of a user, oldest first."""

    items: list[ItemId]


class Batch(_Request):
    """Several requests at once."""

    requests: Sequence[Recommend]


@dataclass(frozen=True)
class Requests:
    """Request models that know the service's limits."""

    recommend: type[Recommend]
    batch: type[Batch]
    events: type[Events]


def request_models(settings: Settings) -> Requests:
    """The requests with the limits of `settings`, which errors and the OpenAPI document name."""
    listed = Field(max_length=settings.max_history, json_schema_extra={"uniqueItems": True})
    distinct, whole = AfterValidator(_distinct), WrapValidator(_whole_ids)
    example: dict[str, Any] = {"history": [50, 172, 181], "n": 10}

    class RecommendRequest(Recommend):
        model_config = ConfigDict(json_schema_extra={"examples": [example, {**example, "explain": True}]})

        history: Annotated[list[ItemId], listed, distinct, whole]
        n: Annotated[int, Field(strict=True, ge=1, le=settings.max_n), BeforeValidator(_whole)] = 10
        exclude: Annotated[list[ItemId], listed, distinct, whole] = []
        only: Annotated[list[ItemId], listed, distinct, whole] | None = None

    class BatchRequest(Batch):
        model_config = ConfigDict(json_schema_extra={"examples": [{"requests": [example, {"history": []}]}]})

        requests: Annotated[list[RecommendRequest], Field(min_length=1, max_length=settings.max_batch)]

    class EventsRequest(Events):
        model_config = ConfigDict(json_schema_extra={"examples": [{"items": [50, 172]}]})

        items: Annotated[list[ItemId], Field(min_length=1), listed, distinct, whole]

    return Requests(RecommendRequest, BatchRequest, EventsRequest)


class Reason(BaseModel):
    """An item of the history, and what the score owes to it."""

    id: int | str
    title: str | None
    contribution: float


class Item(BaseModel):
    """An item, and reasons for it where asked for."""

    id: int | str
    title: str | None
    score: float
    because: list[Reason] | None = None


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str
    trained_at: datetime | None


class Answer(BaseModel):
    """Items, best first, and the ids of the request that the model does not know."""

    items: list[Item]
    unknown: list[int | str]
    model: ModelName


class BatchAnswer(BaseModel):
    """One answer a request, in order."""

    answers: list[Answer]


class SimilarAnswer(BaseModel):
    """Items, most similar first."""

    items: list[Item]
    model: ModelName


class Title(BaseModel):
    """An item as the search finds it."""

    id: int | str
    title: str | None


class Titles(BaseModel):
    """Items whose title holds what was searched for, the most played first."""

    items: list[Title]


class StoredAnswer(BaseModel):
    """How many interactions were new to the store, and which items the model does not know yet."""

    stored: int
    unknown: list[int | str]


class ModelAnswer(ModelName):
    """The manifest of the model that is served."""

    n_items: int
    metrics: dict[str, Any]
    data: dict[str, Any]
    hyperparameters: dict[str, Any]
    loaded_at: datetime
    index: dict[str, Any] | None = Field(description="The approximate index of a large catalogue, with its recall.")
    last_error: str | None = Field(description="Why the artifact now at the path is not the one that is served.")


class ReloadAnswer(BaseModel):
    """Whether another artifact was there, and which model serves now."""

    changed: bool
    model: ModelName


class Status(BaseModel):
    """Of the process."""

    status: str


def _whole(number: Any) -> Any:
    """To JSON 10.0 is the same number as 10."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _whole_ids(ids: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Looks for numbers such as 10.0 only where something is wrong, since there may be many ids."""
    try:
        return validate(ids)
    except ValidationError:
        if not isinstance(ids, list):
            raise
        return validate([_whole(item) for item in ids])


def _distinct(ids: list[Any]) -> list[Any]:
    if len(set(ids)) < len(ids):
        raise ValueError("ids occur more than once")
    return ids
