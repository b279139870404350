"""Errors as RFC 9457 problem documents that name the field."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
PLACES = ("body", "query", "path")
ID_KINDS = ("constrained-int", "constrained-str")


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    field: str
    detail: str


class Problem(BaseModel):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


class ProblemError(Exception):
    """Raised where a request cannot be answered; becomes a problem document."""

    def __init__(self, status: int, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.field = status, detail, field

    def response(self) -> Response:
        """The problem document."""
        return problem(self.status, self.detail, [{"field": self.field, "detail": self.detail}] if self.field else ())


def problem(status: int, detail: str, errors: Sequence[Mapping[str, str]] = ()) -> Response:
    """The response for a problem; those that pass carry Retry-After."""
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


def invalid(errors: Sequence[Mapping[str, Any]]) -> Response:
    """422 from pydantic's list of errors: each field, and what was expected."""
    found = [{"field": _field(error["loc"]), "detail": str(error["msg"])} for error in errors]
    detail = "; ".join(f"{error['field']}: {error['detail']}" for error in found[:3])
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return problem(422, detail + more, found[:20])


def _field(location: Sequence[int | str]) -> str:
    """Such as `requests[3].history[0]`; where it stood and which kinds of id were tried are left out."""
    text = ""
    for part in location[1:] if location and location[0] in PLACES else location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in ID_KINDS:
            text += f".{part}" if text else part
    return text or "body"
