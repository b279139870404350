"""The page at `/`: search titles, pick some, see what is recommended and why."""

from functools import cache
from importlib import resources

from fastapi import FastAPI
from starlette.responses import Response

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


def add_page(app: FastAPI) -> None:
    """Add the page and the API's documentation, which load nothing from elsewhere."""
    for path, (name, kind) in FILES.items():
        _add(app, path, name, kind)


def _add(app: FastAPI, path: str, name: str, kind: str) -> None:
    async def page() -> Response:
        return Response(_content(name), media_type=kind)

    app.add_api_route(path, page, include_in_schema=False)


@cache
def _content(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()
