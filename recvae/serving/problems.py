"""Errors as RFC 9457 problem documents that name the wrong field."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
LOCATIONS = ("body", "query", "path")
KINDS = ("constrained-int", "constrained-str", "an-id", "an-object", "[key]")
KINDS_OF_VALUES = ("a-truth", "a-number", "a-text", "no-value", "a-list-of-texts", "a-list-of-numbers")
"""Steps of pydantic's locations that name what was tried, not a place in the request."""
MOST_ERRORS, MOST_IN_DETAIL = 20, 3
"""Errors listed in a problem, and errors repeated in its one-line detail."""


class FieldError(BaseModel):
    """One wrong field of a request."""

    field: str
    detail: str


class Problem(BaseModel):
    """A problem document of RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


class ProblemError(Exception):
    """Raised where a request cannot be answered; it becomes a problem document."""

    def __init__(self, status: int, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.field = status, detail, field

    def response(self) -> Response:
        """Return the problem document as a response."""
        errors = [{"field": self.field, "detail": self.detail}] if self.field else ()
        return problem_response(self.status, self.detail, errors)


def problem_response(status: int, detail: str, errors: Sequence[Mapping[str, str]] = ()) -> Response:
    """Return a problem document as a response; one for a transient problem (503) carries Retry-After."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        content["errors"] = list(errors)
    headers = {"retry-after": str(RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return Response(orjson.dumps(content), status, headers, MEDIA_TYPE)


def validation_response(errors: Sequence[Mapping[str, Any]]) -> Response:
    """Return the 422 response for pydantic's errors: each wrong field, and what was expected."""
    found = [_field_error(error) for error in errors]
    detail = "; ".join(f"{error['field']}: {error['detail']}" for error in found[:MOST_IN_DETAIL])
    more = f"; and {len(found) - MOST_IN_DETAIL} more" if len(found) > MOST_IN_DETAIL else ""
    return problem_response(422, detail + more, found[:MOST_ERRORS])


def _field_error(error: Mapping[str, Any]) -> dict[str, str]:
    if error["type"] == "json_invalid":
        return {"field": "body", "detail": f"Invalid JSON: {error['ctx']['error']}"}
    if error["type"] == "missing" and error["loc"] == ("body",):
        return {"field": "body", "detail": "Input should be a JSON object"}
    return {"field": _field_name(error["loc"]), "detail": str(error["msg"])}


def _field_name(location: Sequence[int | str]) -> str:
    """Write pydantic's location as `requests[3].history[0]`, without the source and the kinds of id that were tried."""
    text = ""
    for step in location[1:] if location and location[0] in LOCATIONS else location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step not in KINDS + KINDS_OF_VALUES:
            text += f".{step}" if text else step
    return text or "body"
