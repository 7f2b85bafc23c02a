from dataclasses import replace
from pathlib import Path

import pytest

from gateway.alignment.reviewed import Reviewed, Standing, read_reviewed, write_rows
from tests.gateway.alignment.reviewing import ALL, BLEACH, CLEAN, FALSE_ALARM, REQUEST, WAITING


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", (row.to_json() for row in ALL))
    assert read_reviewed(tmp_path / "rows.jsonl") == list(ALL)


def test_only_what_a_person_stands_behind_is_good_and_only_what_one_confirmed_is_bad() -> None:
    assert BLEACH.good_answers == (BLEACH.corrected,)
    assert BLEACH.bad_answer == BLEACH.answer
    assert FALSE_ALARM.good_answers == (FALSE_ALARM.answer,)
    assert FALSE_ALARM.bad_answer is None
    assert WAITING.good_answers == ()
    assert WAITING.bad_answer is None
    assert REQUEST.good_answers == ()
    assert REQUEST.bad_answer is None
    assert CLEAN.good_answers == ("Jupiter is.",)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "line 1"),
        (b"[]", "not a JSON object"),
        (b'{"flag_id": "a", "standing": "clean"}', "prompt is missing"),
        (b'{"flag_id": "a", "standing": "sure", "prompt": "b"}', "sure"),
        (b'{"flag_id": "a", "standing": "clean", "prompt": "b", "colour": "red"}', "colour"),
        (b'{"flag_id": "a", "standing": "clean", "prompt": 3}', "prompt has the wrong type"),
        (b'{"flag_id": "a", "standing": "confirmed", "prompt": "b"}', "needs a hazard"),
        (b'{"flag_id": "a", "standing": "clean", "prompt": "b", "hazard": "rain"}', "rain"),
    ],
)
def test_a_row_that_cannot_be_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(line)
    with pytest.raises(ValueError, match=says):
        read_reviewed(tmp_path / "rows.jsonl")


def test_a_correction_belongs_to_a_confirmed_flag() -> None:
    with pytest.raises(ValueError, match="confirmed"):
        replace(FALSE_ALARM, corrected="better")
    assert Standing.PENDING.may_be_bad
    assert not Standing.DISMISSED.may_be_bad
    assert isinstance(BLEACH, Reviewed)
