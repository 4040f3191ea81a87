"""Votes over draws: what is written, what it costs, and what an attacker sees."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from robust_asr.attacks.pgd import PaperPGD
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.defenses.rover import rover
from robust_asr.defenses.voted import Voted
from robust_asr.defenses.votes import Averaging, Majority, Rover, Vote
from robust_asr.measuring.systems import describe_system, gradient_sources
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key, derive
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.threat import Linf
from robust_asr.types import Emissions, Transcript, Word
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import seeds_of, spoken
from tests.toys import ToyAttention, ToyCTC

# So loud that draws differ.
SIGMA, NUM = 0.3, 5
VOTES = {"rover": lambda: Rover(NUM), "majority": lambda: Majority(NUM), "averaging": lambda: Averaging(NUM)}


def noisy(recognizer: Recognizer | None = None) -> Defended:
    return Defended(GaussianNoise(SIGMA), four_words() if recognizer is None else recognizer)


def heard(row: int) -> list[Transcript]:
    """The transcripts of each draw of one utterance, alone."""
    batch = spoken(4).select([row])
    system, seeds = noisy(), seeds_of(batch)
    return [
        system.transcribe(batch.waveforms, batch.lengths, seeds=derive(seeds, step=Key.VOTE, draw=draw))[0]
        for draw in range(NUM)
    ]


def test_draws_differ() -> None:
    assert any(len({transcript.text for transcript in heard(row)}) > 2 for row in range(4))


@pytest.mark.parametrize("seconds", [600.0, 3.0, 1e-6], ids=["all", "some", "one"])
def test_the_transcript_is_the_vote_over_the_draws(seconds: float) -> None:
    """Whatever the batch and however many copies are passed at once."""
    batch = spoken(4)
    votes = {
        "rover": lambda texts, words: " ".join(rover([text.split() for text in texts], words, min_gap=0.02)),
        "majority": lambda texts, words: Counter(texts).most_common(1)[0][0],
    }
    for name, expected in votes.items():
        system = Voted(noisy(), VOTES[name](), seconds_at_once=seconds)
        found = system.transcribe(batch.waveforms, batch.lengths, seeds=seeds_of(batch))
        for row, transcript in enumerate(found):
            draws = heard(row)
            times = [[(word.start, word.end) for word in draw.words] for draw in draws]
            assert transcript.text == expected([draw.text for draw in draws], times)


@pytest.mark.parametrize("averaged", ["probabilities", "log_probabilities"])
def test_averaging_writes_what_the_mean_over_the_draws_says(averaged: str) -> None:
    batch = spoken(4)
    found = Voted(noisy(), Averaging(NUM, averaged=averaged), seconds_at_once=3.0).transcribe(
        batch.waveforms, batch.lengths, seeds=seeds_of(batch)
    )
    for row, transcript in enumerate(found):
        one, system = batch.select([row]), noisy()
        scores = [
            system.emissions(
                one.waveforms, one.lengths, seeds=derive(seeds_of(one), step=Key.VOTE, draw=draw)
            ).log_probs.detach()
            for draw in range(NUM)
        ]
        logs = torch.stack(scores).double()
        mean = logs.exp().mean(0).log() if averaged == "probabilities" else logs.mean(0).log_softmax(-1)
        lengths = torch.tensor([mean.shape[1]])
        expected = system.search(Emissions(mean.float(), lengths), system.tokenizer, frame_shift=system.frame_shift)
        assert transcript.text == expected[0].text


def test_of_equally_many_texts_the_first_wins() -> None:
    texts = ["B", "A", "A", "B", "C"]
    assert Majority(5).choose([Transcript(text) for text in texts]).text == "B"


def test_confidences_count_where_they_are_asked_for() -> None:
    def one(text: str, confidence: float) -> Transcript:
        return Transcript(text, (Word(text, 0.0, 1.0, confidence),))

    draws = [one("A", 0.1), one("A", 0.1), one("B", 0.9)]
    assert Rover(3).choose(draws).text == "A"
    assert Rover(3, frequency_weight=0.0, rule="maximum").choose(draws).text == "B"


def test_an_attacker_sees_one_draw_and_attacks_once() -> None:
    inside = noisy()
    systems = {"RS": inside, "ROVER": Voted(inside, Rover(NUM)), "Maj": Voted(inside, Majority(NUM))}
    conditions = {"PGD": PaperPGD(Linf(0.001)), "unaware": PaperPGD(Linf(0.001), knowledge="unaware")}
    sources = gradient_sources(systems.items(), conditions)
    assert len(set(sources.values())) == 2 and None not in sources.values()
    batch, targets = spoken(2), inside.targets(spoken(2).texts)
    losses = [
        system.loss(batch.waveforms, batch.lengths, targets, seeds=seeds_of(batch)) for system in systems.values()
    ]
    assert torch.equal(losses[0], losses[1])
    assert systems["ROVER"].view("exact") is inside and systems["ROVER"].view("unaware") is inside.recognizer


def test_the_row_says_what_it_is_and_costs() -> None:
    system = Voted(noisy(), Rover(NUM))
    assert system.columns() == {"model": "CompactCTC", "defense": f"RS+ROVER-{NUM}", "sigma": SIGMA}
    assert system.forwards_per_transcript == NUM and system.forwards_per_look == NUM + 1
    described = describe_system(system)
    assert described["forwards_per_transcript"] == NUM
    assert described["hash"] != describe_system(Voted(noisy(), Majority(NUM)))["hash"]


@pytest.mark.parametrize("vote", VOTES.values(), ids=VOTES)
def test_a_vote_is_built_from_its_description(vote: type[Vote]) -> None:
    description = describe(vote())
    assert describe(trust.build(description, expected=Vote)) == description


def test_no_utterance_and_no_seeds() -> None:
    system, batch = Voted(noisy(), Rover(NUM)), spoken(2)
    assert system.transcribe(batch.waveforms[:0], batch.lengths[:0]) == []
    assert len(system.transcribe(batch.waveforms, batch.lengths)) == 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Rover(1), "num is 1: Rover needs two draws at least"),
        (lambda: Rover(4, frequency_weight=2.0), "frequency_weight is 2.0"),
        (
            lambda: Averaging(4, averaged="votes"),
            "averaged is 'votes', accepted are probabilities and log_probabilities",
        ),
        (
            lambda: Voted(four_words(), Rover(4)),
            "vote: CompactCTC hears the same in every draw, put GaussianNoise before it",
        ),
        (
            lambda: Voted(noisy(ToyAttention()), Averaging(4)),
            "vote: Averaging needs probabilities .* ToyAttention has not",
        ),
        (lambda: Voted(noisy(ToyCTC()), Rover(4), seconds_at_once=0.0), "seconds_at_once must be positive"),
    ],
)
def test_what_cannot_vote_is_named(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
