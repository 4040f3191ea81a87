"""The library stands alone: whoever attacks a model of their own needs neither Lightning nor lhotse nor W&B."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import robust_asr
from tests.command_line import ROOT

FORBIDDEN = (
    "lightning",
    "pytorch_lightning",
    "lightning_fabric",
    "lhotse",
    "wandb",
    "lightning_modules",
    "datamodules",
)


def test_library_imports_neither_training_nor_data() -> None:
    modules = [module.name for module in pkgutil.walk_packages(robust_asr.__path__, "robust_asr.")]
    assert "robust_asr.models.deepspeech2" in modules
    code = "\n".join(
        [
            "import importlib, sys",
            f"for name in {modules!r}:",
            "    importlib.import_module(name)",
            f"print(sorted({set(FORBIDDEN)!r} & sys.modules.keys()))",
        ]
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
