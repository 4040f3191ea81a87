"""Two gloo processes train each architecture: every parameter takes part, and both end with the same weights."""

from __future__ import annotations

from collections.abc import Callable
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
    "transformer": (
        f"{_MODELS}.transformer.Transformer",
        {
            "encoder": {
                "class_path": f"{_MODELS}.transformer.TransformerEncoder",
                "init_args": {
                    "num_mels": 20,
                    "subsampling_channels": 4,
                    "width": 16,
                    "num_layers": 2,
                    "num_heads": 2,
                    "feed_forward_width": 16,
                },
            },
            "num_layers": 1,
            "num_heads": 2,
            "feed_forward_width": 16,
            "ctc_weight": 0.3,
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
    class_path, init_args = RECOGNIZERS[kind]
    recognizer = {"class_path": class_path, "init_args": init_args}
    _train_in_sync(tiny_manifests, tmp_path, lambda config: config["model"]["init_args"].update(recognizer=recognizer))


@pytest.mark.long
def test_a_language_model_stays_in_sync(tiny_manifests: Path, tmp_path: Path) -> None:
    network = {"LanguageModel": {"width": 16, "num_layers": 2, "dropout": 0.2}}

    def of_texts(config: dict) -> None:
        config["model"] = {"LanguageModelTraining": {"language_model": network, "lr_interval": "step"}}
        config["data"]["class_path"] = "datamodules.Transcripts"
        config["checkpoint"] = {"monitor": "val/perplexity"}

    _train_in_sync(tiny_manifests, tmp_path, of_texts)


def _train_in_sync(manifests: Path, folder: Path, change: Callable[[dict], None]) -> None:
    recorder = {"class_path": "tests.callbacks.RecordWeights", "init_args": {"path": str(folder / "weights")}}
    config = settings(manifests, folder / "run", 2, 0, [recorder])
    change(config)
    config["trainer"]["max_epochs"] = 1
    result = train("fit", "--config", write_config(folder / "c.yaml", config), timeout=600)
    assert result.returncode == 0, result.stdout
    first, second = ((folder / f"weights.{rank}").read_text() for rank in (0, 1))
    assert first == second != ""
