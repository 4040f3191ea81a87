"""The text that an untargeted attack climbs away from, and the form in which texts are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.base import Attack
from robust_asr.attacks.breaking import BreakingPoint
from robust_asr.attacks.cw import CarliniWagner
from robust_asr.attacks.goals import AwayFrom, Goal, Untargeted, WordsWrong
from robust_asr.attacks.objectives import Loss
from robust_asr.attacks.pgd import PGD, PaperPGD
from robust_asr.attacks.standard import Standard
from robust_asr.attacks.verdict import AttackResult
from robust_asr.defenses.base import Defended
from robust_asr.measuring.rows import measured
from robust_asr.results.fields import wrong_row
from robust_asr.results.recount import recount
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.threat import Linf
from robust_asr.types import AudioBatch, Transcript
from tests.robust_asr.attacks.oracles import Oracle, Target, Texts, audio_batch, seeds_of, weights
from tests.robust_asr.attacks.wrappers import Wrapped
from tests.robust_asr.defenses.parts import Bend
from tests.robust_asr.test_contract import trained

OWN = "Low, low."
EPS = 0.01
AWAY = ("reference", "transcript", "both")


class Speller(Oracle):
    """Writes with case and punctuation. The loss of a text is linear: w.x of its first letter, so that each has its own."""

    stochastic = False
    cased = True

    def __init__(self, *, writes: Sequence[str] = (OWN,) * 3, level: float = 1e9) -> None:
        super().__init__(level)
        self.writes = dict(zip((300, 200, 100), writes, strict=True))
        for seed, name in enumerate(("reference", "own", "other")):
            self.register_buffer(name, weights(300, seed=seed))

    def compared(self, text: str) -> str:
        return "".join(letter for letter in text.lower() if letter not in ",.!")

    def targets(self, texts: Sequence[str]) -> Texts:
        for text in texts:
            if "?" in text:
                raise ValueError(f"text {text!r} cannot be written")
        return super().targets(texts)

    def slope(self, text: str) -> Tensor:
        return {OWN: self.own, "LOW LOW": self.reference}.get(text, self.other)

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Texts, *, seeds: Tensor | None = None) -> Tensor:
        self.rows.append(len(waveforms))
        slopes = torch.stack([self.slope(text) for text in targets.texts])
        return (waveforms * slopes[:, : waveforms.shape[1]]).sum(1)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        loud = (waveforms.abs().amax(1) > self.level).tolist()
        written = [
            "High!" if high else self.writes[length] for high, length in zip(loud, lengths.tolist(), strict=True)
        ]
        return [Transcript(self.compared(text), written=text) for text in written]


def given() -> AudioBatch:
    return replace(audio_batch((300, 200, 100)), texts=("LOW LOW",) * 3)


def attack(away_from: AwayFrom | None) -> PaperPGD:
    return PaperPGD(Linf(EPS), goal=Untargeted(away_from=away_from), num_iterations=7)


def signs(result: AttackResult, batch: AudioBatch, row: int) -> Tensor:
    return (result.batch.waveforms - batch.waveforms)[row, : int(batch.lengths[row])].sign()


def expected(recognizer: Speller, climbed: str) -> Tensor:
    slopes = {"reference": recognizer.reference, "transcript": recognizer.own}
    return (slopes["reference"] + slopes["transcript"] if climbed == "both" else slopes[climbed]).sign()


@pytest.mark.parametrize("away_from", AWAY)
@pytest.mark.parametrize("wrap", [lambda inside: inside, Wrapped, lambda inside: Defended(Bend(0.0), inside)])
def test_an_attack_climbs_away_from_the_text_of_its_goal(away_from: AwayFrom, wrap: object) -> None:
    """On a linear loss every sample moves by eps along the sign of that text's slope."""
    recognizer, batch = Speller(), given()
    result = attack(away_from)(wrap(recognizer), batch, seeds=seeds_of(batch))
    for row, length in enumerate(batch.lengths.tolist()):
        assert torch.equal(signs(result, batch, row), expected(recognizer, away_from)[:length])
    # Success and the row's text are those of the reference, whatever the attack climbed away from.
    assert result.texts == batch.texts and result.compared_texts == ("low low",) * 3
    assert result.success.tolist() == [False] * 3
    assert result.facts == (({},) * 3 if away_from == "reference" else ({"climbed": away_from},) * 3)
    # Both losses need a pass each, because there is no encoder.
    passes = {"reference": 7, "transcript": 8, "both": 15}
    assert result.forwards.tolist() == [passes[away_from]] * 3


def test_by_default_it_depends_on_the_recogniser() -> None:
    plain, cased = trained("toy_ctc"), Speller()
    for wrap in (lambda inside: inside, Wrapped):
        assert Untargeted().climbs(wrap(plain)) == "reference"
        assert Untargeted().climbs(wrap(cased)) == Untargeted(away_from="both").climbs(plain) == "both"
        assert WordsWrong(away_from="both").climbs(wrap(plain)) == "both"
        assert Target().climbs(wrap(cased)) == "reference"
    batch = given()
    found, spelled = (attack(away)(cased, batch, seeds=seeds_of(batch)) for away in (None, "both"))
    assert torch.equal(found.batch.waveforms, spelled.batch.waveforms) and found.facts == spelled.facts


