"""The regret table as Markdown: a table of regrets over all sets, and one of the figures for each set."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LARGEST_REGRET = 0.02
Row = Mapping[str, Any]

LEGEND = """\
Regret: (best - default) / best in percent, ± the standard error of the paired difference over users; below zero the
default is better than everything that the search found. "Default" leaves every choice to `fit`; "best" is the best
trial on validation. Settings were drawn from each class's `SPACE`, two thirds at random and the others around the best
so far. The number of trials differs where a model is slow: the time was shared among all cells.
"""


def tabulate(content: Mapping[str, Any]) -> str:
    """Make the page from the content of regret.json."""
    rows: Sequence[Row] = content["rows"]
    sets = list(dict.fromkeys(row["data"] for row in rows))
    commands = ", ".join(f"`{command}`" for command in dict.fromkeys(row["command"] for row in rows))
    parts = [f"# Regret of the defaults\n\nMade by {commands}. Metric: {content['metric']}.\n"]
    parts += [
        f"\n## Regret on {side} users, percent\n\n{_overview(rows, sets, side)}" for side in ("test", "validation")
    ]
    parts += ["\n" + LEGEND, "\n" + "\n".join(_findings(rows)) + "\n"]
    parts += [f"\n## {data}\n\n{_details([row for row in rows if row['data'] == data])}" for data in sets]
    return "".join(parts)


def _table(lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def _overview(rows: Sequence[Row], sets: Sequence[str], side: str) -> str:
    by_cell = {(row["data"], row["model"]): row.get(f"regret_{side}") for row in rows}
    models = list(dict.fromkeys(row["model"] for row in rows))
    shown = [model for model in models if any(by_cell.get((data, model)) for data in sets)]
    return _table([["model", *sets], *[[m, *[_percent(by_cell.get((data, m))) for data in sets]] for m in shown]])


def _percent(regret: Mapping[str, float] | None) -> str:
    return "" if regret is None else f"{100 * regret['share']:.1f} ±{100 * regret['stderr']:.1f}"


def _details(rows: Sequence[Row]) -> str:
    heading = ["model", "default, validation", "best, validation", "default, test", "best, test"]
    lines = [[*heading, "trials", "fit s", "all s"]]
    for row in sorted(rows, key=lambda row: -row.get("default", {}).get("test", 0.0)):
        default, best = row.get("default", {}), row.get("best", {})
        if default:
            figures = [figure(side.get(key)) for key in ("validation", "test") for side in (default, best)]
            costs = [str(row["trials"]), f"{default['fit_seconds']:.1f}", f"{row['seconds']:.0f}"]
            lines.append([row["model"], *figures, *costs])
    failed = "".join(f"\n{row['model']}: {row['failed']}.\n" for row in rows if row["failed"])
    return _table(lines) + failed


def figure(value: float | None) -> str:
    """Write a figure with four digits, as .4711; nothing where there is none."""
    return "" if value is None else f"{value:.4f}".removeprefix("0")


def _findings(rows: Sequence[Row]) -> Iterator[str]:
    """Say in sentences which cells have more regret than allowed, and which defaults are below popularity."""
    measured = [row for row in rows if "regret_test" in row]
    large = [row for row in measured if row["regret_test"]["share"] > LARGEST_REGRET]
    certain = [row for row in large if row["regret_test"]["share"] - LARGEST_REGRET > 2 * row["regret_test"]["stderr"]]
    yield (
        f"{len(measured) - len(large)} of {len(measured)} cells have a regret of at most {LARGEST_REGRET:.0%} on test "
        f"users; of the {len(large)} others {len(certain)} are above it by more than two standard errors"
        f"{_list(certain)}."
    )
    popular = {row["data"]: row["default"]["test"] for row in rows if row["model"] == "popularity" and "default" in row}
    below = [row for row in rows if "default" in row and row["default"]["test"] < popular.get(row["data"], 0.0)]
    yield f"Defaults below popularity on test users: {len(below)}{_list(below)}."


def _list(rows: Sequence[Row]) -> str:
    names = ", ".join(f"{row['model']} on {row['data']}" for row in rows)
    return f" ({names})" if names else ""
