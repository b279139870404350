import copy
import io
import json
import re
from typing import Any

import pytest
from rich.console import Console

from recvae.errors import ParameterError
from recvae.evaluation.tables import console_table, markdown_table

METRICS = ("recall@20", "recall@50", "ndcg@100")


def model(*means: float, stderr: float | None = 0.0071) -> dict[str, Any]:
    figures = {
        metric: {"mean": mean, "stderr": stderr, "n_users": 600} for metric, mean in zip(METRICS, means, strict=True)
    }
    costs = {"fit_seconds": 12.34, "score_seconds": 0.5, "peak_rss_mb": 1234.5, "params": {}}
    return {"metrics": {**figures, "gini@20": {"mean": 0.9, "stderr": None, "n_users": 600}}, **costs}


def pair(a: str, b: str, metric: str, p_value: float) -> dict[str, Any]:
    test = {"difference": 0.01, "ci95": [0, 0.02], "p_value": p_value, "p_value_uncorrected": p_value / 3}
    return {"a": a, "b": b, "metric": metric, **test}


@pytest.fixture
def results() -> dict[str, Any]:
    """EASE is best by ndcg@100; ALS is close to it, and best by recall@20."""
    return {
        "format_version": 1,
        "dataset": "ml-1m",
        "protocol": {"split": "strong", "seed": 98765},
        "seed": 0,
        "versions": {},
        "n_users": 600,
        "n_without_held_out": 3,
        "models": {
            "popularity": model(0.184, 0.222, 0.224),
            "als": model(0.39, 0.48, 0.466),
            "ease": model(0.388, 0.489, 0.4674),
        },
        "comparisons": [
            *(pair("als", "ease", metric, 0.05) for metric in METRICS),
            *(pair("popularity", other, metric, 0.0499) for metric in METRICS for other in ("als", "ease")),
        ],
        "refused": {"bpr": "cannot fold in new users"},
    }


def printed(results: dict[str, Any], width: int = 80, **options: Any) -> str:
    screen = io.StringIO()
    Console(file=screen, width=width, color_system=None).print(console_table(results, **options))
    return screen.getvalue()


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if re.match(rf"(\| )?{re.escape(name)}\b", line))


def test_the_table_marks_the_best_and_those_close_to_it(results: dict[str, Any]) -> None:
    text = printed(results)
    assert re.search(r"\.3880 ±\.0071≈ +\.4890 ±\.0071\* +\.4674 ±\.0071\*", row(text, "ease"))
    assert re.search(r"\.3900 ±\.0071\* +\.4800 ±\.0071≈ +\.4660 ±\.0071≈", row(text, "als"))
    assert re.search(r"\.1840 ±\.0071 +\.2220 ±\.0071 +\.2240 ±\.0071 ", row(text, "popularity"))
    assert "12.3" in row(text, "ease")
    assert "1,234" in row(text, "ease")


def test_the_table_is_sorted_by_the_last_metric(results: dict[str, Any]) -> None:
    text = printed(results)
    assert sorted(("popularity", "als", "ease"), key=lambda name: text.index(row(text, name))) == [
        "ease",
        "als",
        "popularity",
    ]
    text = printed(results, metrics=("ndcg@100", "recall@20"))
    assert text.index(row(text, "als")) < text.index(row(text, "ease"))


def test_the_best_stands_out_in_bold(results: dict[str, Any]) -> None:
    screen = io.StringIO()
    Console(file=screen, width=80, force_terminal=True, color_system="truecolor").print(console_table(results))
    assert "\x1b[1m.4674 ±.0071*\x1b[0m" in screen.getvalue()


def test_the_table_says_how_it_was_measured(results: dict[str, Any]) -> None:
    text = " ".join(printed(results).split())
    assert "ml-1m" in text
    assert "* best" in text
    assert "≈ not significantly different from the best" in text
    assert "Protocol: split strong, seed 98765." in text
    results["protocol"]["filters"] = {"min_rating": None, "weights": {"column": True, "repeats": "sum"}}
    text = " ".join(printed(results).split())
    assert "Protocol: split strong, seed 98765, weights (column True, repeats sum)." in text
    assert "600 test users; 3 more without held-out items, not scored." in text
    assert "Not in the table: bpr: cannot fold in new users." in text


def test_the_table_fits_into_80_columns(results: dict[str, Any]) -> None:
    results["models"]["als-256-factors"] = {**model(0.3, 0.4, 0.4), "fit_seconds": 12345.6, "score_seconds": 4321}
    results["models"]["als-256-factors"]["peak_rss_mb"] = 65432.1
    lines = printed(results).splitlines()
    assert max(map(len, lines)) <= 80
    assert re.search(
        r"\.3000 ±\.0071 +\.4000 ±\.0071 +\.4000 ±\.0071 +12,346 +4,321 +65,432",
        row("\n".join(lines), "als-256-factors"),
    )
    assert "…" not in "\n".join(lines)


