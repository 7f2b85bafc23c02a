import pytest

from gateway.redis_keys import CASE_BY_COMPLETION, FLAG, TABLE


def test_every_key_is_named_once_and_under_the_prefix() -> None:
    patterns = [key.pattern for key in TABLE]
    assert len(set(patterns)) == len(patterns)
    assert FLAG in TABLE
    assert all(pattern.startswith("antiprompt:") for pattern in patterns)


def test_a_key_is_filled_in_and_needs_all_its_parts() -> None:
    assert FLAG("flag_1") == "antiprompt:{flags}:flag:flag_1"
    with pytest.raises(TypeError):
        CASE_BY_COMPLETION("acme")


def test_every_key_says_what_it_holds_and_how_long() -> None:
    assert all(key.meaning and key.lifetime for key in TABLE)
