from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from antiprompt_bank.packing import pack, packs
from antiprompt_bank.padding import Frame, lengths_of

frames = st.builds(
    Frame,
    st.lists(st.integers(1, 9), max_size=2).map(tuple),
    st.lists(st.integers(1, 9), max_size=2).map(tuple),
    st.just(64),
)


@settings(deadline=None, max_examples=50)
@given(
    frames,
    st.lists(st.lists(st.integers(10, 30_000), max_size=60), max_size=30),
    st.sampled_from([1, 70, 200, 100_000]),
    st.integers(0, 3),
)
def test_every_input_comes_once_between_its_special_tokens(
    frame: Frame, inputs: list[list[int]], most: int, room: int
) -> None:
    lengths = lengths_of(inputs, frame)
    seen = 0
    for part in packs(lengths, most_tokens=most):
        some = inputs[part.first : part.after]
        assert part.first == seen
        assert part.inputs == 1 or part.tokens <= most
        made = []
        for given_as in (some, [np.array(each, dtype=np.int64) for each in some]):
            ids = np.full(part.tokens + room, 77, dtype=np.int32)
            bounds = np.full(part.inputs + 1 + room, 78, dtype=np.int32)
            pack(ids, bounds, given_as, lengths[part.first : part.after], frame)
            made.append((ids.tolist(), bounds.tolist()))
        assert made[0] == made[1]
        ids, bounds = made[0]
        assert ids[part.tokens :] == [0] * room
        assert bounds[part.inputs :] == [part.tokens] * (1 + room)
        framed = [[*frame.before, *each, *frame.after] for each in some]
        assert [ids[start:end] for start, end in pairwise(bounds[: part.inputs + 1])] == framed
        assert part.longest == max(map(len, framed))
        seen = part.after
    assert seen == len(inputs)


def test_what_does_not_fit_one_pack_is_shared_out_evenly() -> None:
    lengths = np.full(2048, 66)
    assert [part.inputs for part in packs(lengths, most_tokens=131_072)] == [1024, 1024]
    assert [part.inputs for part in packs(lengths, most_tokens=2048 * 66)] == [2048]
    mixed = np.random.default_rng(0).integers(3, 257, 5000)
    sizes = [part.tokens for part in packs(mixed, most_tokens=50_000)]
    assert max(sizes) <= 50_000
    assert len(sizes) <= -(-int(mixed.sum()) // 50_000) + 1
