"""Pydantic models of requests and responses."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from recvae.serving.fields import (
    MOST_COLUMNS,
    NO_NUL,
    EventEntry,
    EventItem,
    HistoryItem,
    ItemId,
    MetadataValue,
    Request,
    TextId,
)
from recvae.serving.settings import Settings

EVENT: dict[str, Any] = {"id": 50, "type": "buy", "weight": 2.5, "time": "2026-01-31T12:00:00Z"}


class ListFields(Request):
    """Fields that decide the items of a list and their order."""

    n: int = Field(10, description="Length of the list.")
    exclude: list[ItemId] = Field([], description="Items to leave out, besides those of the history.")
    only: list[ItemId] | None = Field(None, description="Candidates: no other item is listed.")
    explain: Annotated[bool, Field(strict=True)] = Field(
        False, description="Whether to give the items of the history that raise each score most."
    )
    filter: dict[str, Any] | None = Field(
        None, description="Conditions on the items' metadata: a value, a list of values, or ge, gt, le, lt, not, all."
    )
    boost: list[Any] = Field(
        [], description="Objects with a filter, and by: standard deviations of the user's scores to add."
    )
    cap: dict[str, Any] = Field({}, description="For each value of a column, the most items of the list that have it.")
    diversity: Annotated[float, Field(strict=True, ge=0, le=1)] = Field(
        0, description="Weight of being unlike the items listed before, against the score."
    )
    variant: TextId | None = Field(
        None, description="Name of one of several models, which answers in place of the user's own."
    )


class RecommendFields(ListFields):
    """Request for recommendations: a history, and which items may be listed."""

    history: list[HistoryItem] = Field(
        description="Items the user has interacted with: ids, or ids with weights; [] gives the popular items."
    )


class BatchFields(Request):
    """Several requests for recommendations at once."""

    requests: Sequence[RecommendFields]


class AnomalyFields(Request):
    """A history to be judged."""

    history: list[ItemId] = Field(description="Items of a user's history, at least one.")


class ItemRequest(RootModel[dict[Annotated[str, Field(min_length=1, max_length=64)], MetadataValue]]):
    """Metadata of an item by column: a text, a number, a truth value, a list for a set of values, or null for none."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"maxProperties": MOST_COLUMNS})

    @model_validator(mode="after")
    def _refuse_many(self) -> Self:
        if len(self.root) > MOST_COLUMNS:
            raise ValueError(f"has {len(self.root)} columns; expected at most {MOST_COLUMNS}")
        return self


class ItemResponse(BaseModel):
    """An item, and the metadata that is stored for it."""

    id: int | str
    metadata: dict[str, Any]


class EventsFields(Request):
    """New interactions of a user, oldest first; `list_id` is that of the answer which they follow."""

    items: list[EventEntry] = Field(description="Ids, or objects with a type, a weight and a time.")
    list_id: Annotated[str, Field(max_length=64, pattern=NO_NUL)] | None = None


@dataclass(frozen=True)
class Requests:
    """Request models with the limits of the service."""

    recommend: type[RecommendFields]
    user: type[ListFields]
    batch: type[BatchFields]
    anomaly: type[AnomalyFields]
    events: type[EventsFields]


def request_models(settings: Settings) -> Requests:
    """Return the request models with the limits of `settings`, which errors and the OpenAPI document then name."""
    listed = Field(max_length=settings.max_history, json_schema_extra={"uniqueItems": True})
    distinct, whole = AfterValidator(_refuse_repetition), WrapValidator(_accept_whole_floats)
    example: dict[str, Any] = {"history": [50, 172, 181], "n": 10}
    rules: dict[str, Any] = {"filter": {}, "diversity": 0.3}

    class ListRequest(ListFields):
        n: Annotated[int, Field(strict=True, ge=1, le=settings.max_n), BeforeValidator(_as_whole)] = 10
        exclude: Annotated[list[ItemId], listed, distinct, whole] = Field([])
        only: Annotated[list[ItemId], listed, distinct, whole] | None = None

    class UserRequest(ListRequest):
        model_config = ConfigDict(json_schema_extra={"examples": [{"n": 10}, {"n": 10, **rules}]})

    class RecommendRequest(ListRequest, RecommendFields):
        model_config = ConfigDict(
            json_schema_extra={"examples": [example, {**example, "explain": True}, {**example, **rules}]}
        )

        history: Annotated[list[HistoryItem], listed, distinct, whole]

    class BatchRequest(BatchFields):
        model_config = ConfigDict(json_schema_extra={"examples": [{"requests": [example, {"history": []}]}]})

        requests: Annotated[list[RecommendRequest], Field(min_length=1, max_length=settings.max_batch)]

    class AnomalyRequest(AnomalyFields):
        model_config = ConfigDict(json_schema_extra={"examples": [{"history": example["history"]}]})

        history: Annotated[list[ItemId], Field(min_length=1), listed, distinct, whole]

    class EventsRequest(EventsFields):
        model_config = ConfigDict(json_schema_extra={"examples": [{"items": [50, 172]}, {"items": [EVENT]}]})

        items: Annotated[list[EventEntry], Field(min_length=1), listed, AfterValidator(_refuse_repeated_ids), whole]

    return Requests(RecommendRequest, UserRequest, BatchRequest, AnomalyRequest, EventsRequest)


