from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiprompt_bank.padding import Frame, fill, lengths_of, padded

BERT = Frame((101,), (102,), 256)

frames = st.builds(
    Frame,
    st.lists(st.integers(1, 9), max_size=2).map(tuple),
    st.lists(st.integers(1, 9), max_size=2).map(tuple),
    st.just(64),
)


@settings(deadline=None)
@given(
    frames,
    st.lists(st.lists(st.integers(10, 30_000), max_size=60), max_size=30),
    st.sampled_from([1, 200, 5000, 100_000]),
)
def test_every_input_comes_once_between_its_special_tokens(frame: Frame, inputs: list[list[int]], most: int) -> None:
    lengths = lengths_of(inputs, frame)
    seen = []
    for group in padded(lengths, frame, most_tokens=most):
        ids = np.full((len(group.places), group.width), 77, dtype=np.int64)
        fill(ids, inputs, group, frame)
        again = np.full_like(ids, 78)
        fill(again, [np.array(each, dtype=np.int32) for each in inputs], group, frame)
        assert (again == ids).all()
        assert len(group.places) == 1 or ids.size <= most
        assert group.width <= frame.most_tokens
        for row, place in zip(ids.tolist(), group.places.tolist(), strict=True):
            own = [*frame.before, *inputs[place], *frame.after]
            assert row == own + [0] * (group.width - len(own))
        seen += group.places.tolist()
    assert sorted(seen) == list(range(len(inputs)))


def test_many_inputs_are_hardly_padded_and_few_share_one_pass() -> None:
    lengths = np.random.default_rng(0).integers(4, 257, 20_000)
    groups = list(padded(lengths, BERT, most_tokens=16_384))
    assert sum(len(group.places) * group.width for group in groups) < 1.15 * lengths.sum()
    assert len({group.width for group in groups}) <= 17
    assert len(list(padded(lengths[:16], BERT, most_tokens=16_384))) == 1


def test_an_input_that_the_model_cannot_read_whole_is_refused() -> None:
    assert lengths_of([[1] * 254, []], BERT).tolist() == [256, 2]
    with pytest.raises(ValueError, match="257 tokens, but the encoder reads 256"):
        lengths_of([[1] * 255], BERT)
