"""Tables and plot of training speed, made from training.json.

python -m benchmarks.speed_report [benchmarks/results]
"""

import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import record
from recvae.storage.files import write_text

Results = Mapping[str, Any]

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#b5a900")
OURS, DENSE = "recvae Mult-VAE", "dense PyTorch Mult-VAE"


def write(directory: Path) -> None:
    """Write `training.md` and `training.svg` beside `training.json`."""
    results = record.read(directory / "training.json")
    write_text(directory / "training.md", format_markdown(results))
    if (figure := plot(results)) is not None:
        write_text(directory / "training.svg", render_svg(figure))


def format_markdown(results: Results) -> str:
    """Format every measured part as tables, each with the origin of its figures."""
    sections = ["# Training speed"]
    for name, section in SECTIONS.items():
        if name in results["parts"]:
            part = results["parts"][name]
            sections += [section(part["figures"]), describe_source(part)]
    if any(part in results["parts"] for part in ("quality", "growth")):
        sections.append("![NDCG@100 against seconds of training; a step by the size of the catalogue](training.svg)")
    return "\n\n".join(sections) + "\n"


def steps_section(figures: Results) -> str:
    """Make the table of steps for all shapes."""
    rows: list[list[str]] = []
    for shape, measured in figures.items():
        bound = measured["floor"]
        rows.append([f"**{shape}**: {measured['n_items']:,} items", "", "", "", "", ""])
        rows.append(["floor", format_milliseconds(bound["step_seconds"]), "1.00", "", "", ""])
        for name, one in list_finished(measured["contestants"]):
            to_floor = f"{ratio(one['step_seconds'], bound['step_seconds']):.2f}" if "RecVAE" not in name else ""
            to_ours = dense_ratio(measured["contestants"]) if name == DENSE else ""
            rows.append([name, format_milliseconds(one["step_seconds"]), to_floor, to_ours, *format_cost(one)])
    note = (
        "Batches of 500 users, 600-200-600 (RecVAE: its own layers). Median and range. Floor: the output layer's three "
        "matrix products in float32 by the faster of MKL and oneDNN, and 28 bytes a parameter, at the rates measured "
        "between the runs. An epoch is a step times the steps over all users."
    )
    heading = ["", "step, ms", "/ floor", "/ recvae", "epoch, s", "peak MB"]
    return f"## A step\n\n{format_table(heading, rows)}\n\n{note}"


def peers_section(figures: Results) -> str:
    """Make the table of epochs, fastest first."""
    by_speed = sorted(list_finished(figures["contestants"]), key=lambda item: item[1]["epoch_seconds"])
    rows = []
    for name, one in by_speed:
        ours = figures["contestants"].get("recvae RecVAE" if "RecVAE" in name else OURS)
        times = f"{one['epoch_seconds'] / ours['epoch_seconds']:.2f}" if ours else ""
        rows.append([name, format_milliseconds(one["step_seconds"]), format_cost(one)[0], times, format_cost(one)[1]])
    absent = [name for name, one in figures["contestants"].items() if not one]
    note = f"{figures['n_users']:,} users, {figures['n_items']:,} items, equal layers, batches of 500."
    missing = f" Did not finish: {', '.join(absent)}." if absent else ""
    heading = ["", "step, ms", "epoch, s", "/ recvae", "peak MB"]
    return f"## Other libraries, ML-1M\n\n{format_table(heading, rows)}\n\n{note}{missing}"


def quality_section(figures: Results) -> str:
    """Make the table of the best epochs by validation, and of the time to the level of the best other RecVAE."""
    curves = figures["contestants"]
    level = curves.get("RecPack RecVAE")
    target = find_best(level["points"])["validation"] if level else None
    rows = []
    for name, one in sorted(curves.items(), key=lambda item: -find_best(item[1]["points"])["test"]):
        top = find_best(one["points"])
        reached = [point["seconds"] for point in one["points"] if target and point["validation"] >= target]
        when = f"{reached[0]:.1f}" if reached else "-"
        rows.append([name, f"{top['test']:.4f}", f"{top['epoch']}", f"{top['seconds']:.1f}", when])
    heading = ["", "ndcg@100", "epoch", "seconds", "seconds to RecPack RecVAE's"]
    note = (
        "ML-1M's test users, at the best epoch by validation users; seconds of training until then, and until "
        "validation NDCG@100 first was that of RecPack's RecVAE at its best."
    )
    return f"## Time to quality\n\n{format_table(heading, rows)}\n\n{note}"


def growth_section(figures: Results) -> str:
    """Make the table of steps and memory, a row for each size."""
    rows = [
        [f"{one['n_items']:,}", name, format_milliseconds(one["step_seconds"]), format_cost(one)[1]]
        for name, sizes in figures["contestants"].items()
        for one in sizes
    ]
    note = f"Mult-VAE, hidden layers of {figures['hidden']}, batches of 500 made-up histories."
    return f"## Growth\n\n{format_table(['items', '', 'step, ms', 'peak MB'], rows)}\n\n{note}"


