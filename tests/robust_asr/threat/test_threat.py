"""Every bound against plain NumPy, on what is stored: after x + d has been formed in float32."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.audio import signal_noise_ratio

import robust_asr
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.threat import L2, SNR, Ball, Linf, ThreatModel, Unbounded, peak_snr, power_snr
from robust_asr.threat.norms import project_l2, project_linf, scaled_to, steepest
from robust_asr.types import AudioBatch
from tests.robust_asr.attacks.oracles import audio_batch, seeds_of

READINGS = ("snr_l2", "snr_linf", "maxsnr_linf")
BALLS = [
    *(Linf(eps) for eps in (1e-5, 1e-3, 0.2)),
    *(L2(eps) for eps in (1e-3, 0.5, 50.0)),
    *(SNR(level, reading=reading) for reading in READINGS for level in (-10.0, 20.0, 60.0)),
]
# 100 %, 60 %, one sample.
LENGTHS = (1000, 600, 1)


def norms(delta: Tensor, batch: AudioBatch, norm: str) -> list[float]:
    rows = [row[:length].double().numpy() for row, length in zip(delta, batch.lengths.tolist(), strict=True)]
    return [float(np.abs(row).max() if norm == "linf" else np.sqrt((row**2).sum())) for row in rows]


def step(batch: AudioBatch, *, size: float = 1.0, seed: int = 7) -> Tensor:
    """An unmasked, far too large perturbation."""
    return size * torch.randn(batch.waveforms.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("threat", BALLS, ids=str)
@pytest.mark.parametrize("level", [0.1, 0.9])
def test_what_is_stored_obeys_the_bound(threat: Ball, level: float) -> None:
    batch = audio_batch(LENGTHS, level=level)
    radius = threat.radius(batch).tolist()
    for delta in (step(batch), step(batch, size=1e-6), threat.random(batch, seeds_of(batch))):
        stored = batch.waveforms + threat.project(delta, batch)
        found = norms(stored.double() - batch.waveforms.double(), batch, threat.norm)
        assert all(size <= bound * (1 + 1e-6) + 1e-7 for size, bound in zip(found, radius, strict=True))
        assert float(stored.abs().max()) <= 1
        assert not stored[1, 600:].any() and not stored[2, 1:].any()
        assert threat.contains(stored, batch).all()


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("level", [10.0, 20.0, 35.0, 50.0])
def test_snr_is_kept_in_a_padded_batch(reading: str, level: float) -> None:
    batch, threat = audio_batch(LENGTHS), SNR(level, reading=reading)
    stored = batch.waveforms + threat.project(step(batch).sign(), batch)
    assert (threat.size(stored - batch.waveforms, batch) >= level - 1e-3).all()
    if reading != "maxsnr_linf":
        clean, noise = norms(batch.waveforms, batch, "l2"), norms(stored - batch.waveforms, batch, "l2")
        snr = [20 * math.log10(signal / error) for signal, error in zip(clean, noise, strict=True)]
        # Reached with equality: all samples pull equally, and nothing is clamped.
        assert snr == pytest.approx([level] * 3, abs=1e-3)


def test_radii_of_the_snr_readings() -> None:
    # Ten seconds at rms 0.06, as worked out by hand from ||x|| = 0.06 * 400 = 24.
    waveforms = torch.full((1, 160_000), 0.06)
    waveforms[:, ::2] *= -1
    batch = AudioBatch(waveforms, torch.tensor([160_000]), ("",), ("a",))
    for level, l2, linf in [(35, 0.427, 0.00107), (30, 0.759, 0.0019), (20, 2.4, 0.006), (10, 7.59, 0.019)]:
        assert float(SNR(level).radius(batch)) == pytest.approx(l2, rel=2e-3)
        for reading in ("snr_linf", "maxsnr_linf"):
            assert float(SNR(level, reading=reading).radius(batch)) == pytest.approx(linf, rel=4e-3)


@pytest.mark.parametrize("threat", BALLS, ids=str)
def test_radius_does_not_depend_on_neighbours_or_padding(threat: Ball) -> None:
    batch = audio_batch(LENGTHS)
    alone = [threat.radius(batch.select([row])) for row in range(3)]
    assert torch.equal(torch.cat(alone), threat.radius(batch))


@pytest.mark.parametrize("threat", BALLS, ids=str)
def test_projection_is_idempotent_and_leaves_what_is_allowed(threat: Ball) -> None:
    batch = audio_batch(LENGTHS)
    once = threat.project(step(batch), batch)
    torch.testing.assert_close(threat.project(once, batch), once, rtol=1e-6, atol=0)
    assert torch.equal(threat.project(0.5 * once, batch), 0.5 * once)


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.1), SNR(20.0), Unbounded()], ids=str)
def test_padding_cannot_weigh_in(threat: ThreatModel) -> None:
    batch = audio_batch(LENGTHS)
    clean = step(batch)
    dirty = clean.clone()
    dirty[1, 600:], dirty[2, 1:] = torch.nan, 1e9
    assert torch.equal(threat.project(dirty, batch)[0], threat.project(clean, batch)[0])
    for row, length in ((1, 600), (2, 1)):
        one = batch.select([row])
        assert torch.equal(threat.project(dirty, batch)[row, :length], threat.project(clean[[row], :length], one)[0])
    assert torch.equal(threat.size(dirty, batch), threat.size(clean, batch))
    if isinstance(threat, Ball):
        inside = threat.region(batch).project_(clean.clone())
        assert not inside[1, 600:].any() and not inside[2, 1:].any()


def test_a_bound_that_is_broken_is_seen() -> None:
    batch = audio_batch(LENGTHS)
    for threat in BALLS:
        delta = scaled_to(torch.ones_like(batch.waveforms), threat.radius(batch) * 1.01 + 3e-7, norm=threat.norm)
        delta[1, 600:], delta[2, 1:] = 0, 0
        stored = (batch.waveforms + delta).clamp(-1, 1)
        larger = torch.tensor(norms(stored.double() - batch.waveforms.double(), batch, threat.norm))
        assert torch.equal(threat.contains(stored, batch), larger <= threat.radius(batch) * 1.001), threat
    for bad in (1.0001, math.nan, math.inf):
        stored = batch.waveforms.clone()
        stored[0, 5] = bad
        assert Unbounded().contains(stored, batch).tolist() == [False, True, True]
        assert Linf(1.0).contains(stored, batch).tolist() == [False, True, True]
    stored = batch.waveforms.clone()
    stored[1, 600] = 1e-9
    assert L2(1.0).contains(stored, batch).tolist() == [True, False, True]


def test_rounding_room_is_no_more_than_rounding() -> None:
    batch = audio_batch(LENGTHS)
    stored = (batch.waveforms.double() + 1e-3 + 2e-7).float()
    stored[1, 600:], stored[2, 1:] = 0, 0
    assert not Linf(1e-3).contains(stored, batch).any()
    assert Linf(1e-3 + 2e-7).contains(stored, batch).all()


def test_nothing_allowed_is_nothing_changed() -> None:
    batch = audio_batch(LENGTHS)
    for threat in (Linf(0.0), L2(0.0)):
        for delta in (step(batch), torch.zeros_like(batch.waveforms), threat.random(batch, seeds_of(batch))):
            assert torch.equal(batch.waveforms + threat.project(delta, batch), batch.waveforms)
        assert threat.size(torch.zeros_like(batch.waveforms), batch).tolist() == [0, 0, 0]
    assert SNR(20.0).size(torch.zeros_like(batch.waveforms), batch).isinf().all()


@given(st.integers(0, 10_000))
def test_the_whole_box_stays_in_the_box(seed: int) -> None:
    values = torch.rand(1, 4000, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    batch = AudioBatch(values, torch.tensor([4000]), ("",), ("a",))
    for threat in (Linf(1.0), L2(1e6), SNR(-20.0), SNR(-20.0, reading="snr_linf")):
        for sign in (-10.0, 10.0):
            stored = batch.waveforms + threat.project(torch.full_like(values, sign), batch)
            assert float(stored.abs().max()) <= 1 and threat.contains(stored, batch).all()


@pytest.mark.parametrize("reading", READINGS)
def test_silence_has_no_snr(reading: str) -> None:
    batch = audio_batch(LENGTHS)
    batch.waveforms[1] = 0
    threat = SNR(20.0, reading=reading)
    assert threat.defined(batch).tolist() == [True, False, True]
    for delta in (step(batch), threat.random(batch, seeds_of(batch))):
        projected = threat.project(delta, batch)
        assert projected.isfinite().all() and projected[0].any() and not projected[1].any()
    assert Linf(0.1).defined(batch).all() and Unbounded().defined(batch).all()


def test_sizes_in_their_units() -> None:
    batch = audio_batch(LENGTHS)
    delta = 0.01 * step(batch)
    maxima, euclidean = norms(delta, batch, "linf"), norms(delta, batch, "l2")
    peaks, signals = norms(batch.waveforms, batch, "linf"), norms(batch.waveforms, batch, "l2")
    snr = [20 * math.log10(signal / noise) for signal, noise in zip(signals, euclidean, strict=True)]
    ratio = [20 * math.log10(signal / noise) for signal, noise in zip(peaks, maxima, strict=True)]
    for threat, expected in [
        (Linf(0.1), maxima),
        (L2(1.0), euclidean),
        (Unbounded(), euclidean),
        (SNR(20.0), snr),
        (SNR(20.0, reading="snr_linf"), snr),
        (SNR(20.0, reading="maxsnr_linf"), ratio),
    ]:
        assert threat.size(delta, batch).tolist() == pytest.approx(expected, rel=1e-9)
    assert power_snr(delta, batch).tolist() == pytest.approx(snr) and peak_snr(delta, batch).tolist() == pytest.approx(
        ratio
    )


def test_snr_is_that_of_torchmetrics_and_not_a_rounded_ratio_of_peaks() -> None:
    # Defect 5 of other systems: a true 25.0 dB logged as 16 to 18.
    batch, threat = audio_batch((4000,)), SNR(25.0)
    stored = batch.waveforms + threat.project(step(batch), batch)
    found = float(threat.size(stored - batch.waveforms, batch))
    assert found == pytest.approx(25.0, abs=1e-3)
    assert found == pytest.approx(float(signal_noise_ratio(stored, batch.waveforms)), abs=1e-3)


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.5), SNR(20.0), SNR(20.0, reading="snr_linf")], ids=str)
def test_random_perturbations_are_keyed(threat: Ball) -> None:
    batch = audio_batch(LENGTHS)
    together = threat.random(batch, seeds_of(batch))
    for row, length in enumerate(LENGTHS):
        one = batch.select([row])
        torch.testing.assert_close(threat.random(one, seeds_of(one))[0], together[row, :length], rtol=1e-6, atol=1e-8)
    assert not torch.equal(threat.random(batch, seeds_of(batch, seed=2)), together)


def test_random_perturbations_fill_the_ball() -> None:
    names = tuple(str(row) for row in range(4000))
    batch = AudioBatch(torch.zeros(4000, 3), torch.full((4000,), 3), ("",) * 4000, names)
    cube = Linf(0.5).random(batch, seeds_of(batch))
    ball = norms(L2(0.5).random(batch, seeds_of(batch)), batch, "l2")
    assert float(cube.mean()) == pytest.approx(0, abs=0.01) and float(cube.abs().mean()) == pytest.approx(
        0.25, abs=0.005
    )
    # In three dimensions half of the ball's volume lies within 0.5 ** (1 / 3) of its radius.
    inner = np.mean(np.array(ball) < 0.5 * 0.5 ** (1 / 3))
    assert inner == pytest.approx(0.5, abs=0.03) and max(ball) <= 0.5
    with pytest.raises(NotImplementedError):
        Unbounded().random(batch, seeds_of(batch))


RADII = st.lists(st.floats(0, 3, width=32), min_size=4, max_size=4)


@given(RADII, st.integers(0, 1000))
@settings(max_examples=50)
def test_projections_take_one_radius_an_utterance(radii: list[float], seed: int) -> None:
    delta = torch.randn(4, 30, generator=torch.Generator().manual_seed(seed))
    delta[3] = 0
    rows = zip(delta.numpy().astype(np.float64), radii, strict=True)
    linf, l2 = (function(delta, torch.tensor(radii)).numpy() for function in (project_linf, project_l2))
    for row, (values, radius) in enumerate(rows):
        np.testing.assert_allclose(linf[row], np.clip(values, -radius, radius), rtol=1e-6)
        shrink = min(1.0, radius / max(np.linalg.norm(values), 1e-30))
        np.testing.assert_allclose(l2[row], values * shrink, rtol=1e-5, atol=1e-7)


def test_directions_survive_any_finite_scale() -> None:
    gradient = torch.tensor([[3.0, -4.0], [3e-30, -4e-30], [3e30, -4e30], [0.0, 0.0], [math.nan, 1.0]])
    signs, peak = steepest(gradient, norm="linf")
    assert signs[:4].tolist() == [[1, -1], [1, -1], [1, -1], [0, 0]]
    assert peak[:4].tolist() == gradient[:4].abs().amax(1).tolist() and peak[4].isnan()
    directions, _ = steepest(gradient, norm="l2")
    torch.testing.assert_close(directions[:4], torch.tensor([[0.6, -0.8], [0.6, -0.8], [0.6, -0.8], [0.0, 0.0]]))


def test_rows_of_zeros_are_not_scaled() -> None:
    values = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    assert scaled_to(values, torch.tensor([5.0, 4.0]), norm="linf").tolist() == [[0, 0], [2, -4]]
    assert scaled_to(values, torch.tensor([0.0, 0.0]), norm="l2").abs().tolist() == [[0, 0], [0, 0]]


def test_columns_are_those_of_the_papers() -> None:
    printed = set()
    for table in (Path(robust_asr.__file__).parent / "results" / "paper_results").glob("*.csv"):
        with table.open(newline="") as file:
            printed |= {(row["norm"], row["strength_unit"]) for row in csv.DictReader(file)}
    for threat in (Linf(0.01), SNR(30.0)):
        assert (threat.columns()["norm"], threat.columns()["strength_unit"]) in printed
    assert Linf(0.01).columns() == {"norm": "Linf", "strength": 0.01, "strength_unit": "amplitude"}
    assert SNR(30.0).columns() == {"norm": "SNR", "strength": 30.0, "strength_unit": "dB"}
    assert L2(0.5).columns() == {"norm": "L2", "strength": 0.5, "strength_unit": "amplitude"}
    # What the paper did not measure must not be joined with its table.
    for reading in READINGS[1:]:
        assert SNR(30.0, reading=reading).columns()["norm"] not in {norm for norm, _ in printed}


@pytest.mark.parametrize(
    ("kind", "value", "field"),
    [
        (Linf, -0.1, "eps"),
        (Linf, 1.5, "eps"),
        (Linf, math.nan, "eps"),
        (L2, -1.0, "eps"),
        (L2, math.inf, "eps"),
        (L2, math.nan, "eps"),
    ]
    + [(SNR, value, "snr_db") for value in (math.nan, 200.0, -30.0)],
)
def test_ranges_are_checked(kind: type[Ball], value: float, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        kind(value)


def test_an_unknown_reading_is_refused() -> None:
    with pytest.raises(ValueError, match="reading must be one of snr_l2, snr_linf, maxsnr_linf, found 'linf'"):
        SNR(20.0, reading="linf")  # type: ignore[arg-type]


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.5), SNR(20.0, reading="snr_linf"), Unbounded()], ids=str)
def test_described_and_built_again(threat: ThreatModel) -> None:
    assert trust.build(describe(threat), expected=ThreatModel) == threat
