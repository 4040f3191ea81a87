from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robust_asr.audit.conditions import conditions_around, search_for
from robust_asr.audit.duration import Pace, in_words, of_evaluation
from robust_asr.audit.scales import QUICK, Scale
from robust_asr.checks.live.evaluation import LiveChecks
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from tests.listeners import read
from tests.robust_asr.attacks.oracles import PITCHES, spoken

PHRASE = next(iter(PITCHES))


class Counted:
    """The passes of a recogniser's utterances through its encoder: with a gradient, and without."""

    def __init__(self) -> None:
        self.recognizer = read("four_words")
        self.counts = {True: 0, False: 0}
        self._encode = self.recognizer.encode
        self.recognizer.encode = self.encode

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.counts[waveforms.requires_grad] += len(waveforms)
        return self._encode(waveforms, lengths, seeds=seeds)

    @property
    def passes(self) -> float:
        """A pass with its gradient counts three times."""
        return 3.0 * self.counts[True] + self.counts[False]


PACE = Pace(loss=1.0, gradient=3.0, look=1.0)


def system(recognizer: Recognizer, defended: bool) -> Recognizer:
    return Defended(GaussianNoise(0.01), recognizer) if defended else recognizer


@pytest.mark.parametrize(
    "scale, defended",
    [(QUICK, False), (QUICK, True), (replace(QUICK, draws=4, iterations=20, targeted_iterations=20), True)],
    ids=["quick", "quick-defended", "several draws"],
)
def test_the_estimate_is_what_an_evaluation_passes(scale: Scale, defended: bool, tmp_path) -> None:
    counted, batch = Counted(), spoken(1)
    recognizer = system(counted.recognizer, defended)
    conditions = conditions_around(0.003, scale, phrase=PHRASE)
    hashes = {"system": {"": "s"}, "condition": {name: name for name in conditions}}
    LiveChecks(tmp_path, hashes, seed=0).check([("", recognizer)], conditions, batch)
    for attack in conditions.values():
        attack(recognizer, batch, seeds=utterance_seeds(0, batch.ids))
    estimate = of_evaluation(PACE, [recognizer], conditions, utterances=1, batch=1)
    assert estimate == pytest.approx(counted.passes, rel=0.3)


def test_the_estimate_of_a_search_is_an_upper_bound() -> None:
    counted, batch = Counted(), spoken(1)
    search = search_for(QUICK)
    search.generate(counted.recognizer, batch, seeds=utterance_seeds(0, batch.ids))
    estimate = PACE.of_search(search, counted.recognizer)
    assert estimate / 3 < counted.passes <= estimate


def test_a_trial_of_a_long_utterance_stands_for_the_average_one() -> None:
    recognizer, batch = read("four_words"), spoken(1)
    with torch.no_grad():
        pace = Pace.of(recognizer, batch, share=1e6)
    assert 0 < pace.loss < 1e-5 and 0 < pace.gradient < 1e-5 and 0 < pace.look < 1e-5


@pytest.mark.parametrize(
    "seconds, words", [(0.2, "1 s"), (61, "61 s"), (170, "3 minutes"), (5399, "90 minutes"), (9000, "2.5 hours")]
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
