"""report.html: one self-contained page about a comparison, made from results.json alone."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from recvae.evaluation.figures import Figures
from recvae.evaluation.maps import render_map
from recvae.evaluation.results import choose_shown_metrics
from recvae.evaluation.tables import html_table

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; }
body { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .3rem; }
p { margin: .3rem 0; } .note { color: #555; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
figure { margin: .5rem 0; overflow-x: auto; } figure svg { min-width: 30rem; max-width: 100%; height: auto; }
@media (max-width: 40rem) {
  table { font-size: .72rem; } th, td { padding: .2rem .3rem; } figure svg { min-width: 100%; }
}
details { margin: .4rem 0; } pre { overflow-x: auto; font-size: .85rem; background: #f6f6f6; padding: .6rem; }
"""

SECTIONS = (
    ("metric_bars", "Accuracy", "Bars are means over test users, lines their 95% intervals."),
    (
        "paired_differences",
        "Differences to the best",
        "Over the same users, with 95% intervals. The intervals are not corrected for the number of models; the marks "
        "in the table are.",
    ),
    ("recall_curve", "Recall by length of the list", "Recall@K is hits / min(K, held-out items)."),
    (
        "by_history_length",
        "Short and long histories",
        "Users in four groups of equal size by the length of the history that the model was given, with 95% intervals.",
    ),
    (
        "accuracy_against_bias",
        "Accuracy, popularity and coverage",
        "Left: mean share of users who have the listed items; lower means less popular items. Right: share of the "
        "catalogue in at least one list.",
    ),
    ("training_curves", "Training", "By epoch, for models that train in epochs."),
    (
        "latent_use",
        "Latent dimensions",
        "Of variational autoencoders. Left: KL of each dimension's posterior to N(0, 1) after training, the mean over "
        "training users; a dimension is active where the posterior means differ between users (variance above .01). "
        "Right: reconstruction loss and KL by epoch, with the noise of training; the large marker is the last epoch.",
    ),
)


MAPS = {
    "item_map": (
        "Map of items",
        "of the most popular items, by the rows of {model}'s output layer: neighbours are items that the model takes "
        "for alike. The title appears under the mouse",
    ),
    "user_map": (
        "Map of users",
        "of the training users, by {model}'s codes: neighbours are users who are alike to the model. Under the "
        "mouse: popular items that it expects of a user most, beyond their popularity; not the history",
    ),
}


def render_report(results: Mapping[str, Any]) -> str:
    """Render the page: the table, the plots, and how they were made. The page makes no request."""
    metrics = choose_shown_metrics(results)
    figures = Figures(results, metrics)
    search = results.get("search")
    sections = [_render_winner(search)] if search else []
    sections.append(f"<section>{html_table(results, metrics)}</section>")
    for name, title, note in SECTIONS:
        svg = getattr(figures, name)()
        if svg is not None:
            lines = _render_warnings(results) if name == "latent_use" else ""
            sections.append(render_section(title, note, f"<figure>{svg}</figure>{lines}"))
    sections += [_render_map(name, results[name]) for name in MAPS if name in results]
    if search:
        sections.append(_render_search(search))
    sections.append(_render_run(results))
    return render_page(f"recvae: {results['dataset']}", sections)


def render_page(title: str, sections: Sequence[str]) -> str:
    """Render a whole page around its sections."""
    title = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def _render_map(name: str, placed: Mapping[str, Any]) -> str:
    title, about = MAPS[name]
    note = (
        f"{len(placed['points'])} {about.format(model=placed['model'])}. Placed by {placed['method']}: directions and "
        "long distances mean nothing. Larger circles have more interactions."
    )
    return render_section(title, note, f"<figure>{render_map(placed, title)}</figure>")


def _render_winner(search: Mapping[str, Any]) -> str:
    """Render what a search found, and what the model was fitted on."""
    counts = search["fitted_on"]
    lines = [
        f"The best model is <b>{html.escape(search['winner'])}</b>, by {html.escape(search['metric'])} on validation "
        f"users. It was fitted again on everything: {counts['users']:,} users, {counts['items']:,} items, "
        f"{counts['interactions']:,} interactions. The figures below are those before that, on test users, who had no "
        "part in any choice.",
        html.escape(f"Data: {search['split']}."),
    ]
    best = max(search["candidates"], key=lambda candidate: candidate["value"])["model"]
    if search["winner"] == "blend" and best != "blend":
        lines.append(f"{html.escape(best)} has a higher figure on validation users, by no more than chance explains.")
    if search["interrupted"]:
        lines.append("The search was interrupted.")
    return "<section>" + "".join(f"<p>{line}</p>" for line in lines) + "</section>"


def _render_search(search: Mapping[str, Any]) -> str:
    """Render every candidate in the order in which they were tried, and what was left out."""
    best = max(search["candidates"], key=lambda candidate: candidate["value"])
    rows = "".join(
        f"<tr><td>{html.escape(candidate['model'])}</td><td>{_render_settings(candidate['varies'])}</td>"
        f"<td>{_render_value(candidate['value'], candidate is best)}</td>"
        f"<td>{candidate['seconds']:.1f}</td></tr>"
        for candidate in search["candidates"]
    )
    head = f"<tr><th>model</th><th>settings varied</th><th>{html.escape(search['metric'])}</th><th>fit s</th></tr>"
    left_out = "".join(
        f'<p class="note">{html.escape(name)} was left out: {html.escape(reason)}.</p>'
        for name, reason in search["left_out"].items()
    )
    note = (
        f"Every candidate on the validation users, in the order in which they were tried, in {search['seconds']:.0f} s "
        f"of a budget of {search['budget_seconds']:.0f} s. Models begin with their defaults."
    )
    return render_section("Search", note, f'<div class="wide"><table>{head}{rows}</table></div>{left_out}')


def _render_settings(varies: Mapping[str, Any]) -> str:
    return html.escape(", ".join(f"{name} {value:.4g}" for name, value in varies.items()))


def _render_value(value: float, best: bool) -> str:
    text = f"{value:.4f}".removeprefix("0")
    return f"<b>{text}</b>" if best else text


def _render_warnings(results: Mapping[str, Any]) -> str:
    """Render what is wrong with the KL weight of a model."""
    return "".join(
        f"<p><b>{html.escape(name)}</b>: {html.escape(line)}.</p>"
        for name, model in results["models"].items()
        for line in model.get("latent_use", {}).get("warnings", ())
    )


def render_section(title: str, note: str, body: str) -> str:
    """Render a section of a page; `body` is HTML."""
    return f'<section>\n<h2>{html.escape(title)}</h2>\n<p class="note">{html.escape(note)}</p>\n{body}\n</section>'


def _render_run(results: Mapping[str, Any]) -> str:
    """Render hyperparameters, versions and machine."""
    made = {key: results[key] for key in ("command", "seed", "protocol", "versions") if results.get(key) is not None}
    body = render_json(made)
    for name, model in results["models"].items():
        body += f"<details><summary>{html.escape(name)}</summary>{render_json(model['params'])}</details>"
    return render_section(
        "How this was made", "Seed, protocol, versions and machine; each model's hyperparameters.", body
    )


def render_json(content: Any) -> str:
    """Render plain values as they are written in a file."""
    return f"<pre>{html.escape(json.dumps(content, indent=1, ensure_ascii=False))}</pre>"
