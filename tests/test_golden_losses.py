"""The first losses of each recipe family, against the stored ones: a change of objective, data order or model shows here first.

``python -m tests.test_golden_losses`` writes them again, after a change that was meant.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from datamodules.prepare import main as prepare
from lightning_modules.command_line.cli import main
from robust_asr import checkpoint
from robust_asr.models.compact import CompactCTC
from tests.command_line import ROOT, curve
from tests.corpus import write_corpus
from tests.test_recipes import SMALL, small

GOLDEN = Path(__file__).with_name("golden_losses.json")
# Name -> recipe and the values given to it.
FAMILIES = {
    "an4/baseline": ("an4/baseline", ()),
    "an4/augmented_0.02": ("an4/augmented", ("--value=level=0.02", "--value=sigma=0.0107")),
    "an4/rsaug": ("an4/rsaug", ()),
    "olivier2021/deepspeech2": ("olivier2021/deepspeech2", ()),
    "quickstart/hardened": ("quickstart/hardened", ()),
}
NUM_STEPS = 4


def losses(family: str, folder: Path, manifests: Path) -> list[float]:
    """Training losses of the first steps of a recipe, at small sizes."""
    torch.manual_seed(0)
    clean = folder / "clean.ckpt"
    checkpoint.save(CompactCTC(**SMALL["CompactCTC"]), str(clean))
    name, values = FAMILIES[family]
    recipe = ROOT / "recipes" / f"{name}.yaml"
    arguments = [one for one in small(recipe, manifests=manifests, clean=clean) if "fast_dev_run" not in one]
    run = folder / family.replace("/", "-")
    steps = ["--trainer.max_epochs=1", f"--trainer.limit_train_batches={NUM_STEPS}", "--trainer.log_every_n_steps=1"]
    quiet = ["--trainer.enable_progress_bar=false", "--data.init_args.max_duration=8", "--trainer.limit_val_batches=0"]
    arguments += values
    main(
        ["fit", "--config", str(recipe), *arguments, *steps, *quiet, "--run_dir", str(run), "--checkpoint.monitor=null"]
    )
    return [round(float(row["train/loss"]), 4) for row in curve(run) if row.get("train/loss")]


@pytest.mark.parametrize("family", FAMILIES)
def test_first_losses(family: str, tiny_manifests: Path, tmp_path: Path) -> None:
    expected = json.loads(GOLDEN.read_text())[family]
    # Instructions from SSE4 to AVX-512, and weights off by a millionth at the start and after each step, move them by 1e-6 of
    # themselves at most; a learning rate higher by a tenth moves the last one by 3e-5 (hardened) to 5e-4 (deepspeech2).
    assert losses(family, tmp_path, tiny_manifests) == pytest.approx(expected, rel=1e-5)


def write() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = write_corpus(folder / "corpus", {"train": 40, "dev": 10})
        prepare(["librispeech", str(corpus), str(folder / "manifests")])
        found = {family: losses(family, folder, folder / "manifests") for family in FAMILIES}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(write())
