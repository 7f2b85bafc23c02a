"""The benchmark of encoder and search: that it measures what it says, on a tiny bank."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from antiprompt_bank import build_bank
from antiprompt_bank.encoder import export_encoder, open_encoder
from antiprompt_bank.model_files import default_id
from tests.benchmarks import screening
from tests.benchmarks.arrivals import open_loop, peak
from tests.benchmarks.figures import Speed, say_missed, speeds_table
from tests.benchmarks.limits import Limits, operations
from tests.benchmarks.screening import Sizes, main
from tests.benchmarks.texts import one_window
from tests.vectors import Clusters, asked, ranked


class Slow:
    """Does any batch in the same time, and remembers what was in each."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.batches: list[list[int]] = []

    def __call__(self, these: np.ndarray) -> None:
        self.batches.append(these.tolist())
        time.sleep(self.seconds)


def test_items_that_arrive_faster_than_they_are_done_go_together_and_wait() -> None:
    slow = Slow(0.01)
    waits = open_loop(slow, 7, per_s=2000, batch=16, arrivals=100)
    done = [item for batch in slow.batches for item in batch]
    assert done == [number % 7 for number in range(100)]
    assert max(map(len, slow.batches)) == 16
    assert 10 <= waits.median_ms <= waits.p99_ms
    assert waits.per_s <= 1600


def test_of_two_in_flight_each_takes_what_is_there_and_nothing_twice() -> None:
    slow = Slow(0.01)
    waits = open_loop(slow, 1000, per_s=20_000, batch=16, arrivals=200, in_flight=2)
    assert sorted(item for batch in slow.batches for item in batch) == list(range(200))
    assert all(batch == list(range(batch[0], batch[0] + len(batch))) for batch in slow.batches)
    assert waits.per_s <= 2 * 1600
    together = Slow(0.01)
    assert peak(together, 5, batch=8, seconds=0.05, in_flight=2) <= 1600
    assert len(together.batches) >= 2


def test_items_that_arrive_slowly_are_done_at_once() -> None:
    slow = Slow(0.0)
    waits = open_loop(slow, 100, per_s=1000, batch=16, arrivals=100)
    assert sum(map(len, slow.batches)) == 100
    assert waits.median_ms > 0


def test_the_peak_is_that_of_full_batches() -> None:
    slow = Slow(0.01)
    assert 0 < peak(slow, 5, batch=8, seconds=0.03) <= 800
    assert slow.batches[0] == [0, 1, 2, 3, 4, 0, 1, 2]


def test_vectors_lie_in_clusters_and_are_always_the_same() -> None:
    clusters = Clusters(2000, 64)
    vectors, others = clusters.vectors(), clusters.others(50)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert (vectors == Clusters(2000, 64).vectors()).all()
    assert (vectors != Clusters(2000, 64, seed=1).vectors()).any()
    near = np.sort(others @ vectors.T, axis=1)
    assert np.median(near[:, -1]) > 0.7
    assert abs(np.median(near)) < 0.1
    closeness = asked(others) @ ranked(vectors).T
    assert closeness.max() <= 1.0


def test_a_limit_is_the_arithmetic_or_the_reading_whichever_takes_longer() -> None:
    limits = Limits(encoder_per_s=1e12, float32_per_s=1e12, bytes_per_s=1e10)
    assert limits.search_s(1_000_000, 384, 1) == pytest.approx(0.1536)
    assert limits.search_s(1_000_000, 384, 1000) == pytest.approx(0.768)


def test_speeds_are_shown_beside_limit_and_aim() -> None:
    speeds = [
        Speed("slow", "ms", 3.0, limit=2.0, aim=2.5),
        Speed("many", "windows/s", 50.0, limit=200.0, aim=10, bound="at least"),
        Speed("plain", "s", 1.0),
    ]
    assert [speed.ratio for speed in speeds] == [1.5, 4.0, None]
    assert [speed.met for speed in speeds] == [False, True, None]
    console = Console(record=True, width=120)
    console.print(speeds_table(speeds))
    say_missed(speeds, console)
    shown = console.export_text()
    assert "at most 2.5" in shown
    assert "Missed: slow" in shown


@pytest.fixture(scope="module")
def kept(pytestconfig: pytest.Config) -> Path:
    """The exported encoder, from pytest's own cache."""
    root = Path(pytestconfig.cache.mkdir("antiprompt_bank"))
    return export_encoder(root / "encoders" / default_id().replace(":", "-"))


@pytest.mark.filterwarnings("ignore")
def test_a_run_on_a_cpu_measures_every_part(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screening, "QUICK", Sizes((200, 20_001), 0.01, 8, 2, 3))
    file = tmp_path / "run.json"
    (tmp_path / "encoders").symlink_to(kept.parent)
    assert main(["--quick", "--device", "cpu", "--data", str(tmp_path), "--json", str(file)]) == 0
    made = json.loads(file.read_text())
    figures = {figure["name"]: figure for figure in made["figures"]}
    for name in ("encode 64 tokens", "200 rows: search", "200 rows: from ids"):
        assert figures[name]["value"] > 0
        assert figures[name]["limit"] > 0
        for percent in (25, 50, 75, 100):
            half, most = (figures[f"{name}, {percent} % load: {which}"]["value"] for which in ("median", "99 %"))
            assert 0 < half <= most
    assert figures["200 rows: from text"]["value"] > 0
    assert figures["20,001 rows: recall at 32"]["value"] >= 0.99
    assert figures["20,001 rows, coarse: build"]["value"] > 0
    assert figures["new text over its bare encoding"]["aim"] == 1.3
    assert made["encoder"].startswith("openvino")
    assert "new text of one window" in capsys.readouterr().out


def test_texts_of_the_benchmark_are_one_window(kept: Path) -> None:
    encoder = open_encoder(kept, device="cpu")
    bank = build_bank([screening.exemplar(number) for number in range(4)], encoder)
    prepared = [bank.prepare(one_window(number), side="request") for number in range(50)]
    assert [item.windows for item in prepared] == [1] * 50
    assert all(48 <= len(item.cut[0].ids) <= 64 for item in prepared)
    assert operations(encoder, 66) == pytest.approx(1.44e9, rel=0.01)
