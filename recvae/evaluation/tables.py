"""Tables of a comparison for people: on a terminal, as Markdown, as HTML; made from the content of results.json."""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """Make the table for a terminal: a row for each model, the best by the last metric first.

    Three metrics fit into 80 columns. Significance is marked by characters, not by colours.

    Raises
    ------
    ParameterError
        If a metric is unknown or no model has it.
    """
    rows = _make_rows(results, metrics)
    table = Table(
        title=Text(f"{results['dataset']}"),
        caption=Text("\n".join(_make_notes(results, metrics))),
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
    """Make the table of one model for a terminal: a row for each metric."""
    ((name, model),) = results["models"].items()
    table = Table(
        title=Text(f"{name} on {results['dataset']}"),
        caption=Text("\n".join(["± standard error over users.", *_note_context(results)])),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    table.add_column("metric")
    table.add_column("mean", justify="right")
    table.add_column("±", justify="right")
    for metric, figures in model["metrics"].items():
        error = figures["stderr"]
        table.add_row(metric, _format_figure(figures["mean"]), "" if error is None else _format_figure(error))
    return table


def markdown_table(results: Results, metrics: Sequence[str] = PRIMARY_METRICS) -> str:
    """Make the table of `console_table` as GitHub Markdown, with its notes below."""
    headings = ["model", *metrics, "fit s", "score s", "peak MB"]
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)]]
    for name, cells, costs in _make_rows(results, metrics):
        lines.append([_escape_markdown(name), *[cell.markdown() for cell in cells], *costs])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n" + "\n\n".join(_escape_markdown(note) for note in _make_notes(results, metrics)) + "\n"


