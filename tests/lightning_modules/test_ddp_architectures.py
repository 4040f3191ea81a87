"""Two gloo processes train each architecture: every parameter takes part, and both end with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import train, write_config
from tests.lightning_modules.test_resume import settings

_MODELS = "robust_asr.models"
RECOGNIZERS = {
    "deepspeech": (f"{_MODELS}.deepspeech.DeepSpeech", {"num_hidden": 16}),
    "rnnt": (
        f"{_MODELS}.rnnt.RNNT",
        {
            "encoder": {
                "class_path": f"{_MODELS}.rnnt.LSTMEncoder",
                "init_args": {"num_mels": 20, "width": 16, "num_layers": 2, "dropout": 0.1},
            },
            "embedding_width": 8,
            "predictor_width": 16,
            "joint_width": 16,
        },
    ),
    "wav2vec2": (
        f"{_MODELS}.wav2vec2.Wav2Vec2",
        {
            "convolutions": [[8, 20, 10], [8, 8, 8], [8, 4, 4]],
            "width": 16,
            "num_layers": 2,
            "num_heads": 2,
            "feed_forward_width": 16,
            "position_kernel": 8,
            "position_groups": 4,
        },
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", RECOGNIZERS)
def test_two_processes_stay_in_sync(kind: str, tiny_manifests: Path, tmp_path: Path) -> None:
    recorder = {"class_path": "tests.callbacks.RecordWeights", "init_args": {"path": str(tmp_path / "weights")}}
    config = settings(tiny_manifests, tmp_path / "run", 2, 0, [recorder])
    class_path, init_args = RECOGNIZERS[kind]
    config["model"]["init_args"]["recognizer"] = {"class_path": class_path, "init_args": init_args}
    config["trainer"]["max_epochs"] = 1
    result = train("fit", "--config", write_config(tmp_path / "c.yaml", config), timeout=600)
    assert result.returncode == 0, result.stdout
    first, second = ((tmp_path / f"weights.{rank}").read_text() for rank in (0, 1))
    assert first == second != ""