def test_figures_stand_below_each_other_whatever_their_marks(results: dict[str, Any]) -> None:
    text = printed(results)
    starts = [[match.start() for match in re.finditer("±", row(text, name))] for name in results["models"]]
    assert starts[0] == starts[1] == starts[2]


def test_names_are_text_and_not_markup(results: dict[str, Any]) -> None:
    results["models"]["[bold]ease|2"] = results["models"].pop("ease")
    assert "[bold]ease|2" in printed(results)
    assert r"| [bold]ease\|2 |" in markdown_table(results)


def test_equal_figures_are_both_best(results: dict[str, Any]) -> None:
    results["models"]["als"] = copy.deepcopy(results["models"]["ease"])
    text = printed(results)
    assert row(text, "als").count("*") == row(text, "ease").count("*") == 3


def test_beyond_accuracy_has_no_best(results: dict[str, Any]) -> None:
    text = printed(results, metrics=("gini@20",))
    assert re.search(r"ease +\.9000 ", row(text, "ease"))
    assert "*" not in row(text, "ease")


def test_figures_that_are_absent(results: dict[str, Any]) -> None:
    del results["models"]["als"]["metrics"]["ndcg@100"]
    results["models"]["als"]["peak_rss_mb"] = None
    results["models"]["ease"]["metrics"]["recall@20"] = {"mean": 1.0, "stderr": None, "n_users": 1}
    text = printed(results)
    assert row(text, "als").split()[-4] == "-"
    assert row(text, "als").split()[-1] == "-"
    assert "1.0000*" in row(text, "ease")
    assert text.index(row(text, "popularity")) < text.index(row(text, "als"))


def test_a_metric_that_no_model_has(results: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="metric is 'map@10', which no model"):
        console_table(results, metrics=["map@10"])
    with pytest.raises(ParameterError, match="metric is 'auc@10'; expected one of"):
        markdown_table(results, metrics=["auc@10"])


def test_a_comparison_in_which_every_model_was_refused(results: dict[str, Any]) -> None:
    results["models"], results["comparisons"] = {}, []
    assert "bpr: cannot fold in new users" in " ".join(printed(results).split())


def test_markdown_table(results: dict[str, Any]) -> None:
    lines = markdown_table(results).splitlines()
    assert lines[0] == "| model | recall@20 | recall@50 | ndcg@100 | fit s | score s | peak MB |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[2] == (r"| ease | .3880 ±.0071≈ | **.4890 ±.0071**\* | **.4674 ±.0071**\* | 12.3 | 0.5 | 1,234 |")
    assert [line.split()[1] for line in lines[2:5]] == ["ease", "als", "popularity"]
    assert r"± standard error over users; \* best; ≈ not significantly different" in lines[6]
    assert lines[-1] == "Not in the table: bpr: cannot fold in new users."


def test_results_are_read_and_not_changed(results: dict[str, Any]) -> None:
    before = json.dumps(results)
    printed(results)
    markdown_table(results)
    assert json.dumps(results) == before


def test_the_notes_say_how_far_seeds_lie_apart(results: dict[str, Any]) -> None:
    results["models"]["als"]["by_seed"] = {"recall@20": [0.38, 0.39], "ndcg@100": [0.4641, 0.4679]}
    text = printed(results, width=120)
    assert "als: mean of 2 seeds; ndcg@100 of each: .4641, .4679." in text
    assert text.count("seeds") == 1


def test_metrics_without_paired_tests_are_named(results: dict[str, Any]) -> None:
    assert "No paired tests" not in printed(results)
    results["comparisons"] = [pair for pair in results["comparisons"] if pair["metric"] == "ndcg@100"]
    assert "No paired tests of recall@20, recall@50." in " ".join(printed(results).split())
    assert "No paired tests of recall@20, recall@50." in markdown_table(results)
    results["models"] = {"ease": results["models"]["ease"]}
    assert "No paired tests" not in printed(results)


def test_the_notes_list_the_parts_of_a_blend_that_have_a_weight(results: dict[str, Any]) -> None:
    parts: list[dict[str, Any]] = [{"class": name, "hyperparameters": {}} for name in ("ALS", "EASE", "MultVAE")]
    results["models"]["blend"] = model(0.4, 0.5, 0.48) | {"params": {"models": parts, "weights": [0.25, 0.0, 0.75]}}
    text = " ".join(printed(results).split())
    assert "blend: 0.75 MultVAE, 0.25 ALS; the seconds" in text
    results["models"]["blend"]["params"]["weights"] = None
    assert "blend: ALS, EASE, MultVAE; the seconds" in markdown_table(results)
