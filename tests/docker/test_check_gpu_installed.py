"""An image for GPUs is not built with a torch that has no CUDA, or with another FAISS than the one for GPUs."""

from __future__ import annotations

import pytest

from tests.docker.scripts import script

CHECK = script("check_gpu_installed")


def test_the_right_ones_pass() -> None:
    assert CHECK.problems(["torch", "faiss-gpu", "numpy"], "13.0") == []


@pytest.mark.parametrize(
    "names", [["torch"], ["torch", "faiss-cpu"], ["torch", "faiss-cpu", "faiss-gpu"], ["torch", "faiss-gpu-cuvs"]]
)
def test_another_faiss_a_second_one_or_none_is_a_problem(names: list[str]) -> None:
    (problem,) = CHECK.problems(names, "13.0")
    assert "exactly faiss-gpu" in problem


def test_a_torch_without_cuda_is_a_problem() -> None:
    (problem,) = CHECK.problems(["torch", "faiss-gpu"], None)
    assert "without CUDA" in problem
