"""The manifests that benchmarks use: a given corpus in LibriSpeech layout, or by default the embedded corpus."""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path

import torch

from datamodules import Speech, prepare
from robust_asr.types import AudioBatch


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--corpus", type=Path, help="LibriSpeech-layout folder; default: the embedded corpus, made anew"
    )
    parser.add_argument("--part", default="train")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser


def manifests(corpus: Path | None, part: str) -> str:
    """Make the manifests in a temporary folder and return the folder."""
    folder = tempfile.mkdtemp()
    if corpus is None:
        prepare.main(["synthetic", folder, "--num-utterances", "400"])
    else:
        prepare.main(["librispeech", str(corpus), folder, "--parts", part])
    return folder


def one_batch(manifests: str, part: str, num: int) -> AudioBatch:
    """``num`` utterances of a part in one batch, in the order of their length."""
    data = Speech(manifests=manifests, test=[part], eval_utterances=num)
    data.setup("test")
    picked = sorted(
        (
            (batch.waveforms[row, : batch.lengths[row]], batch.texts[row], batch.ids[row])
            for batch in data.test_dataloader()[0]
            for row in range(len(batch))
        ),
        key=lambda utterance: (len(utterance[0]), utterance[2]),
    )
    waveforms, texts, ids = zip(*picked, strict=True)
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    return AudioBatch(padded, torch.tensor([len(waveform) for waveform in waveforms]), texts, ids)


def hardware() -> str:
    """A line for the README that describes this machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
