"""From cuts to waveforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import resample as reference

from datamodules.collate import Utterances, perturbed
from datamodules.manifest import Manifest
from datamodules.preparing.librispeech import prepare_corpus
from datamodules.resampling import at_speed, resample
from tests.datamodules.conftest import write_utterance


@pytest.mark.parametrize(
    ("old", "new"), [(8_000, 16_000), (44_100, 16_000), (22_050, 16_000), (9, 10), (11, 10), (1, 1)]
)
@pytest.mark.parametrize("size", [1, 320, 5_001])
def test_resampling_is_torchaudio_s(old: int, new: int, size: int):
    waveform = torch.randn(size, generator=torch.Generator().manual_seed(size)) / 10
    torch.testing.assert_close(resample(waveform, old, new), reference(waveform, old, new), atol=1e-5, rtol=0)


def test_resampling_moves_a_tone_and_keeps_the_range():
    tone = torch.sin(2 * torch.pi * 1_000 * torch.arange(8_000) / 8_000)
    upsampled = resample(tone, 8_000, 16_000)
    expected = torch.sin(2 * torch.pi * 1_000 * torch.arange(16_000) / 16_000)
    torch.testing.assert_close(upsampled[200:-200], expected[200:-200], atol=2e-2, rtol=0)
    assert resample(torch.sign(tone), 8_000, 16_000).abs().max() <= 1


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_speed_changes_length_and_pitch(speed: float):
    tone = torch.sin(2 * torch.pi * 1_000 * torch.arange(16_000) / 16_000)
    faster = at_speed(tone, speed)
    assert len(faster) == -(-16_000 * 100 // round(100 * speed))
    peak = torch.fft.rfft(faster).abs().argmax() * 16_000 / len(faster)
    assert float(peak) == pytest.approx(1_000 * speed, rel=1e-3)


def test_a_batch_holds_the_samples_of_the_files_padded_with_zeros(corpus: Path, manifests: Path):
    cuts = list(Manifest(manifests / "train.jsonl.gz"))[:5]
    batch = Utterances(sample_rate=16_000)[cuts]
    assert batch.waveforms.dtype == torch.float32 and batch.lengths.dtype == torch.int64
    assert batch.ids == tuple(cut.id for cut in cuts)
    assert batch.texts == tuple(cut.supervisions[0].text for cut in cuts)
    assert batch.waveforms.shape[1] == batch.lengths.max()
    for row, length, cut in zip(batch.waveforms, batch.lengths, cuts, strict=True):
        samples, _ = soundfile.read(cut.recording.sources[0].source, dtype="float32")
        np.testing.assert_array_equal(row[:length], samples)
        assert not row[length:].any()


def test_the_cache_changes_nothing_and_stops_at_its_size(manifests: Path):
    cuts = [perturbed(cut, speed) for cut in list(Manifest(manifests / "train.jsonl.gz"))[:6] for speed in (1.0, 0.9)]
    plain = Utterances(sample_rate=16_000)[cuts].waveforms
    for size in (0, 40_000, 10**9):
        utterances = Utterances(sample_rate=16_000, cache_bytes=size)
        first, second = utterances[cuts].waveforms, utterances[cuts].waveforms
        # What a user does to a batch must not reach the cache.
        first.mul_(0)
        torch.testing.assert_close(second, plain, rtol=0, atol=0)
        torch.testing.assert_close(utterances[cuts].waveforms, plain, rtol=0, atol=0)
        second.mul_(0)
        torch.testing.assert_close(utterances[cuts].waveforms, plain, rtol=0, atol=0)
        assert sum(kept.nbytes for kept in utterances._cache.values()) <= size
        assert bool(utterances._cache) == (size > 0)


def test_an_utterance_alone_does_not_share_memory_with_the_cache(manifests: Path):
    cut = perturbed(next(iter(Manifest(manifests / "train.jsonl.gz"))), 0.9)
    utterances = Utterances(sample_rate=16_000, cache_bytes=10**9)
    before = utterances[[cut]].waveforms.clone()
    utterances[[cut]].waveforms.mul_(0)
    utterances.waveform(cut).mul_(0)
    torch.testing.assert_close(utterances[[cut]].waveforms, before)


@pytest.mark.parametrize(("seconds", "rate"), [(0.02, 16_000), (40.0, 16_000), (0.02, 8_000), (1.0, 44_100)])
def test_any_length_and_rate_comes_at_the_rate_of_the_recogniser(seconds: float, rate: int, tmp_path: Path):
    write_utterance(tmp_path / "corpus", "dev", "1-1-0", "TEXT", seconds=seconds, rate=rate)
    prepare_corpus(tmp_path / "corpus", tmp_path / "out", num_jobs=1)
    (cut,) = Manifest(tmp_path / "out/dev.jsonl.gz").verified()
    batch = Utterances(sample_rate=16_000)[[cut]]
    assert batch.lengths.tolist() == [round(seconds * 16_000)]
    assert 0 < batch.waveforms.abs().max() <= 1


def test_a_bad_file_among_good_ones_is_named(corpus: Path, tmp_path: Path):
    for index in range(3):
        write_utterance(tmp_path / "corpus", "train", f"1-1-{index}", "TEXT", seconds=0.3)
    prepare_corpus(tmp_path / "corpus", tmp_path / "out", num_jobs=1)
    cuts = list(Manifest(tmp_path / "out/train.jsonl.gz").verified())
    path = Path(cuts[1].recording.sources[0].source)
    content = path.read_bytes()
    utterances = Utterances(sample_rate=16_000)
    path.write_bytes(content[:-1_000] + bytes(1_000))
    with pytest.raises(ValueError, match=rf"{path.name}: "):
        utterances[cuts]
    soundfile.write(path, np.zeros((4_800, 2)), 16_000)
    with pytest.raises(ValueError, match=rf"{path.name}: has 2 channels; mono is accepted"):
        utterances[cuts]
    soundfile.write(path, np.zeros(4_800), 8_000)
    with pytest.raises(ValueError, match=rf"{path.name}: has sampling_rate 8000, but 16000 is declared"):
        utterances[cuts]
    path.unlink()
    with pytest.raises(ValueError, match=rf"{path.name}: cannot be opened"):
        utterances[cuts]
    path.write_bytes(content)
    assert len(utterances[cuts]) == 3
