from pathlib import Path

import pytest

from gateway.alignment.probe_judging import Verdict
from gateway.alignment.probe_state import Outcome, StateFile

WHAT = {"model": "m", "sample": {"seed": 0, "kinds": ("plain",)}}
ONE = Outcome("pq_1", "An answer\nof two lines, \u2028 and more.", Verdict(True, False, 0.75, "hate"))
TWO = Outcome("pq_2", "", Verdict(False, True, 0.0, None, "model"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "probes" / "state.jsonl"


def test_what_was_kept_is_there_again(path: Path) -> None:
    with StateFile(path, WHAT) as state:
        state.add(ONE)
        state.add(TWO)
        assert dict(state.outcomes) == {"pq_1": ONE, "pq_2": TWO}
    with StateFile(path, WHAT) as state:
        assert dict(state.outcomes) == {"pq_1": ONE, "pq_2": TWO}


def test_only_its_owner_can_read_it(path: Path) -> None:
    with StateFile(path, WHAT):
        assert path.stat().st_mode & 0o077 == 0


def test_a_file_cut_anywhere_keeps_what_was_whole_and_goes_on(path: Path) -> None:
    with StateFile(path, WHAT) as state:
        state.add(ONE)
        state.add(TWO)
    whole = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    for cut in sorted({*range(0, len(whole), 7), *ends, *(end - 1 for end in ends)}):
        path.write_bytes(whole[:cut])
        with StateFile(path, WHAT) as state:
            kept = max(0, sum(end <= cut for end in ends) - 1)
            assert list(state.outcomes) == ["pq_1", "pq_2"][:kept]
            state.add(TWO)
        with StateFile(path, WHAT) as state:
            assert "pq_2" in state.outcomes


def test_a_file_of_another_probe_is_left_alone(path: Path) -> None:
    with StateFile(path, WHAT) as state:
        state.add(ONE)
    before = path.read_bytes()
    with (
        pytest.raises(ValueError, match="its model is 'm', and this one's 'other'"),
        StateFile(path, {**WHAT, "model": "other"}),
    ):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"hello\n", b"[]\n", b"7\n", b'{"format": "x"}\n'])
def test_a_file_that_is_no_probes_is_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="another"), StateFile(path, WHAT):
        pass
    assert path.read_bytes() == content


def test_a_damaged_answer_is_told_with_its_line(path: Path) -> None:
    with StateFile(path, WHAT) as state:
        state.add(ONE)
    with path.open("ab") as file:
        file.write(b'{"id": "pq_3"}\n')
    with pytest.raises(ValueError, match="line 3"), StateFile(path, WHAT):
        pass


def test_two_probes_never_write_one_file(path: Path) -> None:
    with StateFile(path, WHAT), pytest.raises(ValueError, match="another probe writes"), StateFile(path, WHAT):
        pass
    with StateFile(path, WHAT) as state:
        assert not state.outcomes
