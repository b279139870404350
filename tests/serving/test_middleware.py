"""The middleware: keys, limits, time-outs, headers, logs and metrics."""

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import Gauge

import recvae.serving.app as service_app
from recvae.serving import Settings, create_app
from recvae.serving.batching import Batcher
from recvae.serving.telemetry import SHARED, Metrics
from tests.contracts import one_thread as one_thread
from tests.http_service import asked, client, item_id, logged, save
from tests.http_service import json_logs as json_logs

BODY = {"history": [item_id(1)], "n": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving") / "model"
    save(path)
    return path


async def exchange(app: FastAPI, *messages: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
    """Return the answer to a POST /recommend that arrives as these messages, and then nothing more."""
    waiting, sent = list(messages), list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"content-type": "application/json", **(headers or {})}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/recommend",
        "raw_path": b"/recommend",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=body)


def chunk(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_an_api_key(model: Path) -> None:
    async def question(http: httpx.AsyncClient) -> list[int]:
        keys: list[dict[str, str]] = [{}, {"x-api-key": "wrong"}, {"x-api-key": "secret"}]
        keys += [{"authorization": f"{scheme} secret"} for scheme in ("Bearer", "bearer", "BEARER")]
        statuses = [(await http.post("/recommend", json=BODY, headers=headers)).status_code for headers in keys]
        open_ = [(await http.get(path)).status_code for path in ("/", "/page.js", "/healthz", "/readyz", "/docs")]
        closed = [(await http.get(path)).status_code for path in ("/model", "/metrics", "/items", "/nowhere")]
        return [*statuses, *open_, *closed]

    assert asked(Settings(model, api_key="secret"), question) == [401, 401, *[200] * 9, *[401] * 4]


def test_admin_routes_are_off_without_their_own_key(model: Path) -> None:
    async def question(http: httpx.AsyncClient) -> list[int]:
        keys: list[dict[str, str]] = [{}, {"x-api-key": "secret"}, {"x-api-key": "admin"}]
        return [(await http.post("/admin/reload", headers=headers)).status_code for headers in keys]

    assert asked(Settings(model, api_key="secret"), question) == [404, 404, 404]
    assert asked(Settings(model, api_key="secret", admin_key="admin"), question) == [401, 401, 200]


def test_headers_of_every_answer(model: Path) -> None:
    async def question(http: httpx.AsyncClient) -> list[httpx.Response]:
        given = {"x-request-id": "mine-1"}
        return [
            await http.get("/"),
            await http.post("/recommend", json=BODY, headers=given),
            await http.get("/nowhere", headers={"x-request-id": "not\tmine"}),
            await http.post("/recommend", content=b"{", headers={"content-type": "application/json"}),
        ]

    answers = asked(Settings(model), question)
    assert [answer.status_code for answer in answers] == [200, 200, 404, 422]
    for answer in answers:
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
    assert answers[1].headers["x-request-id"] == "mine-1"
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4
    assert "\t" not in answers[2].headers["x-request-id"]


def test_other_origins_are_let_in_by_name(model: Path) -> None:
    async def question(http: httpx.AsyncClient) -> list[str | None]:
        origins = ("https://shop.example", "https://other.example")
        answers = [await http.post("/recommend", json=BODY, headers={"origin": origin}) for origin in origins]
        return [answer.headers.get("access-control-allow-origin") for answer in answers]

    assert asked(Settings(model, cors="https://shop.example"), question) == ["https://shop.example", None]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_pages_of_other_origins_may_use_every_route(model: Path, method: str) -> None:
    wanted = {
        "origin": "https://shop.example",
        "access-control-request-method": method,
        "access-control-request-headers": "x-api-key",
    }
    answer = asked(
        Settings(model, cors="https://one.example, https://shop.example", api_key="secret"),
        lambda http: http.options("/items/7", headers=wanted),
    )
    assert answer.status_code == 200, answer.text
    assert method in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize(
    ("messages", "status", "said"),
    [
        ([chunk(b'{"history":', True), chunk(b" []}", False)], 200, "items"),
        ([chunk(b'{"history":', True)], 408, "not received within 0.2 seconds"),
        ([chunk(b"x" * 60, True), chunk(b"x" * 60, True)], 413, "max_body_bytes = 100"),
        ([chunk(b"x" * 60, True), {"type": "http.disconnect"}], 400, "the connection ended"),
    ],
)
def test_bodies_in_pieces(model: Path, messages: list[dict[str, Any]], status: int, said: str) -> None:
    async def question() -> httpx.Response:
        app = create_app(Settings(model, timeout_seconds=0.2, max_body_bytes=100))
        async with client(app):
            return await exchange(app, *messages)

    answer = asyncio.run(question())
    assert answer.status_code == status
    assert said in answer.text


def test_large_bodies_are_taken_one_at_a_time(model: Path) -> None:
    large = b'{"history": [1]' + b" " * 2**17 + b"}"

    async def question() -> list[float]:
        app = create_app(Settings(model))
        async with client(app, headers={"content-type": "application/json"}) as http:
            slow(app, 0.2)
            started, seconds = time.perf_counter(), list[float]()

            async def ask(body: bytes) -> None:
                assert (await http.post("/recommend", content=body)).status_code == 200
                seconds.append(time.perf_counter() - started)

            await asyncio.gather(*(ask(body) for body in (large, large, large, b'{"history": [2]}')))
            return seconds

    seconds = asyncio.run(question())
    assert seconds[1] < 0.6 <= seconds[3]  # the small one shares a batch with the first or the second of the large ones


def test_a_declared_length_is_refused_at_once(model: Path) -> None:
    async def question() -> httpx.Response:
        app = create_app(Settings(model, max_body_bytes=100))
        async with client(app):
            return await exchange(app, headers={"content-length": "9" * 30})

    assert asyncio.run(question()).status_code == 413


def slow(app: FastAPI, seconds: float) -> None:
    served = app.state.backend.models.current
    rank = served.rank

    def late(queries: Any) -> Any:
        time.sleep(seconds)
        return rank(queries)

    served.rank = late


def test_a_full_queue_and_a_late_answer(model: Path) -> None:
    async def question() -> list[httpx.Response]:
        app = create_app(Settings(model, queue=2, batch_size=1, timeout_seconds=1.0, batch_window_ms=0))
        async with client(app) as http:
            slow(app, 0.7)
            first = asyncio.create_task(http.post("/recommend", json=BODY))
            await asyncio.sleep(0.2)
            others = await asyncio.gather(*(http.post("/recommend", json=BODY) for _ in range(4)))
            return [await first, *others]

    answers = asyncio.run(question())
    assert sorted(answer.status_code for answer in answers) == [200, 503, 503, 504, 504]
    for answer in answers:
        assert (answer.status_code == 503) == ("retry-after" in answer.headers)


@pytest.mark.usefixtures("json_logs")
def test_unexpected_errors_tell_nothing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def question() -> httpx.Response:
        app = create_app(Settings(model))
        async with client(app) as http:
            app.state.backend.models.current.rank = broken
            return await http.post("/recommend", json=BODY, headers={"x-request-id": "it"})

    def broken(queries: Any) -> Any:
        raise ZeroDivisionError("the secret of the house")

    answer = asyncio.run(question())
    entries = logged(capsys.readouterr().err)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    (error,) = [entry for entry in entries if entry["level"] == "error"]
    assert "the secret of the house" in error["traceback"]
    assert error["request_id"] == "it"


@pytest.mark.usefixtures("json_logs")
def test_the_access_log_names_no_users_and_no_items(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def question(http: httpx.AsyncClient) -> None:
        await http.get("/users/u7/recommendations")
        await http.post("/recommend", json=BODY)
        await http.get("/nowhere")

    asked(Settings(model), question)
    text = capsys.readouterr().err
    entries = [entry for entry in logged(text) if entry["logger"] == "recvae.access"]
    assert [(entry["method"], entry["route"], entry["status"]) for entry in entries] == [
        ("GET", "/users/{user_id}/recommendations", 200),
        ("POST", "/recommend", 200),
        ("any", "other", 404),
    ]
    assert all(0 < entry["seconds"] < 60 and entry["request_id"] for entry in entries)
    assert "u7" not in text
    told = [
        {key: value for key, value in entry.items() if key not in ("time", "seconds", "request_id")}
        for entry in entries
    ]
    assert str(item_id(1)) not in str(told)


SPANS = """
import asyncio, sys
from pathlib import Path
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from recvae.serving import Settings
from tests.http_service import asked

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
for path in ("/users/u7/recommendations?n=3", "/users/secret/recommendations", "/items?query=secret", "/secret"):
    asked(Settings(Path(sys.argv[1])), lambda http: http.get(path))
print("\\n".join(span.to_json(indent=None) for span in exporter.get_finished_spans()))
"""


def test_spans_name_no_users(model: Path) -> None:
    pytest.importorskip("opentelemetry.sdk")
    done = subprocess.run([sys.executable, "-c", SPANS, model], capture_output=True, text=True, check=True)
    assert "GET /users/{user_id}/recommendations" in done.stdout
    assert '"url.path": "hidden"' in done.stdout
    assert "u7" not in done.stdout
    assert "secret" not in done.stdout


def test_figures(model: Path) -> None:
    async def question(http: httpx.AsyncClient) -> str:
        for history in ([item_id(1), 7], [item_id(2)]):
            await http.post("/recommend", json={"history": history, "exclude": [8, 9]})  # not counted as unknown
        await http.get("/nowhere")
        return (await http.get("/metrics")).text

    text = asked(Settings(model), question)
    for line in (
        'recvae_requests_total{method="POST",route="/recommend",status="200"} 2.0',
        'recvae_requests_total{method="any",route="other",status="404"} 1.0',
        'recvae_request_seconds_count{route="/recommend"} 2.0',
        "recvae_history_items_total 3.0",
        "recvae_unknown_items_total 1.0",
        "recvae_queue_length 0.0",
        "recvae_batch_size_count 2.0",
        'recvae_reloads_total{outcome="loaded"} 1.0',
        "recvae_index_recall 1.0",
    ):
        assert line in text
    assert 'recvae_model_info{model="MultVAE",version="' in text


def test_the_queue_is_reported_by_every_worker(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever worker is asked adds up what all of them have reported."""
    monkeypatch.setattr(service_app, "QUEUE_SECONDS", 0.001)
    monkeypatch.setattr(Batcher, "__len__", lambda _: 7)

    async def read_queue() -> float | None:
        service = create_app(Settings(model))
        reported: Gauge = service.state.backend.metrics.queue
        async with service.router.lifespan_context(service):
            await asyncio.sleep(0.01)
            return next(sample.value for metric in reported.collect() for sample in metric.samples)

    assert asyncio.run(read_queue()) == 7


def test_the_dashboard_asks_for_figures_that_there_are(model: Path) -> None:
    async def question(http: httpx.AsyncClient) -> str:
        await http.post("/recommend", json={"history": [item_id(1), "unheard of"]})
        return (await http.get("/metrics")).text

    dashboards = (Path(__file__).parent.parent.parent / "service" / "grafana").rglob("*.json")
    asked_for = {name for file in dashboards for name in re.findall(r"recvae_[a-z_]+", file.read_text())}
    assert len(asked_for) > 10
    assert asked_for <= set(re.findall(r"^(recvae_\w+)", asked(Settings(model), question), re.MULTILINE))


def test_figures_of_a_dead_worker_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARED, str(tmp_path))
    for name in ("gauge_livesum_999999999.db", "counter_999999999.db"):
        (tmp_path / name).write_bytes(b"")
    Metrics()
    assert [path.name for path in tmp_path.iterdir()] == ["counter_999999999.db"]
