"""What a GPU does is measured where there is one; elsewhere that is said."""

import pytest

from tests.benchmarks.gpu_parts import main


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 1
    assert "no GPU" in capsys.readouterr().err
