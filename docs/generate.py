"""Generated pages: the command line, the HTTP interface, one for each table of results, and the curves of sweeps."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recvae.evaluation.results import read_results
from recvae.evaluation.sweep_page import render_curves
from recvae.serving import Settings, create_app

Schema = Mapping[str, Any]

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
INCLUDE = """\
```{{include}} ../../../benchmarks/results/{}
:relative-images:
```
"""


def write(folder: Path) -> None:
    """Write every generated page into `folder`; a page that is the same already is left alone."""
    pages = {"command-line.md": command_line(), "http.md": http()}
    pages |= {f"results/{table.name}": INCLUDE.format(table.name) for table in RESULTS.glob("*.md")}
    for sweep in (RESULTS / "sweeps").glob("*.json"):
        pages[f"sweeps/{sweep.stem}.svg"] = render_curves(json.loads(sweep.read_text(encoding="utf8"))) or ""
    for subfolder in ("results", "sweeps"):
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        page = folder / name
        if not page.exists() or page.read_text(encoding="utf8") != text:
            page.write_text(text, encoding="utf8")
    for page in (folder / "results").glob("*.md"):
        if f"results/{page.name}" not in pages:
            page.unlink()


COMMAND_LINE = """\
# Command line

Exit status: 0 on success; 1 when `verify` finds a fault; 2, with one line on standard error, for whatever you can
mend; 130 after Ctrl-C. `recvae COMMAND --help` shows the same as this page.
"""


def command_line() -> str:
    """Describe the commands with their arguments and options, as Typer does."""
    command = [sys.executable, "-m", "typer", "recvae.cli.main", "utils", "docs", "--name", "recvae"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    commands = text[text.index("\n## `recvae ") :]  # what stands before is a list of them, cut short
    return COMMAND_LINE + commands.replace("\n## `recvae ", "\n## `")


def http() -> str:
    """Describe the routes with their parameters, bodies and answers, as the OpenAPI document does."""
    document = create_app(Settings(model=Path("model"))).openapi()
    schemas = document["components"]["schemas"]
    lines = [
        "# HTTP",
        "The service describes itself at `/docs` and `/openapi.json`. Every error of a route is a problem document of "
        "[RFC 9457](https://www.rfc-editor.org/rfc/rfc9457), `application/problem+json`.",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += _operation(f"{method.upper()} {path}", operation)
    lines += ["## Objects"]
    for name, schema in schemas.items():
        lines += [f"### {name}", *_described(schema), *_fields(schema)]
    return "\n\n".join(lines) + "\n"


def _operation(title: str, operation: Schema) -> Iterator[str]:
    yield f"## `{title}`"
    yield from _described(operation)
    rows = [
        f"| `{parameter['name']}` ({parameter['in']}) | {_type(parameter['schema'])} | {_default(parameter)} |"
        for parameter in operation.get("parameters", [])
    ]
    if rows:
        yield "\n".join(["| parameter | type | default |", "| --- | --- | --- |", *rows])
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        yield f"Body: {_type(body)}."
    answer = operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema")
    if answer:
        yield f"Answer: {_type(answer)}."
    problems = [status for status in operation["responses"] if status != "200"]
    if problems:
        yield f"Problems: {', '.join(problems)}."


def _described(schema: Schema) -> Iterator[str]:
    if text := schema.get("description", "").strip():
        yield text


def _fields(schema: Schema) -> Iterator[str]:
    rows = [
        f"| `{name}` | {_type(field)} | {_default({'required': name in schema.get('required', []), 'schema': field})} "
        f"| {_one_line(field.get('description', ''))} |"
        for name, field in schema.get("properties", {}).items()
    ]
    if rows:
        yield "\n".join(["| field | type | default | |", "| --- | --- | --- | --- |", *rows])


def _default(parameter: Schema) -> str:
    schema = parameter["schema"]
    return (
        "required" if parameter.get("required") else f"`{json.dumps(schema['default'])}`" if "default" in schema else ""
    )


def _type(schema: Schema) -> str:
    """Describe a JSON schema in few words, with its bounds; a named object links to its fields."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if kinds := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(kind) for kind in kinds))
    if schema.get("type") == "array":
        most = f", at most {schema['maxItems']:,}" if "maxItems" in schema else ""
        return f"list of {_type(schema.get('items', {}))}{most}"
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = f" from {low:,.0f} to {high:,.0f}" if low is not None and high is not None and high < 1e9 else ""
    longest = f" of at most {schema['maxLength']:,} characters" if "maxLength" in schema else ""
    return f"{schema.get('type', 'any')}{bounds}{longest}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


README_MODELS = ("recvae fit", "blend", "ease", "als", "multvae", "multdae", "recvae", "graph", "popularity")
README_COLUMNS = (
    ("ml-100k", "ML-100K", "ndcg@100"),
    ("ml-1m", "ML-1M", "ndcg@100"),
    ("ml-10m-likes", "ML-10M likes", "ndcg@100"),
    ("lastfm", "Last.fm", "ndcg@100"),
    ("gowalla", "Gowalla", "recall_full@20"),
    ("yelp2018", "Yelp2018", "recall_full@20"),
)


def readme_results(folder: Path) -> str:
    """Make README's table from the results.json files in `folder`; what was not measured is left out."""
    columns = [column for column in README_COLUMNS if (folder / f"{column[0]}.json").exists()]
    tables = {name: read_results(folder / f"{name}.json")["models"] for name, _, _ in columns}
    headings = [f"{title}<br>{figure.replace('_full', '')}" for _, title, figure in columns]
    lines = [f"| | {' | '.join(headings)} |", "| --- |" + " ---: |" * len(columns)]
    for model in README_MODELS:
        if any(model in models for models in tables.values()):
            cells = [_figure(tables[name].get(model), figure) for name, _, figure in columns]
            lines.append(f"| `{model}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _figure(model: Mapping[str, Any] | None, metric: str) -> str:
    if model is None:
        return ""
    figures = model["metrics"][metric]
    return f"{figures['mean']:.3f} ±{figures['stderr']:.3f}".replace("0.", ".")
