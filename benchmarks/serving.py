"""Speed of the service beside empty FastAPI routes, with load from another process (wrk).

    python -m benchmarks.serving [--seconds 10] [--connections 32] [--items 20000] [--catalogues 20000 1000000]
    python -m benchmarks.serving --model MODEL [--seconds 10] [--connections 32]

Measures `POST /recommend` (history of 50, n = 10) for MultVAE and for implicit's ALS behind the same service, and two
routes that answer the same bytes without doing anything, one worker each, in the same run and in turns: "empty" takes
no notice of its request and returns a ready response, "declared" declares its request as a pydantic model and returns a
dictionary, as FastAPI's documentation does. Also the time to load, the resident memory of a worker; and catalogues that
grow, request by request, each scored whole and through the approximate index. Writes `serving.json` and `serving.svg`.
Models have random weights: speed depends on shapes alone, but for the index, whose items are drawn as clusters with a
spectrum that falls as trained ones do (see `clustered`). With `--model`, an artifact of a variational autoencoder is
served instead, and its requests are histories that it makes up: of its own catalogue, with the lengths, the popularity
and the tastes of the users that it was trained on; files are `serving_model.json` and `.svg`.
"""

import argparse
import contextlib
import json
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from benchmarks import record
from recvae.inference.ranker import Query, Ranker
from recvae.models import registry
from recvae.models.als import ALS
from recvae.models.autoencoders.multvae import MultVAE
from recvae.models.base import Recommender
from recvae.models.generative.sampling import HistorySampler
from tests.http_service import free_port, running, wait_until

HISTORY, N = 50, 10
ROUNDS = 3
SEED = 0
CLUSTERS = 2000
FACTORS = 256
PORTION = 20_000
CATALOGUES = (20_000, 50_000, 100_000, 200_000, 400_000, 1_000_000)

LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local bodies = {BODIES}
local next_body = 0
request = function()
  next_body = next_body % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[next_body])
