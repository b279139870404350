"""Plots of the report, drawn from results.json as SVG text."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from recvae.errors import MissingDependencyError
from recvae.evaluation.evaluate import PRIMARY_METRICS
from recvae.evaluation.metrics import parse_metric
from recvae.evaluation.results import Results

# Okabe and Ito's colours, distinguishable with any kind of colour vision; models beyond them repeat the colours with
# another line style.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#b5a900")
LINES = ("-", "--", ":")
MARKERS = "osD^vP*X<>p"
TITLES = {"loss": "loss", "kl": "KL", "beta": "β", "learning_rate": "learning rate"}
Z95 = 1.96


class Figures:
    """Plots of one comparison; a model has the same colour, line and marker in every plot.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """

    def __init__(self, results: Results, metrics: Sequence[str] = PRIMARY_METRICS) -> None:
        metric = metrics[-1]
        self._figure_class = import_matplotlib()
        by_quality = sorted(results["models"].items(), key=lambda item: -(item[1]["metrics"][metric]["mean"] or 0))
        self.models: dict[str, dict[str, Any]] = dict(by_quality)
        self.comparisons: Sequence[Mapping[str, Any]] = results["comparisons"]
        self.metric, self.metrics = metric, metrics
        self.styles = {
            name: {
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": LINES[number // len(COLOURS) % len(LINES)],
                "marker": MARKERS[number % len(MARKERS)],
            }
            for number, name in enumerate(self.models)
        }

    def metric_bars(self) -> str:
        """Plot each metric with its 95% interval, models sorted by the last one."""
        shown = [metric for metric in self.metrics if all(metric in m["metrics"] for m in self.models.values())]
        names = sorted(self.models, key=lambda name: self._mean(name, self.metric))
        figure = self._figure_class(figsize=(9, 0.9 + 0.32 * len(names)))
        for axes, metric in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
            means = [self._mean(name, metric) for name in names]
            errors = [Z95 * (self.models[name]["metrics"][metric]["stderr"] or 0) for name in names]
            colours = [self.styles[name]["color"] for name in names]
            axes.barh(names, means, xerr=errors, color=colours, height=0.7, error_kw={"lw": 1, "ecolor": "#222222"})
            axes.set_xlabel(metric)
        return render_svg(figure)

    def training_curves(self) -> str | None:
        """Plot loss, KL, β, learning rate and validation metric by epoch; None if no model was trained in epochs."""
        trained = {name: model["history"] for name, model in self.models.items() if model.get("history")}
        if not trained:
            return None
        validation = {key for history in trained.values() for key in history[-1] if "@" in key}
        panels = [k for k in TITLES if any(k in epoch for h in trained.values() for epoch in h)] + sorted(validation)
        figure = self._figure_class(figsize=(9, 2.4 * -(-len(panels) // 3)))
        grid = figure.subplots(-(-len(panels) // 3), 3, squeeze=False).ravel()
        for axes, key in zip(grid, panels, strict=False):
            for name, history in trained.items():
                points = [(epoch["epoch"], epoch[key]) for epoch in history if epoch.get(key) is not None]
                if points:
                    style = {**self.styles[name], "marker": None}
                    axes.plot(*zip(*points, strict=True), label=name, lw=1.4, **style)
            axes.set_title(TITLES.get(key, f"validation {key}"))
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.ticklabel_format(axis="y", useOffset=False)
            if key == "beta":
                axes.set_ylim(bottom=0)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        labels = {label: handle for a in grid for handle, label in zip(*a.get_legend_handles_labels(), strict=True)}
        figure.legend(labels.values(), labels.keys(), loc="lower right")
        return render_svg(figure)

    def latent_use(self) -> str | None:
        """Plot the KL of each latent dimension, and reconstruction against KL by epoch; None without such a model."""
        used = {name: model for name, model in self.models.items() if model.get("latent_use")}
        if not used:
            return None
        figure = self._figure_class(figsize=(9, 3.4))
        by_dimension, path = figure.subplots(1, 2)
        for name, model in used.items():
            style = {**self.styles[name], "marker": None}
            kl, active = model["latent_use"]["kl"], model["latent_use"]["active_units"]
            label = f"{name}: {active} of {len(kl)} active"
            by_dimension.plot(range(1, len(kl) + 1), kl, label=label, lw=1.4, **style)
            terms = [(epoch["kl"], epoch["nll"]) for epoch in model["history"] if "kl" in epoch and "nll" in epoch]
            if terms:
                path.plot(*zip(*terms, strict=True), lw=1, **{**style, "marker": "."}, ms=4)
                path.plot(*terms[-1], **self.styles[name], ms=7)
        by_dimension.set_ylim(bottom=0)
        by_dimension.set_xlabel("latent dimension, by KL")
        by_dimension.set_ylabel("KL, nats")
        by_dimension.legend(frameon=False, fontsize=9)
        path.set_xlabel("KL, nats a user")
        path.set_ylabel("reconstruction loss")
        return render_svg(figure)

    def recall_curve(self) -> str:
        """Plot recall against the length of the list."""
        figure = self._figure_class(figsize=(9, 4))
        axes = figure.subplots()
        lengths = set[int]()
        for name, model in self.models.items():
            recalls = {m: f["mean"] for m, f in model["metrics"].items() if m.startswith("recall@")}
            points = sorted((parse_metric(metric)[1], mean) for metric, mean in recalls.items())
            lengths |= {k for k, _ in points}
            axes.plot(*zip(*points, strict=True), label=name, ms=4, lw=1.4, **self.styles[name])
        axes.set_xscale("log")
        axes.set_xticks(sorted(lengths), labels=[str(k) for k in sorted(lengths)])
        axes.minorticks_off()
        axes.set_xlabel("K")
        axes.set_ylabel("recall@K")
        _add_legend(axes)
        return render_svg(figure)

    def accuracy_against_bias(self) -> str | None:
        """Plot accuracy against the popularity of the listed items, and against the coverage of the catalogue."""
        beyond = [m for m in ("popularity@20", "coverage@20") if all(m in o["metrics"] for o in self.models.values())]
        if not beyond:
            return None
        figure = self._figure_class(figsize=(9, 3.4))
        for axes, metric in zip(figure.subplots(1, len(beyond), squeeze=False)[0], beyond, strict=True):
            for name in self.models:
                x, y = self._mean(name, metric), self._mean(name, self.metric)
                style = {k: v for k, v in self.styles[name].items() if k != "linestyle"}
                axes.scatter(x, y, s=45, label=name, **style)
            axes.set_xlabel(metric)
            axes.set_ylabel(self.metric)
        _add_legend(axes)
        return render_svg(figure)

    def by_history_length(self) -> str | None:
        """Plot accuracy for users with short and with long histories."""
        groups = {name: model.get("by_history_length", {}).get(self.metric) for name, model in self.models.items()}
        if not all(groups.values()):
            return None
        figure = self._figure_class(figsize=(9, 4))
        axes = figure.subplots()
        for number, (name, values) in enumerate(groups.items()):
            shift = 0.03 * (number - len(groups) / 2)
            at = [place + shift for place in range(len(values))]
            means, errors = ([group[key] or 0 for group in values] for key in ("mean", "stderr"))
            axes.errorbar(at, means, yerr=[Z95 * e for e in errors], label=name, ms=4, lw=1.2, **self.styles[name])
        axes.set_xticks(range(len(values)), labels=[f"{group['from']} to {group['to']}" for group in values])
        axes.set_xlabel("interactions in the user's history")
        axes.set_ylabel(self.metric)
        _add_legend(axes)
        return render_svg(figure)

    def paired_differences(self) -> str | None:
        """Plot each model's mean difference to the best model, over the same users, with its 95% interval."""
        best = max(self.models, key=lambda name: self._mean(name, self.metric))
        rows = []
        for test in self.comparisons:
            known = None not in test["ci95"]  # one user gives none
            if known and test["metric"] == self.metric and best in (test["a"], test["b"]):
                sign = 1 if test["b"] == best else -1
                low, high = sorted(sign * bound for bound in test["ci95"])
                rows.append((test["a"] if sign == 1 else test["b"], sign * test["difference"], low, high))
        if not rows:
            return None
        rows.sort(key=lambda row: row[1])
        figure = self._figure_class(figsize=(9, 0.9 + 0.3 * len(rows)))
        axes = figure.subplots()
        for place, (name, difference, low, high) in enumerate(rows):
            axes.plot([low, high], [place, place], color=self.styles[name]["color"], lw=2)
            axes.plot(difference, place, color=self.styles[name]["color"], marker="o", ms=5)
        axes.axvline(0, color="#222222", lw=0.8)
        axes.set_yticks(range(len(rows)), labels=[name for name, *_ in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlabel(f"{self.metric} minus that of {best}")
        return render_svg(figure)

    def _mean(self, name: str, metric: str) -> float:
        return float(self.models[name]["metrics"][metric]["mean"] or 0)


def import_matplotlib() -> Any:
    """Return matplotlib's class of figures."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("a report needs matplotlib; install recvae with the extra 'report'") from None
    return Figure


def _add_legend(axes: Any) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)


def render_svg(figure: Any) -> str:
    """Render a figure as an `<svg>` element that scales with the page; the same figure gives the same text."""
    import matplotlib as mpl

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "recvae",
        "font.family": "sans-serif",
    }
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    with mpl.rc_context(style):
        figure.tight_layout()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', text[text.index("<svg") :], count=1)
