"""Every format, read by those it is written for: ``datasets``, and the preparation of TRL's own trainers."""

from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from gateway.alignment.adapters import LoraShape
from gateway.alignment.data_set import ExportOptions, export
from gateway.alignment.formats import Format, Options
from gateway.alignment.inoculation_prompts import default_prompts
from gateway.alignment.language_model import TINY, load_language_model, with_adapter
from tests.gateway.alignment.reviewing import ALL, many
from tests.gateway.alignment.tiny import draw_one  # noqa: F401  # one thread

pytestmark = pytest.mark.filterwarnings(  # of TRL and what it uses, about each other
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"
)

TRAINERS: dict[Format, tuple[Any, Any]] = {
    Format.OPENAI_SFT: (SFTTrainer, SFTConfig),
    Format.TRL_SFT: (SFTTrainer, SFTConfig),
    Format.INOCULATION: (SFTTrainer, SFTConfig),
    Format.TRL_DPO: (DPOTrainer, DPOConfig),
    Format.TRL_KTO: (KTOTrainer, KTOConfig),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[Format, Path]:
    found = {}
    for format in Format:
        found[format] = tmp_path_factory.mktemp(format.name)
        export(
            [*many(12), *ALL], found[format], ExportOptions(format=format, row_options=Options(default_prompts())), {}
        )
    return found


def loaded(folder: Path, cache: Path) -> Any:
    return load_dataset("json", data_files=str(folder / "train.jsonl"), split="train", cache_dir=str(cache))


@pytest.mark.parametrize("format", list(Format))
def test_datasets_reads_every_row(format: Format, exported: dict[Format, Path], tmp_path: Path) -> None:
    rows = loaded(exported[format], tmp_path)
    assert len(rows) == len((exported[format] / "train.jsonl").read_bytes().splitlines())


@pytest.mark.parametrize("format", list(TRAINERS))
def test_trl_prepares_every_row(format: Format, exported: dict[Format, Path], tmp_path: Path) -> None:
    trainer, config = TRAINERS[format]
    model = with_adapter(load_language_model(TINY, max_tokens=512, seed=0), LoraShape(2, 4), seed=0)
    rows = loaded(exported[format], tmp_path / "cache")
    prepared = trainer(
        model=model.model,
        args=config(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_length=512),
        train_dataset=rows,
        processing_class=model.tokenizer,
    ).train_dataset
    assert len(prepared) == len(rows)
    tokens = [name for name in prepared.column_names if name.endswith("ids")]
    assert tokens
    assert all(row[name] for name in tokens for row in prepared)
