"""sweep.html: one self-contained page about a sweep, made from sweep.json alone."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recvae.evaluation.figures import COLOURS, import_matplotlib, render_svg
from recvae.evaluation.report import render_json, render_page, render_section
from recvae.storage.files import write_text

TITLES = {
    "kl": "KL, nats a user",
    "nll": "reconstruction loss",
    "anomaly_auc": "anomaly AUC",
    "active_units": "active latent dimensions",
    "seconds": "seconds to fit",
    "best_epoch": "best epoch",
}
WIDE = 10
"""Ratio of the largest to the smallest value from which the axis is logarithmic."""


@dataclass(frozen=True)
class Row:
    """One value of a sweep: means over its seeds, and its lines of warning."""

    value: float
    means: Mapping[str, float]
    warnings: tuple[str, ...]


def summarise(sweep: Mapping[str, Any]) -> list[Row]:
    """Average the seeds of each value, in increasing order; values of which every training diverged are left out."""
    finished = [point for point in sweep["points"] if "diverged" not in point]
    rows = []
    for value in sorted({point["value"] for point in finished}):
        points = [point for point in finished if point["value"] == value]
        names = [name for name in (sweep["metric"], "stderr", *TITLES) if points[0].get(name) is not None]
        means = {name: sum(point[name] for point in points) / len(points) for name in names}
        lines = dict.fromkeys(line for point in points for line in point.get("warnings", ()))
        rows.append(Row(value, means, tuple(lines)))
    return rows


def write_sweep_page(path: Path, sweep: Mapping[str, Any]) -> None:
    """Write sweep.html in one step: whole, or not at all.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    DataError
        If the file cannot be written.
    """
    write_text(path, render_sweep(sweep))


def render_sweep(sweep: Mapping[str, Any]) -> str:
    """Render the page: curves, table, and how they were made. The page makes no request."""
    rows, sections = summarise(sweep), []
    figure = render_curves(sweep)
    if figure:
        note = (
            "Lines are means over the seeds, points the seeds. The dotted line is the value with the best validation "
            "metric. KL and reconstruction are those of the best epoch, with the noise of training. Anomaly AUC: how "
            "well anomaly scores tell histories drawn by popularity from those of validation users, .5 is a coin's."
        )
        sections.append(render_section("Curves", note, f"<figure>{figure}</figure>"))
        note = "Means over the seeds; ± is the standard error over validation users. Test users had no part in this."
        sections.append(render_section("Figures", note, _render_table(sweep, rows)))
    lines = [(row.value, line) for row in rows for line in row.warnings]
    lines += [(point["value"], point["diverged"]) for point in sweep["points"] if "diverged" in point]
    if lines:
        body = "".join(f"<p><b>{value:g}</b>: {html.escape(line)}.</p>" for value, line in lines)
        sections.append(render_section("Remarks", "", body))
    made = {key: sweep[key] for key in ("fixed", "protocol", "versions")}
    note = "Hyperparameters that were set, protocol, and versions; other hyperparameters are the model's defaults."
    sections.append(render_section("How this was made", note, render_json(made)))
    return render_page(f"recvae: {sweep['knob']} of {sweep['model']} on {sweep['dataset']}", sections)


def render_curves(sweep: Mapping[str, Any]) -> str | None:
    """Plot everything that was measured against the values, as SVG; None if every training diverged."""
    figure_class, rows = import_matplotlib(), summarise(sweep)
    if not rows:
        return None
    metric = sweep["metric"]
    panels = {metric: f"validation {metric}", **TITLES}
    shown = [name for name in panels if all(name in row.means for row in rows)]
    best = max(rows, key=lambda row: row.means[metric]).value
    logarithmic = rows[0].value > 0 and rows[-1].value >= WIDE * rows[0].value
    height = -(-len(shown) // 3)
    figure = figure_class(figsize=(9, 2.6 * height))
    grid = figure.subplots(height, 3, squeeze=False).ravel()
    for axes, name in zip(grid, shown, strict=False):
        points = [(point["value"], point[name]) for point in sweep["points"] if point.get(name) is not None]
        axes.axvline(best, color="#222222", lw=0.8, ls=":")
        axes.plot(*zip(*points, strict=True), color=COLOURS[0], marker="o", ms=3.5, ls="", alpha=0.6)
        axes.plot([row.value for row in rows], [row.means[name] for row in rows], color=COLOURS[0], lw=1.4)
        if logarithmic:
            axes.set_xscale("log")
        if name in ("active_units", "seconds", "best_epoch"):
            axes.set_ylim(bottom=0)
        axes.set_title(panels[name])
        axes.set_xlabel(sweep["knob"])
        axes.ticklabel_format(axis="y", useOffset=False)
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    return render_svg(figure)


def _render_table(sweep: Mapping[str, Any], rows: list[Row]) -> str:
    metric = sweep["metric"]
    names = [name for name in TITLES if all(name in row.means for row in rows)]
    best = max(rows, key=lambda row: row.means[metric])
    heads = (sweep["knob"], metric, *(name.replace("_", " ") for name in names))
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = ""
    for row in rows:
        error = f" ± {row.means['stderr']:.4f}" if "stderr" in row.means else ""
        figure = f"{row.means[metric]:.4f}{error}"
        cells = [f"{row.value:g}", f"<b>{figure}</b>" if row is best else figure]
        cells += [f"{row.means[name]:.4g}" for name in names]
        body += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
