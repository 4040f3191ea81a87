"""Controls: the audio as it is, and noise that nobody aimed."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import robust_asr
from robust_asr.attacks.base import Attack
from robust_asr.attacks.noise import Clean, Gaussian, MatchedNoise, Uniform
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.threat import L2, SNR, Ball, Linf, Unbounded, power_snr
from robust_asr.threat.norms import euclidean, maximum
from robust_asr.types import AudioBatch
from tests.robust_asr.attacks.oracles import Linear, audio_batch, seeds_of

SIZES = (4000, 2400, 1)
BALLS = [Linf(0.01), L2(0.5), *(SNR(20.0, reading=reading) for reading in ("snr_l2", "snr_linf", "maxsnr_linf"))]
DISTRIBUTIONS = ("gaussian", "uniform", "signs")


def noise_of(attack: Attack, batch: AudioBatch) -> Tensor:
    result = attack(Linear(torch.ones(batch.waveforms.shape[1])), batch, seeds=seeds_of(batch))
    assert result.forwards.sum() == 0 and not any(result.notes)
    return result.batch.waveforms - batch.waveforms


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("threat", BALLS, ids=str)
def test_as_large_as_its_threat_model(threat: Ball, distribution: str) -> None:
    batch = audio_batch(SIZES)
    noise = noise_of(MatchedNoise(threat, distribution=distribution), batch)
    size = maximum(noise) if threat.norm == "linf" else euclidean(noise)
    torch.testing.assert_close(size, threat.radius(batch), rtol=1e-4, atol=1e-7)
    assert not noise[1, 2400:].any() and not noise[2, 1:].any()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.5)], ids=str)
def test_distributions(threat: Ball, distribution: str) -> None:
    noise = noise_of(MatchedNoise(threat, distribution=distribution), audio_batch((40_000,)))[0].double()
    scale = float(noise.std())
    assert abs(float(noise.mean())) < 4 * scale / 200
    # White: neighbours do not agree.
    assert abs(float((noise[1:] * noise[:-1]).mean())) < 4 * scale**2 / 200
    kurtosis = float((noise**4).mean()) / scale**4
    assert kurtosis == pytest.approx({"gaussian": 3, "uniform": 1.8, "signs": 1}[distribution], abs=0.15)
    if isinstance(threat, Linf):
        expected = {"gaussian": 0.01 / math.sqrt(2 * math.log(40_000)), "uniform": 0.01 / 3**0.5, "signs": 0.01}
        assert scale == pytest.approx(expected[distribution], rel=0.15)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_two_strengths_are_one_noise(distribution: str) -> None:
    batch = audio_batch(SIZES)
    small, large = (noise_of(MatchedNoise(Linf(eps), distribution=distribution), batch) for eps in (0.01, 0.02))
    torch.testing.assert_close(2 * small, large, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "attack",
    [
        MatchedNoise(SNR(20.0)),
        MatchedNoise(Linf(0.1), distribution="uniform"),
        Gaussian(sigma=0.1),
        Uniform(snr_db=10.0),
    ],
    ids=str,
)
def test_noise_does_not_depend_on_neighbours(attack: Attack) -> None:
    batch = audio_batch(SIZES)
    together = noise_of(attack, batch)
    for row, length in enumerate(SIZES):
        torch.testing.assert_close(noise_of(attack, batch.select([row]))[0], together[row, :length], rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", [Gaussian, Uniform])
def test_standard_deviation_and_snr(kind: type[Gaussian | Uniform]) -> None:
    batch = audio_batch((40_000, 30_000), level=0.05)
    noise = noise_of(kind(sigma=0.02), batch)
    for row, length in enumerate((40_000, 30_000)):
        # Four standard errors.
        assert float(noise[row, :length].std()) == pytest.approx(0.02, abs=4 * 0.02 / math.sqrt(2 * length))
    snr = power_snr(noise_of(kind(snr_db=15.0), batch), batch)
    assert snr.tolist() == pytest.approx([15.0, 15.0], abs=1e-3)


def test_silence() -> None:
    batch = audio_batch(SIZES)
    batch.waveforms[1] = 0
    assert not noise_of(Gaussian(snr_db=20.0), batch)[1].any()
    recognizer = Linear(torch.ones(4000))
    refused = MatchedNoise(SNR(20.0))(recognizer, batch, seeds=seeds_of(batch))
    assert (
        "silent" in refused.notes[1]
        and not refused.batch.waveforms[1].any()
        and refused.batch.waveforms.isfinite().all()
    )
    assert noise_of(MatchedNoise(Linf(0.01)), batch)[1].any()


def test_loud_audio_is_clamped() -> None:
    batch = audio_batch(SIZES, level=2.0)
    for attack in (MatchedNoise(Linf(0.5), distribution="signs"), MatchedNoise(L2(50.0)), Gaussian(sigma=0.5)):
        assert float((batch.waveforms + noise_of(attack, batch)).abs().max()) <= 1


def test_clean_is_clean() -> None:
    batch = audio_batch(SIZES)
    assert not noise_of(Clean(), batch).any()
    assert Clean().columns() == {"attack": "none", "norm": "", "strength": "", "strength_unit": "", "knowledge": ""}


def test_columns() -> None:
    assert MatchedNoise(SNR(20.0)).columns() == {
        "attack": "gaussian noise (no attack)",
        "norm": "SNR",
        "strength": 20.0,
        "strength_unit": "dB",
        "knowledge": "",
    }
    with (Path(robust_asr.__file__).parent / "results" / "paper_results" / "olivier2021_table1_noise_wer.csv").open(
        newline=""
    ) as file:
        printed = {(row["attack"], row["norm"], row["strength_unit"]) for row in csv.DictReader(file)}
    found = Gaussian(sigma=0.01).columns()
    assert printed == {(found["attack"], found["norm"], found["strength_unit"])}
    assert len({MatchedNoise(Linf(0.1), distribution=distribution).name for distribution in DISTRIBUTIONS}) == 3


def test_wrong_settings_are_refused() -> None:
    for kind, options, message in [
        (MatchedNoise, {"threat": Unbounded()}, "threat must be a ball"),
        (
            MatchedNoise,
            {"threat": Linf(0.1), "distribution": "pink"},
            "distribution must be one of gaussian, uniform, signs",
        ),
        (Gaussian, {}, "either sigma or snr_db"),
        (Gaussian, {"sigma": 0.1, "snr_db": 10.0}, "either sigma or snr_db"),
        (Uniform, {"sigma": 1.5}, "sigma must lie in"),
        (Uniform, {"snr_db": math.nan}, "snr_db must lie in"),
    ]:
        with pytest.raises(ValueError, match=message):
            kind(**options)


@pytest.mark.parametrize(
    "attack", [Clean(), Gaussian(sigma=0.1), Uniform(snr_db=3.0), MatchedNoise(L2(0.1), distribution="signs")], ids=str
)
def test_described_and_built_again(attack: Attack) -> None:
    assert trust.build(describe(attack), expected=Attack) == attack
