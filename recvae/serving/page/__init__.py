"""The page at `/`, to try the model, and Swagger UI at `/docs`; both load nothing from elsewhere."""

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import Response

PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
DOCS_FILES = {
    "/docs/swagger-ui.js": ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    "/docs/swagger-ui.css": ("swagger-ui.css", "text/css; charset=utf-8"),
    "/docs/favicon.png": ("favicon-32x32.png", "image/png"),
}
SWAGGER = "fastapi_swagger.resources"
"""Package that carries Swagger UI's files."""


def add_page(app: FastAPI) -> None:
    """Add the page and the API's documentation."""
    for package, files in ((__package__, PAGE_FILES), (SWAGGER, DOCS_FILES)):
        for path, (name, media_type) in files.items():
            _add_file(app, path, package, name, media_type)
    html, csp = _swagger_page(app.title)

    async def docs() -> Response:
        return Response(html, media_type="text/html; charset=utf-8", headers={"content-security-policy": csp})

    app.add_api_route("/docs", docs, include_in_schema=False)


def _add_file(app: FastAPI, path: str, package: str, name: str, media_type: str) -> None:
    async def file() -> Response:
        return Response(_read(package, name), media_type=media_type)

    app.add_api_route(path, file, include_in_schema=False)


@cache
def _read(package: str, name: str) -> bytes:
    return resources.files(package).joinpath(name).read_bytes()


def _swagger_page(title: str) -> tuple[bytes, str]:
    """Return Swagger UI's page, with addresses relative to `/docs`, and the policy under which its script may run."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{title}: API",
        swagger_js_url="docs/swagger-ui.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},
    )
    html = bytes(page.body)
    hashes = [hashlib.sha256(script).digest() for script in re.findall(rb"<script>(.*?)</script>", html, re.DOTALL)]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    return html, (
        f"default-src 'none'; script-src 'self' {allowed}; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
