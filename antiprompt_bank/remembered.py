"""Remembered: the vectors used last, by what was encoded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MOST_REMEMBERED: Final = 4096
"""Vectors kept: about 10 MB."""

Input = tuple[str, tuple[int, ...]]
"""What was encoded: its scope and its token ids."""


class Vectors:
    """Vectors by what was encoded."""

    def __init__(self, vectors: Mapping[Input, NDArray[np.float32]]) -> None:
        self._vectors = vectors

    def of(self, keys: Sequence[Input]) -> NDArray[np.float32]:
        return np.stack([self._vectors[key] for key in keys])


class Remembered:
    """The vectors used last: a prompt was a request a moment ago, and a text comes back with every turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._vectors: OrderedDict[Input, NDArray[np.float32]] = OrderedDict()

    def get(self, keys: Iterable[Input]) -> dict[Input, NDArray[np.float32]]:
        with self._lock:
            found = {key: self._vectors[key] for key in keys if key in self._vectors}
            for key in found:
                self._vectors.move_to_end(key)
        return found

    def put(self, vectors: Mapping[Input, NDArray[np.float32]]) -> None:
        with self._lock:
            # Copies, because each is a slice that would keep its whole batch in memory.
            self._vectors.update((key, vector.copy()) for key, vector in vectors.items())
            while len(self._vectors) > _MOST_REMEMBERED:
                self._vectors.popitem(last=False)