end
done = function(summary, latency, requests)
  io.write(string.format("FIGURES %d %d %d %f %f %f\\n", summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""

ROUTES = {
    "empty": """
from fastapi import FastAPI
from starlette.responses import Response
app = FastAPI()
@app.post("/recommend")
async def empty() -> Response:
    return Response({answer!r}, media_type="application/json")
""",
    "declared": """
import json
from fastapi import FastAPI
from pydantic import BaseModel
app, answer = FastAPI(), json.loads({answer!r})
class Asked(BaseModel):
    history: list[int]
    n: int
@app.post("/recommend")
async def declared(asked: Asked):
    return answer
""",
}


def bodies(n_items: int, count: int = 200) -> list[dict[str, Any]]:
    """Requests of different users; popular items more often, as in life."""
    generator = np.random.default_rng(SEED)
    shares = np.arange(1.0, n_items + 1) ** -0.7
    shares /= shares.sum()
    rows = (generator.choice(n_items, HISTORY, replace=False, p=shares) for _ in range(count))
    return [{"history": [int(item) for item in row], "n": N} for row in rows]


def made_up_bodies(path: Path, count: int = 200) -> list[dict[str, Any]]:
    """Requests of users that a variational autoencoder makes up."""
    loaded = registry.load(path)
    if not isinstance(loaded.model, HistorySampler):
        sys.exit(
            f"{path} holds {type(loaded.model).__name__}; expected a variational autoencoder, to make up histories"
        )
    ids = loaded.items["item_id"].tolist()
    histories = loaded.model.sample(count, seed=SEED)
    rows = np.split(histories.indices, histories.indptr[1:-1])
    return [{"history": [ids[item] for item in row], "n": N} for row in rows]


def clustered(module: Any, generator: torch.Generator) -> None:
    """Give items clusters and both sides a spectrum that falls with the dimension, about as training does.

    On MovieLens-1M the singular values of a trained output layer fall to a tenth over 200 dimensions, and those of
    users faster.
    """
    weight, latent = module.output.weight.data, module.output.in_features
    spectrum = torch.arange(1, latent + 1) ** -0.45
    centres = torch.randn(CLUSTERS, latent, generator=generator)
    for start in range(0, len(weight), PORTION):
        rows = weight[start : start + PORTION]
        chosen = torch.randint(CLUSTERS, (len(rows),), generator=generator)
        noise = torch.randn(rows.shape, generator=generator)
        rows.copy_((centres[chosen] + 0.5 * noise) * spectrum / 20)
    module.encoder.code.weight.data[:latent] *= 10 * spectrum[:, None] ** 2


def unfitted(name: str, n_items: int) -> Recommender:
    """A model of this size that was never trained."""
    counts = (1e6 / np.arange(1, n_items + 1)).astype(np.float32)
    generator = torch.Generator().manual_seed(SEED)
    if name == "als":
        als = ALS(factors=FACTORS)
        als.factors_, als.alpha_, als.regularization_ = FACTORS, 5.0, 60.0
        items = (np.random.default_rng(SEED).standard_normal((n_items, FACTORS)) / 50).astype(np.float32)
        als.user_factors_, als.item_factors_, als.item_counts_ = items[:100], items, counts
        return als
    model = MultVAE(**{**MultVAE.PRESETS["recommended"], "epochs": 1, "batch_size": 1})
    model.item_counts_ = counts
    model.history_lengths_ = np.linspace(1, 200, 101).astype(np.float32)
    model.module_ = model._build(n_items, generator)
    clustered(model.module_, generator)
    return model


def saved(folder: Path, name: str, n_items: int) -> Path:
    """An artifact of such a model, with titles."""
    import pandas as pd

    titles = [f"A title of usual length {i} (1999)" for i in range(n_items)]
    path = folder / f"{name}-{n_items}"
    registry.save(unfitted(name, n_items), path, items=pd.DataFrame({"item_id": range(n_items), "title": titles}))
    return path


@contextlib.contextmanager
def empty_route(folder: Path, name: str, answer: bytes) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """One of `ROUTES`, on the same server with the same settings."""
    (folder / f"{name}_route.py").write_text(ROUTES[name].format(answer=answer))
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{name}_route:app", "--no-access-log", "--port", str(port)]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(address))
        yield address, process
    finally:
        process.terminate()
        process.wait()


def answers(address: str) -> bool:
    """Return whether the service answers."""
    try:
        return httpx.post(f"{address}/recommend", json={}).status_code > 0
    except httpx.TransportError:
        return False


def wrk(address: str, script: Path, connections: int, seconds: int) -> dict[str, float]:
    """Requests a second and latencies in ms."""
    program = shutil.which("wrk") or sys.exit("wrk, the load generator, is not installed")
    command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"{address}/recommend"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    requests, duration, errors, *latency = (float(x) for x in re.findall(r"FIGURES (.*)", output)[0].split())
    p50, p95, p99 = (round(value / 1000, 3) for value in latency)
    rate = round(requests / duration * 1e6, 1)
    return {"requests_per_second": rate, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "errors": errors}


def one_by_one(address: str, requests: list[dict[str, Any]]) -> dict[str, float]:
    """Latency in ms of requests that come one after another on one connection."""
    seconds = []
    with httpx.Client(base_url=address, timeout=60) as http:
        for body in requests:
            started = time.perf_counter()
            http.post("/recommend", json=body).raise_for_status()
            seconds.append(1000 * (time.perf_counter() - started))
    p50, p99 = np.quantile(seconds[len(seconds) // 10 :], [0.5, 0.99])
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


def resident_mb(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Resident memory, and the part of it that other processes share at present (PSS is what remains of it)."""
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    found = {key: int(value) / 1000 for key, value in re.findall(r"^(Rss|Pss): +(\d+) kB", text, re.MULTILINE)}
    return {"rss_mb": found["Rss"], "pss_mb": found["Pss"]}


def throughput(
    folder: Path, paths: dict[str, Path], requests: list[dict[str, Any]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Each service in turns with the empty routes; medians of the rounds."""
    script = folder / "requests.lua"
    script.write_text(LUA.replace("BODIES", ",".join(json.dumps(json.dumps(body)) for body in requests)))
    rows: dict[str, list[dict[str, float]]] = {}
    memory = {}
    with contextlib.ExitStack() as stack:
        services = {name: stack.enter_context(running(path)) for name, path in paths.items()}
        sample = httpx.post(f"{services[next(iter(paths))][0]}/recommend", json=requests[0])
        services |= {name: stack.enter_context(empty_route(folder, name, sample.content)) for name in ROUTES}
        for _ in range(ROUNDS):
            for name, (address, process) in services.items():
                figures = wrk(address, script, arguments.connections, arguments.seconds)
                print(name, figures, flush=True)
                rows.setdefault(name, []).append(figures)
                memory[name] = resident_mb(process)
    return {
        name: {key: statistics.median(row[key] for row in measured) for key in measured[0]} | memory[name]
        for name, measured in rows.items()
    }


def catalogues(folder: Path, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """For each size, request by request: every item scored, and the approximate index with its recall."""
    rows = []
    for n_items in sizes:
        path, row = saved(folder, "multvae", n_items), dict[str, Any](items=n_items)
        for way, exact_items in (("exact", n_items), ("index", n_items - 1)):
            with running(path, RECVAE_EXACT_ITEMS=str(exact_items), RECVAE_TIMEOUT_SECONDS="60") as (address, process):
                row[way] = one_by_one(address, bodies(n_items)) | resident_mb(process)
                if way == "index":
                    row[way]["about"] = httpx.get(f"{address}/model").json()["index"]
                    row[way]["recall@10"] = recall(address, path, n_items)
        shutil.rmtree(path)
        print(row, flush=True)
        rows.append(row)
    return rows


def recall(address: str, path: Path, n_items: int) -> float:
    """Share of the exact lists that the service gives, over histories that the index was not measured on."""
    ranker = Ranker(registry.load(path, frozen=True))
    hits = []
    for body in bodies(n_items, 50):
        listed = {item["id"] for item in httpx.post(f"{address}/recommend", json=body, timeout=60).json()["items"]}
        (exact,) = ranker.rank([Query(body["history"], N)])
        hits.append(len(listed & {ranker.items.ids[i] for i, _ in exact}) / N)
    return round(statistics.mean(hits), 4)


def loading(path: Path) -> dict[str, float]:
    """Seconds to load and verify, and megabytes of weights."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        Ranker(registry.load(path, frozen=True))
        seconds.append(time.perf_counter() - started)
    weights = (path / "model.safetensors").stat().st_size / 1e6
    return {"load_seconds": round(statistics.median(seconds), 3), "weights_mb": round(weights, 1)}


def plot(results: dict[str, Any], file: Path) -> None:
    """Requests a second and p99, side by side."""
    from matplotlib.figure import Figure

    rows = results["throughput"]
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    for axes, key, label in zip(
        figure.subplots(1, 2), ("requests_per_second", "p99_ms"), ("requests a second", "p99, ms"), strict=True
    ):
        axes.barh(list(rows), [row[key] for row in rows.values()], color="#3b6ea5")
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=record.parse_count, default=10)
    parser.add_argument("--connections", type=record.parse_count, default=32)
    parser.add_argument("--items", type=record.parse_count, default=20_000)
    parser.add_argument("--model", type=Path, help="artifact to serve, whose made-up users send the requests")
    parser.add_argument("--catalogues", type=int, nargs="*", default=CATALOGUES, help="numbers of items, ascending")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recvae-serving-") as name:
        folder = Path(name)
        if arguments.model:
            paths = {"model": Path(shutil.copytree(arguments.model, folder / "model"))}
            requests = made_up_bodies(arguments.model)
        else:
            paths = {model: saved(folder, model, arguments.items) for model in ("multvae", "als")}
            requests = bodies(arguments.items)
        results: dict[str, Any] = {"loading": {model: loading(path) for model, path in paths.items()}}
        results["throughput"] = throughput(folder, paths, requests, arguments)
        rows = results["throughput"]
        for model in paths:
            for route in ROUTES:
                rate = rows[model]["requests_per_second"] / rows[route]["requests_per_second"]
                slower = rows[model]["p99_ms"] / rows[route]["p99_ms"]
                ratios = {"throughput": round(rate, 3), "p99": round(slower, 2)}
                results.setdefault("ratios", {}).setdefault(model, {})[f"to {route}"] = ratios
        results["catalogues"] = grown = [] if arguments.model else catalogues(folder, arguments.catalogues)
        if grown:
            ratio = grown[-1]["index"]["p50_ms"] / grown[0]["exact"]["p50_ms"]
            results["ratios"]["p50 of the largest catalogue by index to the smallest scored whole"] = round(ratio, 2)
    command = shlex.join(["python", "-m", "benchmarks.serving", *sys.argv[1:]])
    results |= record.provenance(command, SEED, "fastapi", "uvicorn")
    print(json.dumps(results, indent=1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / ("serving_model.json" if arguments.model else "serving.json")
    file.write_text(json.dumps(results, indent=1) + "\n")
    plot(results, file.with_suffix(".svg"))


if __name__ == "__main__":
    main()
