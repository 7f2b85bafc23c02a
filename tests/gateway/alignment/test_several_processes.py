"""Two processes train one model, as several GPUs do under ``torchrun`` or ``accelerate launch --multi_gpu``."""

import json
import subprocess
import sys
from pathlib import Path

from tests.gateway.alignment.shared_training import STOPS_AT


def test_each_takes_its_share_and_the_first_one_measures_and_writes(tmp_path: Path) -> None:
    """Over gloo, on the CPU: equal weights from different batches, and all stop where the first one says."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    run = subprocess.run(
        [*command, "tests.gateway.alignment.shared_training", str(tmp_path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["processes"] == second["processes"] == 2
    assert first["weights"] == second["weights"]
    assert len(first["losses"]) == len(second["losses"]) == STOPS_AT
    assert all(one != other for one, other in zip(first["losses"], second["losses"], strict=True))
    assert first["measured"] == second["measured"]
    assert {each["by"] for each in second["measured"]} == {0}
    assert first["stopped_at"] == second["stopped_at"] == STOPS_AT
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"checkpoint-{STOPS_AT}"]