class ModelVersion(BaseModel):
    """The model that answered."""

    name: str
    version: str
    trained_at: datetime | None
    variant: str | None = Field(None, description="Its name where several models are served.")


class FoundItem(BaseModel):
    """An item of the catalogue."""

    id: int | str
    title: str | None


class ScoredItem(FoundItem):
    """An item of a ranked list."""

    score: float


class Reason(FoundItem):
    """An item of the history that raises a score, and by how much."""

    contribution: float


class RecommendedItem(ScoredItem):
    """A recommended item, with reasons where `explain` was set."""

    because: list[Reason] | None = None


class RecommendResponse(BaseModel):
    """Recommended items, best first, and the ids of the request that the model does not know."""

    items: list[RecommendedItem]
    unknown: list[int | str]
    list_id: str
    model: ModelVersion


class UserResponse(RecommendResponse):
    """Recommended items for a user; `popular` is there and true where nothing is known of the user."""

    popular: bool | None = None


class EraseResponse(BaseModel):
    """Number of interactions that the store erased, and whether a history of the artifact is hidden from now on."""

    erased: int
    hidden: bool


class BatchResponse(BaseModel):
    """One answer for each request, in the same order."""

    answers: list[RecommendResponse]


class UnusualItem(FoundItem):
    """An item of the history, and the nats by which its popularity predicts it better than the rest of the history."""

    surprise: float


class AnomalyResponse(BaseModel):
    """Score of an unusual history, the share of real users with such a score, and the items that fit it least.

    Score and share are null where the model knows no item of the history.
    """

    score: float | None
    p_value: float | None
    items: list[UnusualItem]
    unknown: list[int | str]
    model: ModelVersion


class SimilarItemsResponse(BaseModel):
    """Items, most similar first."""

    items: list[ScoredItem]
    model: ModelVersion


class SearchResponse(BaseModel):
    """Items that match the search, most popular first."""

    items: list[FoundItem]


class Column(BaseModel):
    """A column of the items: its kind, its most frequent values, or the bounds of numbers and dates."""

    kind: str
    n_values: int = Field(description="Number of distinct values.")
    values: list[str | bool] = Field(description="The most frequent ones first.")
    least: float | str | None
    largest: float | str | None


class ColumnsResponse(BaseModel):
    """Columns of the items by name, but for ids and titles."""

    columns: dict[str, Column]


class EventsResponse(BaseModel):
    """Number of interactions that were new to the store, and the item ids and types that the model does not know.

    An unknown type counts for nothing where the model has weights for types.
    """

    stored: int
    unknown: list[int | str]
    unknown_types: list[str]


class ModelDescription(ModelVersion):
    """The manifest of a model that is served, and its card."""

    n_items: int
    metrics: dict[str, Any]
    data: dict[str, Any]
    hyperparameters: dict[str, Any]
    loaded_at: datetime
    index: dict[str, Any] | None = Field(description="The approximate index of a large catalogue, with its recall.")
    card: dict[str, Any] = Field(description="Data, settings, figures, columns of the items, and limits.")


class ModelVariant(BaseModel):
    """One of several models behind the service, its share of the users against the others, and why it is missing."""

    variant: str
    share: float
    model: ModelDescription | None
    last_error: str | None


class ModelInfo(ModelDescription):
    """The model that is served, the first one where there are several, and all of these."""

    last_error: str | None = Field(description="Why the artifact now at the path was not loaded, if it was not.")
    variants: list[ModelVariant] = Field([], description="All models, where several are served.")


class ReloadResponse(BaseModel):
    """Result of a reload: whether the artifact was a new one, and the model that is served now."""

    changed: bool
    model: ModelVersion


class ServiceStatus(BaseModel):
    """State of the process."""

    status: str


def _as_whole(number: Any) -> Any:
    """Turn 10.0 into 10: JSON knows one kind of number."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _as_whole_id(given: Any) -> Any:
    return {**given, "id": _as_whole(given["id"])} if isinstance(given, dict) and "id" in given else _as_whole(given)


def _accept_whole_floats(ids: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate ids, and only if that fails look for numbers such as 10.0: there may be many ids."""
    try:
        return validate(ids)
    except ValidationError:
        if not isinstance(ids, list):
            raise
        return validate([_as_whole_id(one) for one in ids])


def _refuse_repetition(ids: list[Any]) -> list[Any]:
    if len(set(ids)) < len(ids):
        raise ValueError("ids occur more than once")
    return ids


def _refuse_repeated_ids(entries: list[Any]) -> list[Any]:
    _refuse_repetition([entry for entry in entries if not isinstance(entry, EventItem)])
    return entries
