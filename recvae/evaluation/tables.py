"""Tables of a comparison for people: on a terminal, as Markdown, as HTML; made from the content of results.json."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from recvae.errors import ParameterError
from recvae.evaluation.evaluate import PRIMARY_METRICS
from recvae.evaluation.metrics import ACCURACY_METRICS, parse_metric
from recvae.evaluation.results import Results

SIGNIFICANCE_LEVEL = 0.05
BEST, CLOSE = "*", "≈"
ABSENT = "-"
LEGEND = (
    f"± standard error over users; {BEST} best; {CLOSE} not significantly different from the best "
    f"(paired t-test, Holm-corrected p ≥ {SIGNIFICANCE_LEVEL})"
)


def console_table(results: Results, metrics: Sequence[str] = PRIMARY_METRICS) -> Table:
    """One row a model, the best by the last metric first; three metrics fit into 80 columns.

    The marks are characters, so the table says the same without colours.

    Raises
    ------
    ParameterError
        If a metric is unknown or no model has it.
    """
    rows = _rows(results, metrics)
    table = Table(
        title=Text(f"{results['dataset']}"),
        caption=Text("\n".join(_notes(results, metrics))),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
    table.add_column("model", overflow="fold")
    widths = [
        max([len(metric), *(len(cells[column].text) for _, cells, _ in rows)]) for column, metric in enumerate(metrics)
    ]
    for metric, width in zip(metrics, widths, strict=True):
        table.add_column(Text(metric.rjust(width)), no_wrap=True)
    for cost in ("fit\ns", "score\ns", "peak\nMB"):
        table.add_column(cost, justify="right", no_wrap=True)
    for name, cells, costs in rows:
        figures = [
            Text(f"{cell.text.rjust(width)}{cell.mark or ' '}", cell.style)
            for cell, width in zip(cells, widths, strict=True)
        ]
        table.add_row(Text(name), *figures, *costs)
    return table


def metrics_table(results: Results) -> Table:
    """One row a metric, for results of one model."""
    ((name, model),) = results["models"].items()
    table = Table(
        title=Text(f"{name} on {results['dataset']}"),
        caption=Text("\n".join(["± standard error over users.", *_context(results)])),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    table.add_column("metric")
    table.add_column("mean", justify="right")
    table.add_column("±", justify="right")
    for metric, figures in model["metrics"].items():
        error = figures["stderr"]
        table.add_row(metric, _figure(figures["mean"]), "" if error is None else _figure(error))
    return table


def markdown_table(results: Results, metrics: Sequence[str] = PRIMARY_METRICS) -> str:
    """The table of `console_table` as GitHub Markdown, its notes below it."""
    headings = ["model", *metrics, "fit s", "score s", "peak MB"]
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)]]
    for name, cells, costs in _rows(results, metrics):
        lines.append([_escaped(name), *[cell.markdown() for cell in cells], *costs])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n" + "\n\n".join(_escaped(note) for note in _notes(results, metrics)) + "\n"


def html_table(results: Results, metrics: Sequence[str] = PRIMARY_METRICS) -> str:
    """The table of `console_table` as HTML, its notes below it."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("model", *metrics, "fit s", "score s", "peak MB"))
    rows = []
    for name, cells, costs in _rows(results, metrics):
        figures = [f"<b>{cell.text}</b>{cell.mark}" if cell.style else f"{cell.text}{cell.mark}" for cell in cells]
        line = "".join(f"<td>{entry}</td>" for entry in (html.escape(name), *figures, *costs))
        rows.append(f"<tr>{line}</tr>")
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in _notes(results, metrics))
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>{notes}'


@dataclass(frozen=True)
class _Cell:
    mean: float | None
    stderr: float | None
    mark: str = ""

    @property
    def text(self) -> str:
        error = "" if self.stderr is None else f" ±{_figure(self.stderr)}"
        return f"{_figure(self.mean)}{error}"

    @property
    def style(self) -> str:
        return "bold" if self.mark == BEST else ""

    def markdown(self) -> str:
        return f"**{self.text}**{_escaped(BEST)}" if self.mark == BEST else f"{self.text}{self.mark}"


