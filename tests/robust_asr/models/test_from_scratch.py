"""DeepSpeech, RNN-T and wav2vec 2.0 after a second of training each: they hear, and attacks through them work."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from robust_asr.attacks.cw import CarliniWagner
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.models.base import Recognizer
from robust_asr.models.deepspeech import DeepSpeech
from robust_asr.models.rnnt import RNNT, LSTMEncoder
from robust_asr.models.wav2vec2 import Wav2Vec2
from robust_asr.threat import Linf
from tests.robust_asr.attacks.oracles import Target, seeds_of, spoken

BATCH = spoken(6, seed=5)
# Architecture, learning rate, steps.
KINDS: dict[str, tuple[Callable[[], Recognizer], float, int]] = {
    "deepspeech": (lambda: DeepSpeech(num_coefficients=20, num_context=1, num_hidden=32, dropout=0.0), 0.005, 200),
    "rnnt": (
        lambda: RNNT(
            LSTMEncoder(num_mels=20, width=32, num_layers=1),
            embedding_width=8,
            predictor_width=16,
            predictor_layers=1,
            joint_width=32,
        ),
        0.01,
        160,
    ),
    "wav2vec2": (
        lambda: Wav2Vec2(
            convolutions=[[16, 20, 10], [24, 8, 4], [24, 8, 8]],
            width=32,
            num_layers=1,
            num_heads=2,
            feed_forward_width=32,
            position_kernel=8,
            position_groups=4,
            dropout=0.0,
        ),
        0.005,
        200,
    ),
}


@cache
def learnt(kind: str) -> Recognizer:
    build, rate, num_steps = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        recognizer = build().train()
        optimizer = torch.optim.Adam(recognizer.parameters(), lr=rate)
        targets = recognizer.targets(BATCH.texts)
        for _ in range(num_steps):
            noisy = BATCH.waveforms + 0.01 * torch.randn_like(BATCH.waveforms)
            optimizer.zero_grad()
            recognizer.loss(noisy, BATCH.lengths, targets).mean().backward()
            nn.utils.clip_grad_norm_(recognizer.parameters(), 5.0)
            optimizer.step()
    return recognizer.eval()


@pytest.fixture(params=KINDS)
def recognizer(request: pytest.FixtureRequest) -> Recognizer:
    return learnt(request.param)


def test_it_hears_what_it_learnt(recognizer: Recognizer) -> None:
    heard = recognizer.transcribe(BATCH.waveforms, BATCH.lengths)
    assert tuple(transcript.text for transcript in heard) == BATCH.texts
    for transcript, length in zip(heard, BATCH.lengths.tolist(), strict=True):
        assert [word.text for word in transcript.words] == transcript.text.split()
        # The last frame may begin with the last sample.
        end = length / 16_000 + 0.03
        assert all(0 <= word.start < word.end <= end and 0 < word.confidence <= 1 for word in transcript.words)
        starts = [word.start for word in transcript.words]
        assert starts == sorted(starts)


def test_projected_descent_raises_the_loss(recognizer: Recognizer) -> None:
    targets = recognizer.targets(BATCH.texts)
    clean = recognizer.loss(BATCH.waveforms, BATCH.lengths, targets).detach()
    result = PaperPGD(Linf(0.003))(recognizer, BATCH, seeds=seeds_of(BATCH))
    assert bool((result.loss > 2 * clean).all()) and float(result.loss.mean()) > 10 * float(clean.mean())


def test_a_targeted_attack_succeeds(recognizer: Recognizer) -> None:
    result = CarliniWagner(Target("SIX"), bound=0.1, num_iterations=80)(recognizer, BATCH, seeds=seeds_of(BATCH))
    assert int(result.success.sum()) >= 5, result.hypotheses
