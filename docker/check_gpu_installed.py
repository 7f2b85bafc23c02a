"""Exit status 1 where an image for GPUs would only fail in production: torch without CUDA, or the wrong FAISS.

Both builds of FAISS have one import name, so installed together one silently hides the other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import distributions


def problems(names: Iterable[str], torch_cuda: str | None) -> list[str]:
    """What is wrong with these installed distributions and the CUDA version that torch was built with (None: none)."""
    found = []
    builds = sorted(name for name in names if name.startswith("faiss"))
    if builds != ["faiss-gpu"]:
        found.append(f"exactly faiss-gpu must be installed, not {', '.join(builds) or 'nothing'}")
    if torch_cuda is None:
        found.append("torch came without CUDA; see where PIP_FIND_LINKS and PIP_EXTRA_INDEX_URL lead")
    return found


def main() -> None:
    import torch

    names = (distribution.metadata["Name"] for distribution in distributions())
    if wrong := problems(names, torch.version.cuda):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