def html_table(results: Results, metrics: Sequence[str] = PRIMARY_METRICS) -> str:
    """Make the table of `console_table` as HTML, with its notes below."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("model", *metrics, "fit s", "score s", "peak MB"))
    rows = []
    for name, cells, costs in _make_rows(results, metrics):
        figures = [f"<b>{cell.text}</b>{cell.mark}" if cell.style else f"{cell.text}{cell.mark}" for cell in cells]
        line = "".join(f"<td>{entry}</td>" for entry in (html.escape(name), *figures, *costs))
        rows.append(f"<tr>{line}</tr>")
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in _make_notes(results, metrics))
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>{notes}'


@dataclass(frozen=True)
class _Cell:
    mean: float | None
    stderr: float | None
    mark: str = ""

    @property
    def text(self) -> str:
        error = "" if self.stderr is None else f" ±{_format_figure(self.stderr)}"
        return f"{_format_figure(self.mean)}{error}"

    @property
    def style(self) -> str:
        return "bold" if self.mark == BEST else ""

    def markdown(self) -> str:
        return f"**{self.text}**{_escape_markdown(BEST)}" if self.mark == BEST else f"{self.text}{self.mark}"


def _make_rows(results: Results, metrics: Sequence[str]) -> list[tuple[str, list[_Cell], list[str]]]:
    """Make, for each model, its name, a cell for each metric, and its cost."""
    marks = {metric: choose_marks(results, metric) for metric in metrics}
    models = results["models"]
    rows = []
    for name in sorted(models, key=lambda name: -_sort_key(models[name], metrics[-1])):
        figures = [(models[name]["metrics"].get(metric, {}), marks[metric].get(name, "")) for metric in metrics]
        cells = [_Cell(figure.get("mean"), figure.get("stderr"), mark) for figure, mark in figures]
        costs = [_format_amount(models[name].get(cost)) for cost in ("fit_seconds", "score_seconds", "peak_rss_mb")]
        rows.append((name, cells, costs))
    return rows


def choose_marks(results: Results, metric: str) -> dict[str, str]:
    """Mark the best models `BEST`, those not significantly behind `CLOSE`; none where neither high nor low is best."""
    name, _ = parse_metric(metric)
    means = {model: entry["metrics"].get(metric, {}).get("mean") for model, entry in results["models"].items()}
    if means and all(mean is None for mean in means.values()):
        raise ParameterError(f"metric is {metric!r}, which no model in the results has")
    known = {model: mean for model, mean in means.items() if mean is not None}
    if name not in ACCURACY_METRICS or not known:
        return {}
    best = max(known, key=lambda model: known[model])
    close = {model: CLOSE for model in _find_close(results, metric, best) if model in known}
    return close | {model: BEST for model, mean in known.items() if mean == known[best]}


def _find_close(results: Results, metric: str, best: str) -> Iterator[str]:
    for pair in results.get("comparisons", []):
        names = [pair["a"], pair["b"]]
        if pair["metric"] == metric and best in names and pair["p_value"] >= SIGNIFICANCE_LEVEL:
            yield from (name for name in names if name != best)


def _sort_key(model: Mapping[str, Any], metric: str) -> float:
    mean = model["metrics"].get(metric, {}).get("mean")
    return float("-inf") if mean is None else float(mean)


def _make_notes(results: Results, metrics: Sequence[str]) -> list[str]:
    absent: dict[str, list[str]] = {}
    for name, reason in results.get("refused", {}).items():
        absent.setdefault(reason, []).append(name)
    refusals = [f"Not in the table: {', '.join(names)}: {reason}." for reason, names in absent.items()]
    blended = [
        f"{name}: {_describe_parts(model['params'])}; the seconds of those that are in the table are not counted again."
        for name, model in results["models"].items()
        if "models" in model["params"]
    ]
    return [
        f"{LEGEND}.",
        *_note_untested(results, metrics),
        *_note_context(results),
        *_note_seeds(results),
        *blended,
        *refusals,
    ]


def _describe_parts(params: Mapping[str, Any]) -> str:
    """List the parts of a blend that have a weight, with it, the heaviest first; all where the weights are unknown."""
    names = [part["class"] for part in params["models"]]
    if params["weights"] is None:  # in results that `recvae evaluate` wrote before it told what was used
        return ", ".join(names)
    weighed = sorted(zip(params["weights"], names, strict=True), key=lambda part: -part[0])
    return ", ".join(f"{weight:.2f} {name}" for weight, name in weighed if weight)


def _note_seeds(results: Results) -> list[str]:
    """Note how much the seeds of a model differ."""
    lines = []
    for name, model in results["models"].items():
        if by_seed := model.get("by_seed"):
            metric, means = list(by_seed.items())[-1]
            lines.append(
                f"{name}: mean of {len(means)} seeds; {metric} of each: {', '.join(map(_format_figure, means))}."
            )
    return lines


def _note_untested(results: Results, metrics: Sequence[str]) -> list[str]:
    """Note the metrics without marks of significance, because no pair of models was tested on them."""
    tested = {pair["metric"] for pair in results.get("comparisons", [])}
    untested = [metric for metric in metrics if parse_metric(metric)[0] in ACCURACY_METRICS and metric not in tested]
    return [f"No paired tests of {', '.join(untested)}."] if untested and len(results["models"]) > 1 else []


def _note_context(results: Results) -> list[str]:
    """Note the protocol and the number of users."""
    notes = [f"Protocol: {_format_protocol(results.get('protocol'))}."]
    if "n_users" in results:
        notes.append(
            f"{results['n_users']:,} test users; {results.get('n_without_held_out', 0):,} more without "
            "held-out items, not scored."
        )
    return notes


def _format_protocol(protocol: Any) -> str:
    if not isinstance(protocol, Mapping):
        return str(protocol)
    return join_settings({**protocol, **protocol.get("filters", {}), "filters": None})


def join_settings(settings: Mapping[str, Any], write: Callable[[Any], str] = str) -> str:
    """Write names and values in a line, those of a nested mapping in brackets; what is None is left out."""
    return ", ".join(
        f"{name} ({join_settings(value, write)})" if isinstance(value, Mapping) else f"{name} {write(value)}"
        for name, value in settings.items()
        if value is not None
    )


def _format_figure(value: float | None) -> str:
    """Format a figure with four decimals, without a leading zero, as papers print it."""
    if value is None:
        return ABSENT
    text = f"{value:.4f}"
    return text.removeprefix("0") if text.startswith("0.") else text


def _format_amount(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _escape_markdown(text: str) -> str:
    for character in "\\|*_<":
        text = text.replace(character, f"\\{character}")
    return text