def _rows(results: Results, metrics: Sequence[str]) -> list[tuple[str, list[_Cell], list[str]]]:
    """Model name, a cell a metric, and what the model cost."""
    marks = {metric: _marks(results, metric) for metric in metrics}
    models = results["models"]
    rows = []
    for name in sorted(models, key=lambda name: -_order(models[name], metrics[-1])):
        figures = [(models[name]["metrics"].get(metric, {}), marks[metric].get(name, "")) for metric in metrics]
        cells = [_Cell(figure.get("mean"), figure.get("stderr"), mark) for figure, mark in figures]
        costs = [_amount(models[name].get(cost)) for cost in ("fit_seconds", "score_seconds", "peak_rss_mb")]
        rows.append((name, cells, costs))
    return rows


def _marks(results: Results, metric: str) -> dict[str, str]:
    """The mark of each model that has one; only accuracy has a best end."""
    name, _ = parse_metric(metric)
    means = {model: entry["metrics"].get(metric, {}).get("mean") for model, entry in results["models"].items()}
    if means and all(mean is None for mean in means.values()):
        raise ParameterError(f"metric is {metric!r}, which no model in the results has")
    known = {model: mean for model, mean in means.items() if mean is not None}
    if name not in ACCURACY_METRICS or not known:
        return {}
    best = max(known, key=lambda model: known[model])
    close = {model: CLOSE for model in _not_significantly_below(results, metric, best) if model in known}
    return close | {model: BEST for model, mean in known.items() if mean == known[best]}


def _not_significantly_below(results: Results, metric: str, best: str) -> Iterator[str]:
    for pair in results.get("comparisons", []):
        names = [pair["a"], pair["b"]]
        if pair["metric"] == metric and best in names and pair["p_value"] >= SIGNIFICANCE_LEVEL:
            yield from (name for name in names if name != best)


def _order(model: Mapping[str, Any], metric: str) -> float:
    mean = model["metrics"].get(metric, {}).get("mean")
    return float("-inf") if mean is None else float(mean)


def _notes(results: Results, metrics: Sequence[str]) -> list[str]:
    absent: dict[str, list[str]] = {}
    for name, reason in results.get("refused", {}).items():
        absent.setdefault(reason, []).append(name)
    refusals = [f"Not in the table: {', '.join(names)}: {reason}." for reason, names in absent.items()]
    blended = [
        f"{name}: of {', '.join(part['class'] for part in model['params']['models'])}; where those stand in the table, "
        "their seconds are not in its own."
        for name, model in results["models"].items()
        if "models" in model["params"]
    ]
    return [
        f"{LEGEND}.",
        *_untested(results, metrics),
        *_context(results),
        *_seeds(results),
        *blended,
        *refusals,
    ]


def _seeds(results: Results) -> list[str]:
    """How far the seeds of a model lie apart."""
    lines = []
    for name, model in results["models"].items():
        if by_seed := model.get("by_seed"):
            metric, means = list(by_seed.items())[-1]
            lines.append(f"{name}: mean of {len(means)} seeds; {metric} of each: {', '.join(map(_figure, means))}.")
    return lines


def _untested(results: Results, metrics: Sequence[str]) -> list[str]:
    """Which metrics say nothing of significance, since no pair of models was tested on them."""
    tested = {pair["metric"] for pair in results.get("comparisons", [])}
    untested = [metric for metric in metrics if parse_metric(metric)[0] in ACCURACY_METRICS and metric not in tested]
    return [f"No paired tests of {', '.join(untested)}."] if untested and len(results["models"]) > 1 else []


def _context(results: Results) -> list[str]:
    """Under which protocol, on how many users."""
    notes = [f"Protocol: {_protocol(results.get('protocol'))}."]
    if "n_users" in results:
        notes.append(
            f"{results['n_users']:,} test users; {results.get('n_without_held_out', 0):,} more without "
            "held-out items, not scored."
        )
    return notes


def _protocol(protocol: Any) -> str:
    if not isinstance(protocol, Mapping):
        return str(protocol)
    flat = {**protocol, **protocol.get("filters", {})}
    return ", ".join(f"{key} {value}" for key, value in flat.items() if key != "filters" and value is not None)


def _figure(value: float | None) -> str:
    """Four decimals; shares without their leading zero, as the field prints them."""
    if value is None:
        return ABSENT
    text = f"{value:.4f}"
    return text.removeprefix("0") if text.startswith("0.") else text


def _amount(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _escaped(text: str) -> str:
    for character in "\\|*_<":
        text = text.replace(character, f"\\{character}")
    return text
