"""Speed of this working tree beside another revision's: training, evaluation and the service, in turns, in one run.

    python -m benchmarks.revisions REVISION [--rounds 5] [--seconds 5] [--connections 32]

At ML-20M's shape, with made-up histories: an epoch of MultVAE (both presets, and a sampled softmax) and of RecVAE on
2,500 users, the evaluation of 10,000 users, and requests a second to `POST /recommend` of one worker, by wrk. Both
revisions run in the environment of this process, by their public names only (`revision_worker.py`). Writes
`revisions.json`: the figures of each round and, by round, this tree's over the other's.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from scipy import sparse

from benchmarks import record
from benchmarks.serving import LUA, bodies, wrk
from benchmarks.shapes import ML_20M, histories
from recvae.evaluation.results import write_results
from tests.http_service import free_port, wait_until

ROOT = Path(__file__).parent.parent
WORKER = Path(__file__).parent / "revision_worker.py"
USERS = {"training": 2_500, "evaluation": 10_000}
OURS, THEIRS = "this tree", "the other"

Measure = Callable[[Path], dict[str, float]]


def environment(tree: Path) -> dict[str, str]:
    """This process's environment in which `import recvae` finds that tree."""
    return {**os.environ, "PYTHONPATH": str(tree), "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "ACTIVE")}


def work(tree: Path, what: str, folder: Path) -> dict[str, float]:
    """The figures that the worker prints."""
    command = [sys.executable, str(WORKER), what, str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment(tree), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{what} failed in {tree}: {done.stderr[-2000:]}")
    if what == "model":
        return {}
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not Path(printed["from"]).is_relative_to(tree):
        sys.exit(f"{what} imported recvae from {printed['from']}; expected it in {tree}")
    return dict(printed["figures"])


def serve(tree: Path, model: Path, script: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Requests a second and p99 of one worker."""
    port = free_port()
    command = [sys.executable, "-m", "recvae", "serve", str(model), "--port", str(port)]
    with subprocess.Popen(command, cwd=model.parent, env=environment(tree), stderr=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: _is_ready(address))
            figures = wrk(address, script, arguments.connections, arguments.seconds)
        finally:
            process.terminate()
    return {name: figures[name] for name in ("requests_per_second", "p99_ms")}


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A temporary working tree of a revision."""
    with tempfile.TemporaryDirectory(prefix="recvae-revision.") as scratch:
        tree = Path(scratch) / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(tree), revision)
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def measure(trees: dict[str, Path], folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every figure of both trees, round by round, and the ratio of each round."""
    for what, n_users in USERS.items():
        (folder / what).mkdir()
        made_up = histories(n_users, ML_20M["n_items"], ML_20M["mean_interactions"])
        sparse.save_npz(folder / what / "histories.npz", made_up)
    script = folder / "load.lua"
    lines = ",".join(json.dumps(json.dumps(body)) for body in bodies(ML_20M["n_items"]))
    script.write_text(LUA.replace("BODIES", lines))
    parts: dict[str, Measure] = {
        "training": lambda tree: work(tree, "training", folder / "training"),
        "evaluation": lambda tree: work(tree, "evaluation", folder / "evaluation"),
    }
    if not arguments.without_service:
        work(trees[THEIRS], "model", folder / "training")
        parts["service"] = lambda tree: serve(tree, folder / "training" / "model", script, arguments)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for number in range(arguments.rounds):
        for name, tree in list(trees.items())[:: 1 if number % 2 else -1]:  # who is first alternates
            found = {f"{part}: {key}": value for part, run in parts.items() for key, value in run(tree).items()}
            rounds[name].append(found)
            print(name, {key: round(value, 4) for key, value in found.items()}, flush=True)
    ratios = {
        key: [ours[key] / theirs[key] for ours, theirs in zip(rounds[OURS], rounds[THEIRS], strict=True)]
        for key in rounds[OURS][0]
    }
    return {"rounds": rounds, "ratios": {key: record.spread(values) for key, values in ratios.items()}}


def main() -> None:
    """Measure, print the ratios, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="a git revision to measure beside this working tree")
    parser.add_argument("--rounds", type=record.parse_count, default=5)
    parser.add_argument("--seconds", type=record.parse_count, default=5, help="of load on the service in each round")
    parser.add_argument("--connections", type=record.parse_count, default=32)
    parser.add_argument("--without-service", action="store_true", help="leave out the service, which needs wrk")
    parser.add_argument("--out", type=Path, default=record.RESULTS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with checkout(arguments.revision) as other, tempfile.TemporaryDirectory() as scratch:
        figures = measure({OURS: ROOT, THEIRS: other}, Path(scratch), arguments)
    for key, ratio in figures["ratios"].items():
        print(f"{key:45} {ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})")
    command = shlex.join(["python", "-m", "benchmarks.revisions", *sys.argv[1:]])
    commits = {name: _git("rev-parse", revision) for name, revision in ((OURS, "HEAD"), (THEIRS, arguments.revision))}
    content = {**record.provenance(command, 0), "commits": commits, **figures}
    write_results(arguments.out / "revisions.json", content)


def _git(*arguments: str) -> str:
    command = [shutil.which("git") or "git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
