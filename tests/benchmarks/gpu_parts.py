"""What a GPU spends its time on: ``python -m tests.benchmarks.gpu_parts --model DIR``.

For whoever tunes the encoder and the search: whether packed texts agree with padded ones, and the milliseconds of each
part apart. Prints line by line and begins no section after ``--seconds``, so that a run cut short loses nothing.
``screening`` measures the whole.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.adapter import SHIPPED
from antiprompt_bank.bert import add_norm_in_torch, attention_on_gpu, pooled
from antiprompt_bank.encoder import export_encoder
from antiprompt_bank.encoder_cuda import TorchEncoder
from antiprompt_bank.errors import BankError
from antiprompt_bank.index_torch import TorchIndex
from antiprompt_bank.model_files import DEFAULT_MODEL
from antiprompt_bank.neighbours import NEIGHBOURS
from tests.benchmarks.arrivals import open_loop, peak
from tests.benchmarks.texts import one_window
from tests.vectors import Clusters

_BATCHES = (1, 32, 100, 150, 250, 512, 1024, 2048)
_ROWS = (100_000, 1_000_000)
_TOKENS = 66


class Parts:
    """Encoders of one model and what they are given: windows of 64 tokens."""

    def __init__(self, torch: Any, model: str, folder: Path) -> None:
        self.torch = torch
        self.model = model
        self.folder = folder
        self.start_s = time.perf_counter()
        exported = export_encoder(folder / "plain", model)
        self.exact = TorchEncoder(exported, device="cuda", precision="f32")
        self.padded = TorchEncoder(exported, device="cuda", packed=False)
        start_s = time.perf_counter()
        self.packed = TorchEncoder(exported, device="cuda")
        self.say("opened in s", time.perf_counter() - start_s, self.padded.runtime, self.packed.runtime)
        texts = (self.exact.tokenize(one_window(number)).ids for number in range(4096))
        self.inputs = [[*ids, *ids][: _TOKENS - 2] for ids in texts]

    def say(self, *words: object) -> None:
        shown = (f"{word:.4g}" if isinstance(word, float) else str(word) for word in words)
        print(f"[{time.perf_counter() - self.start_s:5.1f}]", *shown, flush=True)

    def wall_ms(self, work: Callable[[], object], times: int = 20) -> float:
        """The median of what a caller waits."""
        took_s = []
        for _ in range(times + 2):
            start_s = time.perf_counter()
            work()
            self.torch.cuda.synchronize()
            took_s.append(time.perf_counter() - start_s)
        return float(np.median(took_s[2:])) * 1e3

    def gpu_ms(self, work: Callable[[], object], times: int = 10) -> float:
        """What the GPU takes for one of several that are queued behind each other."""
        for _ in range(3):
            work()
        begun, done = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        for _ in range(times):
            work()
        done.record()
        self.torch.cuda.synchronize()
        return float(begun.elapsed_time(done)) / times

    def agreement(self) -> None:
        """Against float32, and alone against together, for texts of many lengths."""
        chance = np.random.default_rng(0)
        some = [self.inputs[number][: int(chance.integers(0, 65))] for number in range(300)]
        some += [(self.inputs[number] * 4)[: int(chance.integers(65, 254))] for number in range(40)]
        exact = self.exact.encode(some)
        for name, encoder in (("padded", self.padded), ("packed", self.packed)):
            together = encoder.encode(some)
            alone = np.vstack([encoder.encode([ids]) for ids in some])
            near, alike = ((one * together).sum(axis=1).min() for one in (exact, alone))
            self.say(name, "least cosine with float32", float(near), "alone with together", float(alike))

    def encoding(self) -> None:
        for count in _BATCHES:
            some = self.inputs[:count]
            took = [self.wall_ms(partial(each.encode, some), 8) for each in (self.padded, self.packed)]
            self.say(count, "windows, ms: padded, packed", *took)

    def kernels(self) -> None:
        """The ten that take longest."""
        from torch.profiler import ProfilerActivity, profile

        for name, encoder in (("padded", self.padded), ("packed", self.packed)):
            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                encoder.encode(self.inputs[:2048])
            for row in sorted(seen.key_averages(), key=lambda row: -row.self_device_time_total)[:10]:
                self.say(name, "ms", row.self_device_time_total / 1e3, "times", row.count, row.key[:100])

    def layers(self) -> None:
        """The steps of a layer of the default model's size, 2,048 windows."""
        torch, functional = self.torch, self.torch.nn.functional
        tokens = 2048 * _TOKENS
        make = partial(torch.randn, device="cuda", dtype=torch.bfloat16)
        state, wide, one = make(tokens, 384), make(tokens, 1536), make(384)
        for name, given, width in (
            ("turn", state, 1152),
            ("out", state, 384),
            ("wide", state, 1536),
            ("narrow", wide, 384),
        ):
            linear = partial(functional.linear, given, make(width, given.shape[1]), make(width))
            self.say(name, self.gpu_ms(linear))
        self.say("gelu", self.gpu_ms(partial(functional.gelu, wide)))
        grown = partial(torch._addmm_activation, make(1536), state, make(384, 1536), use_gelu=True)
        self.say("wide with gelu", self.gpu_ms(grown))
        self.say("sum and norm, torch", self.gpu_ms(partial(add_norm_in_torch(torch), state, state, one, one, 1e-12)))
        from antiprompt_bank.triton_norm import add_norm

        self.say("sum and norm, Triton", self.gpu_ms(partial(add_norm, state, state, one, one, 1e-12)))
        bounds = torch.arange(0, tokens + 1, _TOKENS, device="cuda", dtype=torch.int32)
        for mode in ("mean", "max"):
            self.say("pooled", mode, self.gpu_ms(partial(pooled, torch, state, bounds, mode)))
        attend = attention_on_gpu(torch)
        assert attend is not None, "this torch has no attention over texts of different lengths"
        query, key, value = make(tokens, 3, 12, 32).unbind(1)
        for longest in (_TOKENS, 128, 256):
            self.say("attention sized for", longest, self.gpu_ms(partial(attend, query, key, value, bounds, longest)))

    def searching(self) -> None:
        torch = self.torch
        for rows in _ROWS:
            stored = torch.nn.functional.normalize(torch.randn(rows, 384, device="cuda"), dim=1)
            index = TorchIndex(stored.cpu().numpy(), device="cuda")
            queries = Clusters(10_000).others(2048)
            for count in (1, 128, 2048):
                some = queries[:count]
                asked = torch.from_numpy(some).cuda()
                block = stored[: 2**28 // count]
                took = self.wall_ms(partial(index.search, some, NEIGHBOURS), 10)
                self.say(
                    rows, "rows,", count, "queries, ms", took, "product", self.gpu_ms(partial(_product, asked, block))
                )
            scores = torch.from_numpy(queries[:1]).cuda() @ stored.T
            self.say("one: as a vector", self.gpu_ms(partial(torch.mv, stored, torch.from_numpy(queries[0]).cuda())))
            for group in (32, 64, 128, 256):
                grouped = scores[:, : rows // group * group].unflatten(1, (rows // group, group))
                best = partial(torch.topk, grouped.amax(dim=2), NEIGHBOURS, sorted=False)
                within = partial(torch.topk, scores[:, : NEIGHBOURS * group], NEIGHBOURS)
                each = [self.gpu_ms(work) for work in (partial(grouped.amax, dim=2), best, within)]
                self.say("groups of", group, "ms: largest, best groups, within", *each)

    def together(self) -> None:
        """Encoder and search with 100,000 rows, by batches under way."""
        index = TorchIndex(Clusters(100_000).vectors(), device="cuda")
        for name, encoder in (("padded", self.padded), ("packed", self.packed)):

            def work(these: NDArray[np.int64], encoder: TorchEncoder = encoder) -> object:
                return index.search(encoder.encode([self.inputs[at] for at in these.tolist()]), NEIGHBOURS)

            work(np.arange(2048))
            for under_way in (1, 2, 3):
                for batch in (512, 2048):
                    most = peak(work, 4096, batch=batch, seconds=0.4, in_flight=under_way)
                    self.say(name, under_way, "under way, batches of", batch, "windows/s", most)
                waits = open_loop(work, 4096, per_s=50_000, batch=2048, arrivals=25_000, in_flight=under_way)
                self.say(name, under_way, "under way, 50,000 windows/s", waits)

    def adapted(self) -> None:
        exported = export_encoder(self.folder / "adapted", self.model, adapter=SHIPPED)
        exact = TorchEncoder(exported, device="cuda", precision="f32").encode(self.inputs[:512])
        packed = TorchEncoder(exported, device="cuda")
        near = float((packed.encode(self.inputs[:512]) * exact).sum(axis=1).min())
        took = [self.wall_ms(partial(packed.encode, self.inputs[:count])) for count in (100, 2048)]
        self.say(packed.runtime, "least cosine with float32", near, "ms of 100 and 2,048 windows", *took)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_parts", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a sentence-transformers model (%(default)s)")
    parser.add_argument("--seconds", type=float, default=70, metavar="S", help="no section begins after that (70)")
    chosen = parser.parse_args(arguments)
    import torch

    if not torch.cuda.is_available():
        print("torch sees no GPU here", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(torch, chosen.model, Path(folder))
        together, adapted = parts.together, parts.adapted
        for section in (
            parts.agreement,
            parts.encoding,
            together,
            parts.searching,
            parts.layers,
            parts.kernels,
            adapted,
        ):
            if time.perf_counter() - parts.start_s > chosen.seconds:
                parts.say("left out for want of time:", section.__name__)
                continue
            parts.say(section.__name__)
            try:
                section()
            except (RuntimeError, ImportError, AssertionError, BankError):  # the others are worth having
                traceback.print_exc()
    return 0


def _product(asked: Any, block: Any) -> Any:
    return asked @ block.T


if __name__ == "__main__":
    sys.exit(main())
