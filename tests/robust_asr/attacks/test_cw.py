"""CW: its settings, and its strength on a trained recogniser and beside a threat model."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.cw import CarliniWagner, OlivierCarliniWagner
from robust_asr.attacks.goals import Untargeted
from robust_asr.storage.describe import describe
from robust_asr.threat import SNR, Linf
from robust_asr.threat.norms import maximum
from robust_asr.types import AudioBatch
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import (
    Target,
    seeds_of,
    spoken,
)
from tests.robust_asr.attacks.victims import Peak
from tests.robust_asr.test_contract import assert_unchanged, snapshot

SMALL = {"bound": 0.05, "learning_rate": 0.01, "check_every": 2, "decrease": 0.8}
# One second of work a test: fewer iterations than anybody would report.
QUICK = CarliniWagner(Target("NO GO"), bound=0.1, num_iterations=100)


def sizes(attacked: AudioBatch, batch: AudioBatch) -> Tensor:
    return maximum(attacked.waveforms - batch.waveforms)


def test_defaults_are_the_published_numbers() -> None:
    names = ("bound", "learning_rate", "num_iterations", "check_every", "decrease", "num_draws", "success_draws")
    carlini, olivier = (
        [getattr(kind(Target()), name) for name in names] for kind in (CarliniWagner, OlivierCarliniWagner)
    )
    assert carlini == [2000 / 32768, 100 / 32768, 1000, 10, 0.8, 1, 1]
    assert olivier == [0.06, 1e-3, 1000, 1, 0.5, 16, 1]
    assert carlini[:2] == pytest.approx([0.061, 3.05e-3], rel=1e-2)


def test_untargeted() -> None:
    attack = CarliniWagner(Untargeted(), num_iterations=60, bound=0.1)
    batch = spoken(3, seed=4)
    result = attack(four_words(), batch, seeds=seeds_of(batch))
    assert attack.name == "CW untargeted" and result.success.all()
    assert all(heard != text for heard, text in zip(result.hypotheses, batch.texts, strict=True))


def test_strength_on_a_trained_recogniser() -> None:
    batch = spoken(6, seed=5)
    first = replace(QUICK, max_decreases=1)(four_words(), batch, seeds=seeds_of(batch))
    last = QUICK(four_words(), batch, seeds=seeds_of(batch))
    assert first.success.all() and last.success.all()
    before, after = (sizes(result.batch, batch) for result in (first, last))
    assert (after < 0.6 * before).all()
    assert (first.iterations <= 50).all() and (last.iterations > 50).all()


@pytest.mark.parametrize("threat", [Linf(0.02), SNR(20.0)])
def test_a_threat_model_holds_besides(threat: object) -> None:
    batch = spoken(3, seed=5)
    result = replace(QUICK, threat=threat, num_iterations=30)(four_words(), batch, seeds=seeds_of(batch))
    assert threat.contains(result.batch.waveforms, batch).all() and (result.size > 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_the_same_before_and_after(training: bool) -> None:
    # Defects 2 and 3.
    recognizer, batch = four_words(), spoken(2, seed=6)
    recognizer.train(training)
    before = snapshot(recognizer)
    replace(QUICK, num_iterations=12)(recognizer, batch, seeds=seeds_of(batch))
    assert_unchanged(before, recognizer)
    recognizer.eval()


def test_loud_audio_stays_within_full_scale() -> None:
    batch = AudioBatch(torch.tensor([[1.0, -1.0, 0.99, 0.0]]), torch.tensor([4]), ("LOW",), ("loud",))
    result = CarliniWagner(Target(), num_iterations=20, **SMALL)(Peak({4: 2.0}), batch, seeds=seeds_of(batch))
    torch.testing.assert_close(result.batch.waveforms, torch.tensor([[1.0, -0.95, 1.0, 0.05]]))


def test_a_bound_of_zero_changes_nothing() -> None:
    batch = spoken(2, seed=5)
    result = replace(QUICK, bound=0.0)(four_words(), batch, seeds=seeds_of(batch))
    assert torch.equal(result.batch.waveforms, batch.waveforms) and result.iterations.tolist() == [0, 0]


def test_described_and_compared_as_values() -> None:
    attack = OlivierCarliniWagner(Target(), num_iterations=3)
    description = describe(attack)
    assert description["class_path"].endswith("OlivierCarliniWagner")
    assert description["init_args"]["num_draws"] == 16 and len(description["init_args"]) == 15
    assert attack == replace(attack) and hash(attack) == hash(replace(attack)) and attack != QUICK


def test_columns_are_those_of_the_papers_table() -> None:
    table = Path(__file__).parents[3] / "robust_asr" / "results" / "paper_results" / "olivier2021_table2_cw.csv"
    with table.open() as lines:
        row = next(row for row in csv.DictReader(lines) if row["attack"] == "CW")
    columns = OlivierCarliniWagner(Target()).columns()
    assert {name: row[name] for name in columns if name != "knowledge"} == {
        name: value for name, value in columns.items() if name != "knowledge"
    }


@pytest.mark.parametrize(
    "change",
    [
        {"bound": -0.1},
        {"bound": float("nan")},
        {"learning_rate": 0.0},
        {"num_iterations": 0},
        {"check_every": 0},
        {"decrease": 1.0},
        {"max_decreases": 0},
        {"num_draws": 0},
        {"success_draws": 0},
        {"success_fraction": 0.0},
        {"l2_weight": float("inf")},
        {"max_samples": 0},
        {"knowledge": "some"},
        {"threat": 0.1},
        {"goal": "NO"},
    ],
)
def test_arguments_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        CarliniWagner(**{"goal": Target()} | change)
