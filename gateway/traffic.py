"""Traffic: a sample of what was screened lately, as vectors without text, from all gateways.

It answers one question: what would a new exemplar have hit? Each gateway samples some texts a second, keeps a few
windows of each as half-precision vectors, and puts them into one bounded stream in Redis. A vector is not a text, but
what it is about can be told from it: the sample is kept as short as cases are, and ``retention.traffic_texts`` 0 turns
it off.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank import Bank, Prepared, Score
from antiprompt_bank.reach import Seen, seen
from gateway.errors import StateUnavailable
from gateway.redis_client import RedisClient
from gateway.redis_keys import TRAFFIC
from gateway.settings import RetentionSettings

SAMPLED_PER_S: Final = 20
"""Texts that one gateway takes into the sample in a second, at most."""

WINDOWS: Final = 4
FLUSH_S: Final = 1.0
_MAX_WAITING: Final = 10 * SAMPLED_PER_S
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class SeenText:
    """One text of the sample, and the risk that was found in it."""

    seen: Seen
    risk: float
    encoder: str

    def to_row(self) -> dict[str, str]:
        vectors = self.seen.windows if self.seen.prompt is None else np.vstack([self.seen.windows, self.seen.prompt])
        return {
            "side": self.seen.side,
            "risk": f"{self.risk:.4f}",
            "encoder": self.encoder,
            "windows": str(len(self.seen.windows)),
            "width": str(vectors.shape[1]),
            "vectors": base64.b64encode(vectors.astype("<f2").tobytes()).decode(),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> SeenText:
        """Raises ``ValueError`` or ``KeyError`` for what is no such row."""
        count, width = int(row["windows"]), int(row["width"])
        flat = np.frombuffer(base64.b64decode(row["vectors"]), dtype="<f2").astype(np.float32)
        vectors: NDArray[np.float32] = flat.reshape(-1, width)
        prompt = vectors[count] if len(vectors) > count else None
        side: Any = row["side"]
        return cls(Seen(side, vectors[:count], prompt), float(row["risk"]), row["encoder"])


class Traffic:
    """The sample. ``note`` is called by the threads that score; ``follow`` brings what they noted to Redis."""

    def __init__(self, redis: RedisClient, retention: RetentionSettings) -> None:
        self._redis = redis
        self._most = retention.traffic_texts
        self._ttl_s = retention.case_ttl_s
        self._waiting: deque[SeenText] = deque(maxlen=_MAX_WAITING)  # appending is safe from any thread
        self._second = 0
        self._taken = 0
        self._read: OrderedDict[str, SeenText] = OrderedDict()

    def note(self, bank: Bank, prepared: Prepared, score: Score) -> None:
        """Take a text that was just scored into the sample, unless this second's share is full."""
        if not self._most or not prepared.cut:
            return
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._taken = second, 0
        if self._taken >= SAMPLED_PER_S:  # two threads may both take the last place; that is no harm
            return
        self._taken += 1
        try:
            vectors = seen(bank, prepared, most=WINDOWS)
        except RuntimeError:  # the encoder failed meanwhile: the text has its score, and the sample can do without it
            return
        self._waiting.append(SeenText(vectors, score.risk, bank.encoder.id))

    async def follow(self) -> None:
        """Bring what was noted to Redis until cancelled. While Redis is away the sample loses it: it is a sample."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Bring what was noted to Redis now."""
        texts = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not texts:
            return
        oldest_ms = int((time.time() - self._ttl_s) * 1000)
        try:
            with self._redis.guard() as redis:
                pipe = redis.pipeline(transaction=False)
                for text in texts:
                    row: Any = text.to_row()
                    pipe.xadd(TRAFFIC(), row, maxlen=self._most, approximate=False)
                pipe.xtrim(TRAFFIC(), minid=f"{oldest_ms}-0")
                await pipe.execute()
        except StateUnavailable:
            return

    async def recent(self, encoder: str) -> Sequence[SeenText]:
        """The sample as far as it is of this encoder, oldest first. Raises ``StateUnavailable``."""
        last = next(reversed(self._read), None)
        while True:
            with self._redis.guard() as redis:
                rows: Any = await redis.xrange(TRAFFIC(), min="-" if last is None else f"({last}", count=_CHUNK)
                first: Any = await redis.xrange(TRAFFIC(), count=1)
            for id, row in rows:
                self._read[id] = SeenText.from_row(row)
                last = id
            if len(rows) < _CHUNK:
                break
        oldest = first[0][0] if first else None
        while self._read and (oldest is None or _before(next(iter(self._read)), oldest)):
            self._read.popitem(last=False)  # trimmed from the stream meanwhile
        return [text for text in self._read.values() if text.encoder == encoder]


def _before(id: str, other: str) -> bool:
    return tuple(map(int, id.split("-"))) < tuple(map(int, other.split("-")))