def sampling_section(figures: Results) -> str:
    """Make the table of validation NDCG and cost, with and without sampling."""
    rows: list[list[str]] = []
    for name, measured in figures.items():
        rows.append([f"**{name}**: {measured['n_items']:,} items, {measured['epochs']} epochs", "", "", ""])
        rows += [[label, f"{one['ndcg@100']:.4f}", *format_cost(one)] for label, one in measured["contestants"].items()]
    note = "NDCG@100 of validation users after the last epoch; 600-200-600, batches of 500; one seed."
    return f"## Sampled softmax\n\n{format_table(['negatives', 'ndcg@100', 'epoch, s', 'peak MB'], rows)}\n\n{note}"


SECTIONS: Mapping[str, Callable[[Results], str]] = {
    "steps": steps_section,
    "peers": peers_section,
    "quality": quality_section,
    "growth": growth_section,
    "sampling": sampling_section,
}


def plot(results: Results) -> Any:
    """Plot NDCG against time, and growth; None if neither was measured."""
    from matplotlib.figure import Figure

    rows = {"quality": ["quality", "quality"], "growth": ["step", "memory"]}
    parts = [part for part in rows if part in results["parts"]]
    if not parts:
        return None
    figure = Figure(figsize=(9, 4.2 * len(parts)), layout="constrained")
    mosaic: Any = [rows[part] for part in parts]
    axes = figure.subplot_mosaic(mosaic)
    if "quality" in parts:
        quality_axes(axes["quality"], results["parts"]["quality"]["figures"]["contestants"])
    if "growth" in parts:
        growth_axes(axes["step"], axes["memory"], results["parts"]["growth"]["figures"]["contestants"])
    for one in axes.values():
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
    return figure


def quality_axes(axes: Any, curves: Results) -> None:
    """Plot NDCG@100 on test users against seconds of training, our models in full lines."""
    for number, (name, one) in enumerate(curves.items()):
        points = one["points"]
        style = {"color": COLOURS[number % len(COLOURS)], "ls": "-" if name.startswith("recvae") else "--"}
        style["marker"] = "os^D"[number // len(COLOURS)]
        axes.plot([p["seconds"] for p in points], [p["test"] for p in points], label=name, ms=3, lw=1.4, **style)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("ndcg@100, ML-1M test users")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)


def growth_axes(steps: Any, memory: Any, contestants: Results) -> None:
    """Plot step time and peak memory against the number of items."""
    for (name, sizes), colour, marker in zip(contestants.items(), COLOURS, "os^D", strict=False):
        items = [one["n_items"] for one in sizes]
        style = {"label": name, "color": colour, "marker": marker, "ms": 4}
        steps.plot(items, [1e3 * one["step_seconds"]["median"] for one in sizes], **style)
        memory.plot(items, [one["peak_rss_mb"] / 1e3 for one in sizes], **style)
    for axes, label in ((steps, "step, ms"), (memory, "peak memory, GB")):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("items")
        axes.set_ylabel(label)
        axes.legend(frameon=False, fontsize=8)


def find_best(points: Iterable[Mapping[str, float]]) -> Mapping[str, float]:
    """Find the checkpoint with the best validation metric."""
    return max(points, key=lambda point: point["validation"])


def list_finished(contestants: Results) -> list[tuple[str, Any]]:
    """List the contestants that finished."""
    return [(name, one) for name, one in contestants.items() if one]


def ratio(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Divide two medians."""
    return a["median"] / b["median"]


def dense_ratio(contestants: Results) -> str:
    """Format how many times as long the dense reference takes."""
    ours = contestants.get(OURS)
    return f"{ratio(contestants[DENSE]['step_seconds'], ours['step_seconds']):.2f}" if ours else ""


def format_cost(one: Results) -> list[str]:
    """Format seconds of an epoch, and memory."""
    return [f"{one['epoch_seconds']:.2f}", f"{one['peak_rss_mb']:,.0f}"]


def format_milliseconds(spread: Mapping[str, float]) -> str:
    """Format median and range in milliseconds."""
    return f"{1e3 * spread['median']:.0f} ({1e3 * spread['min']:.0f} to {1e3 * spread['max']:.0f})"


def describe_source(part: Results) -> str:
    """Describe command, machine and versions."""
    machine = part["machine"]
    found = ", ".join(f"{name} {number}" for name, number in part["versions"].items())
    return (
        f"`{part['command']}`, seed {part['seed']}, on {machine['cpu']}, {machine['cores']} cores "
        f"({machine['threads']} threads), {machine['memory_gb']} GB; {found}."
    )


def format_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table as GitHub Markdown, the first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, rule, *rows))


def render_svg(figure: Any) -> str:
    """Render a figure as SVG; the same figure gives the same text."""
    import matplotlib as mpl

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "recvae"}
    with mpl.rc_context(style):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "results"))
