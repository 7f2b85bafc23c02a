"""The adapter: what was trained on top of the frozen encoder, as files. (What computes with it: ``encoder_torch``.)

The encoder's own vector is a mean over its last layer, made for likeness of topic. What tells harm from its harmless
twin is in the lower layers too. So the adapter reads eight things of a text: the means of the last six layers' tokens,
and the maxima of the last one's and of the last but two, each scaled to length 1. Two linear maps with a GELU between
them turn these into the unit vector that a bank stores and compares. It costs next to nothing at inference, trains in
minutes on a CPU since the encoder itself runs once only (``training``), and is one file of at most 4 MB.

    adapter.safetensors   first.weight (h, 8 d), first.bias (h,), second.weight (o, h), second.bias (o,) as float16;
                          leaning.request and leaning.response (o + 1,) as float32, see ``leaning``;
                          wording.request and wording.response (2 ^ 17,) as int8, and for each its scale and bias (2,)
                          as float32 under ``.scale``; an adapter of before has none
    adapter.json          the card
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.errors import BankCorrupt, EncoderMismatch
from antiprompt_bank.leaning import BUCKETS, Leaning
from antiprompt_bank.model_files import file_sha256

WEIGHTS: Final = "adapter.safetensors"
CARD: Final = "adapter.json"
SHIPPED: Final = Path(__file__).parent / "adapter"
"""The adapter trained for release; its ``ADAPTER_CARD.md`` says on what."""

LAYERS: Final = 6
"""The last layers whose mean is read."""

MAXIMA: Final = (-1, -3)
"""Which of these layers' maximum is read too."""

BLOCKS: Final = LAYERS + len(MAXIMA)

_MATRICES: Final = ("first.weight", "first.bias", "second.weight", "second.bias")
_SIDES: Final = ("request", "response")


@dataclass(frozen=True, slots=True)
class AdapterCard:
    """What an adapter says of itself.

    ``base`` is the sha256 of the weights it was trained on top of: on others it means nothing. ``sets`` names the
    sources of the texts it learned from, with their number of rows and licences; ``settings`` what it was trained
    with, the seed among it; ``figures`` what was measured when it was made.
    """

    base: str
    dimensions: int
    sets: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter read from its folder.

    ``leaning`` has for each side the classifiers that were trained with it: how much a text leans to harm when it is
    near to nothing that the bank knows.
    """

    folder: Path
    sha256: str
    card: AdapterCard
    matrices: Mapping[str, NDArray[np.float16]]
    leaning: Mapping[str, Leaning]

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """Raises ``BankCorrupt`` when the folder holds no adapter, or a damaged one."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            card = AdapterCard(**json.loads((folder / CARD).read_text(encoding="utf-8")))
            found = load_file(folder / WEIGHTS)
            matrices = {name: found[name] for name in _MATRICES}
            leaning = {
                side: Leaning(found[f"leaning.{side}"].astype(np.float32), _wording(found, side)) for side in _SIDES
            }
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise BankCorrupt(f"{folder} holds no adapter that can be read: {error!r}") from error
        made = cls(folder, file_sha256(folder / WEIGHTS), card, matrices, leaning)
        made._check()
        return made

    def _check(self) -> None:
        hidden, features = self.matrices["first.weight"].shape
        shapes = {
            "first.bias": (hidden,),
            "second.weight": (self.card.dimensions, hidden),
            "second.bias": (self.card.dimensions,),
        }
        wrong = [name for name, shape in shapes.items() if self.matrices[name].shape != shape]
        for side, leaning in self.leaning.items():
            wrong += [f"leaning.{side}"] * (leaning.direction.shape != (self.card.dimensions + 1,))
            wrong += [f"wording.{side}"] * (leaning.wording is not None and leaning.wording.shape != (BUCKETS + 1,))
        if wrong or features % BLOCKS:
            raise BankCorrupt(f"{self.folder / WEIGHTS} does not fit together: {wrong[0] if wrong else 'first.weight'}")

    def check_base(self, weights_sha256: str) -> None:
        """Raises ``EncoderMismatch`` when the adapter was trained on top of other weights than these."""
        if self.card.base != weights_sha256:
            raise EncoderMismatch(
                f"the adapter in {self.folder} belongs to weights {self.card.base[:12]}, not {weights_sha256[:12]}: "
                "train one for this model with `antiprompt train encoder`, or set bank.adapter to none"
            )

    def copy_to(self, folder: Path) -> None:
        for name in (WEIGHTS, CARD):
            shutil.copyfile(self.folder / name, folder / name)


def leaning_of(folder: Path, adapter_sha256: str | None) -> Mapping[str, Leaning]:
    """The classifiers of the adapter that lies in an exported folder; empty where its card names none.

    Raises ``BankCorrupt`` when the adapter there is another than the card's.
    """
    if adapter_sha256 is None:
        return {}
    found = Adapter.read(folder)
    if found.sha256 != adapter_sha256:
        raise BankCorrupt(f"{folder / WEIGHTS} has sha256 {found.sha256}, but the card states {adapter_sha256}")
    return found.leaning


def write_adapter(
    folder: Path,
    card: AdapterCard,
    matrices: Mapping[str, NDArray[np.float32]],
    leaning: Mapping[str, Leaning],
) -> Adapter:
    """Write an adapter into a folder (made if need be) and read it back.

    Matrices are rounded to float16, weights of wording to 8 bits.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(matrices[name], dtype=np.float16) for name in _MATRICES}
    for side in _SIDES:
        arrays[f"leaning.{side}"] = np.ascontiguousarray(leaning[side].direction, dtype=np.float32)
        wording = leaning[side].wording
        if wording is not None:
            scale = max(float(np.abs(wording[:-1]).max()), 1e-9) / 127
            arrays[f"wording.{side}"] = np.rint(wording[:-1] / scale).astype(np.int8)
            arrays[f"wording.{side}.scale"] = np.array([scale, wording[-1]], dtype=np.float32)
    save_file(arrays, folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps(asdict(card), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return Adapter.read(folder)


def _wording(found: Mapping[str, NDArray[Any]], side: str) -> NDArray[np.float32] | None:
    if f"wording.{side}" not in found:
        return None
    scale, bias = found[f"wording.{side}.scale"].astype(np.float32)
    return np.append(found[f"wording.{side}"].astype(np.float32) * scale, bias)