@pytest.mark.parametrize("away_from", ["transcript", "both"])
def test_where_no_words_are_heard_it_is_the_reference_and_the_row_says_so(away_from: AwayFrom) -> None:
    recognizer, batch = Speller(writes=(OWN, ".", "?")), given()
    result = attack(away_from)(recognizer, batch, seeds=seeds_of(batch))
    assert [fact["climbed"] for fact in result.facts] == [away_from, "reference", "reference"]
    for row, climbed in enumerate((away_from, "reference", "reference")):
        length = int(batch.lengths[row])
        assert torch.equal(signs(result, batch, row), expected(recognizer, climbed)[:length])


def test_an_utterance_climbs_alone_as_in_a_batch() -> None:
    recognizer, batch = Speller(writes=(OWN, "", OWN)), given()
    together = attack("both")(recognizer, batch, seeds=seeds_of(batch))
    for row in range(3):
        one = batch.select([row])
        alone = attack("both")(recognizer, one, seeds=seeds_of(one))
        assert torch.equal(alone.batch.waveforms[0], together.batch.waveforms[row, : int(batch.lengths[row])])
        assert alone.facts[0] == together.facts[row]


@pytest.mark.parametrize("away_from", AWAY)
@pytest.mark.parametrize(
    "made",
    [
        lambda goal: PGD(Linf(EPS), goal=goal, objective=Loss(), num_iterations=3),
        lambda goal: PGD(Linf(EPS), goal=goal, num_iterations=3),
        lambda goal: CarliniWagner(goal=goal, num_iterations=3),
        lambda goal: Standard(Linf(EPS), goal=goal, forwards=60),
        lambda goal: BreakingPoint(PGD(Linf(EPS), goal=goal, num_iterations=3), smallest=EPS / 8),
    ],
    ids=["PGD on its loss", "PGD", "CW", "standard", "breaking point"],
)
def test_every_attack_that_follows_a_loss_serves_every_text(made: object, away_from: AwayFrom) -> None:
    # Loud enough where the attack moves it at all: "High!" is heard.
    batch = given()
    batch = batch.replace(batch.waveforms.sign() * 0.1 * (batch.waveforms != 0))
    recognizer, attack = Speller(level=0.1 + 1e-4), made(Untargeted(away_from=away_from))
    result = attack(recognizer, batch, seeds=seeds_of(batch))
    assert result.success.all()
    assert all(fact.get("climbed", "reference") == away_from for fact in result.facts)
    if isinstance(attack, Standard):
        assert int(result.forwards.sum()) <= 60 * 3


def test_a_target_is_not_climbed_away_from() -> None:
    recognizer, batch = Speller(), given()
    result = PaperPGD(Linf(EPS), goal=Target())(recognizer, batch, seeds=seeds_of(batch))
    assert torch.equal(signs(result, batch, 0), -recognizer.other.sign()) and result.facts == ({},) * 3


GOALS: list[Goal] = [Untargeted(away_from=away) for away in (None, *AWAY)] + [WordsWrong(0.25, away_from="both")]


@pytest.mark.parametrize("goal", GOALS, ids=str)
def test_a_description_names_the_text_unless_it_is_the_default(goal: Untargeted) -> None:
    description = describe(goal)
    assert trust.build(description, expected=Goal) == goal
    # Rows from before there was a choice keep their hash.
    assert ("away_from" in description["init_args"]) is (goal.away_from is not None)
    assert describe(Untargeted())["init_args"] == {} and describe(WordsWrong())["init_args"] == {"share": 0.5}


@pytest.mark.parametrize("away_from", ["hypothesis", "", 3])
def test_another_text_is_refused(away_from: object) -> None:
    for kind in (Untargeted, WordsWrong):
        with pytest.raises(ValueError, match="away_from must be one of reference, transcript, both, or None, found"):
            kind(away_from=away_from)


@pytest.mark.parametrize("goal", [Untargeted(), Target("High!"), Target("HIGH")], ids=str)
def test_rows_count_on_compared_texts_and_are_counted_again_alike(goal: Goal) -> None:
    batch = given()
    for recognizer, heard, written in ((Speller(level=0.0), "high", "High!"), (Speller(), "low low", OWN)):
        result = attack_of(goal)(recognizer, batch, seeds=seeds_of(batch))
        row = measured(result, batch, 0, seconds_per_sample=0.0, sample_rate=16_000)
        assert (row["reference"], row["hypothesis"], row["written"]) == ("LOW LOW", heard, written)
        assert row["compared_reference"] == "low low"
        assert row["substitutions"] + row["deletions"] == (2 if heard == "high" else 0)
        assert row["success"] is (heard == "high")
        if goal.targeted:
            assert (row["target"], row["compared_target"]) == (goal.text, "high")
            assert (row["target_errors"] == 0) is row["success"]
        cell = {"system": "s", "condition": "c", "part": "p", "hashes": {}}
        assert list(recount([row])) == [row] and wrong_row({**row, **cell}) == ""
    assert "compared_reference" not in plain_row() and "written" not in plain_row()


def attack_of(goal: Goal) -> Attack:
    return PaperPGD(Linf(EPS), goal=goal, num_iterations=2)


def plain_row() -> dict[str, object]:
    """Of a recogniser that spells as its references."""
    recognizer, batch = trained("toy_ctc"), replace(audio_batch((3000,)), texts=("HELLO YOU",))
    result = attack_of(Untargeted())(recognizer, batch, seeds=seeds_of(batch))
    return measured(result, batch, 0, seconds_per_sample=0.0, sample_rate=16_000)
