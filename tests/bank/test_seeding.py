from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import antiprompt_bank
from antiprompt_bank import Bank, BankCorrupt, BankNotFound, BankStore, seeding

REPOSITORY = Path(__file__).parents[2]


def small_seed(folder: Path, monkeypatch: pytest.MonkeyPatch, exemplars: list[antiprompt_bank.Antiprompt]) -> Path:
    """A seed of a few rows in place of the real one."""
    (folder / "seed").mkdir()
    file = folder / "seed" / "requests_some.jsonl"
    file.write_text("".join(json.dumps(record.to_json()) + "\n" for record in exemplars[:4]), encoding="utf-8")
    monkeypatch.setattr(seeding, "_SEED", folder / "seed")
    return file


@pytest.fixture
def cache(tmp_path: Path, bank_cache: Path, seed_bank: Bank) -> Path:
    """A cache of its own, with the exported encoder in it already."""
    (tmp_path / "cache" / "encoders").mkdir(parents=True)
    for exported in (bank_cache / "encoders").iterdir():
        target = tmp_path / "cache" / "encoders" / exported.name
        target.mkdir()
        for file in exported.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    return tmp_path / "cache"


def test_the_seed_bank_is_built_once_and_changes_with_the_seed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exemplars: list[antiprompt_bank.Antiprompt]
) -> None:
    file = small_seed(tmp_path, monkeypatch, exemplars)
    first = antiprompt_bank.load(cache_dir=cache, device="cpu")
    assert len(first) == 4
    assert antiprompt_bank.load(cache_dir=cache, device="cpu").version == first.version
    file.write_text(file.read_text(encoding="utf-8").split("\n", 1)[0], encoding="utf-8")
    assert len(antiprompt_bank.load(cache_dir=cache, device="cpu")) == 1


def test_callers_at_the_same_time_build_one_bank(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exemplars: list[antiprompt_bank.Antiprompt]
) -> None:
    small_seed(tmp_path, monkeypatch, exemplars)
    found: list[str] = []
    callers = [
        threading.Thread(target=lambda: found.append(antiprompt_bank.load(cache_dir=cache, device="cpu").version))
        for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 3
    assert len(set(found)) == 1


def test_a_damaged_cache_is_made_again(
    cache: Path,
    seed_bank: Bank,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exemplars: list[antiprompt_bank.Antiprompt],
) -> None:
    small_seed(tmp_path, monkeypatch, exemplars)
    version = antiprompt_bank.load(cache_dir=cache, device="cpu").version
    (vectors,) = cache.glob("seed/*/versions/*/vectors.npy")
    vectors.write_bytes(b"damaged")
    exported: list[Path] = []

    def export(folder: Path, model: str, *, adapter: Path | None) -> Path:  # the real one takes seconds
        exported.append(folder)
        return Path(shutil.copytree(seed_bank.encoder.folder, folder))

    monkeypatch.setattr(seeding, "export_encoder", export)
    again = antiprompt_bank.load(cache_dir=cache, device="cpu")
    assert again.version[-12:] == version[-12:]
    assert len(exported) == 1  # its files may be the damaged ones: they are shared


def test_a_bank_of_ones_own_is_loaded_from_its_folder(tmp_path: Path, small_bank: Bank) -> None:
    store = BankStore(tmp_path / "bank")
    store.publish(store.save(small_bank))
    assert antiprompt_bank.load(tmp_path / "bank", device="cpu").version == small_bank.version
    assert antiprompt_bank.load(str(tmp_path / "bank"), version=small_bank.version, device="cpu").records
    with pytest.raises(BankNotFound):
        antiprompt_bank.load(tmp_path / "nothing", device="cpu")


def test_a_seed_that_cannot_be_read_is_named_by_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exemplars: list[antiprompt_bank.Antiprompt]
) -> None:
    file = small_seed(tmp_path, monkeypatch, exemplars)
    file.write_text(file.read_text(encoding="utf-8") + '{"text": "x"}\n', encoding="utf-8")
    with pytest.raises(BankCorrupt, match=r"requests_some\.jsonl, line 5"):
        antiprompt_bank.seed_records()


def test_loading_and_scoring_a_cached_bank_loads_no_torch(seed_bank: Bank, bank_cache: Path) -> None:
    program = (
        "import sys, antiprompt_bank;"
        "bank = antiprompt_bank.load(cache_dir=sys.argv[1], device='cpu');"
        "bank.score(['hello'], side='request');"
        "sys.exit('torch' in sys.modules or 'sentence_transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(bank_cache)], check=True, cwd=REPOSITORY)
