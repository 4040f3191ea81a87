"""Everything on an emulated GPU: nothing mixes devices, and no loop makes the host wait more often than is written here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_modules.adversarial import AdversarialFinetuning
from lightning_modules.callbacks.averaging import LastEpochsAveraging
from lightning_modules.denoiser import DenoiserTraining
from lightning_modules.gaussian import GaussianAugmentation
from lightning_modules.joint import JointDenoiserASR
from lightning_modules.recognition import Recognition
from robust_asr import checkpoint
from robust_asr.attacks.base import Attack
from robust_asr.attacks.breaking import BreakingPoint
from robust_asr.attacks.cw import CarliniWagner, OlivierCarliniWagner
from robust_asr.attacks.fgsm import FGSM
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.imperceptible import Imperceptible
from robust_asr.attacks.noise import Clean, Gaussian, MatchedNoise, Noise, Uniform
from robust_asr.attacks.objectives import FrameMargin, Insertions, Loss, Mixture
from robust_asr.attacks.offline import OfflinePGD
from robust_asr.attacks.pgd import PGD, PaperPGD
from robust_asr.attacks.progress import Run
from robust_asr.attacks.saved import Saved
from robust_asr.attacks.square import Square
from robust_asr.attacks.standard import Standard
from robust_asr.attacks.steps import Constant, Halving
from robust_asr.attacks.transfer import Transfer
from robust_asr.checks import check_system, lines
from robust_asr.checks.live.writing import WRITES
from robust_asr.defenses.base import Chain, Defended, Defense, StraightThrough
from robust_asr.defenses.denoise import Denoise
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.gradients import frozen_for_attack, input_gradient
from robust_asr.measuring.audio import quantized, write_flac
from robust_asr.measuring.rows import data_hash, rows_of_cell
from robust_asr.measuring.systems import describe_condition, describe_system
from robust_asr.models.base import FrameSynchronous, Recognizer
from robust_asr.models.conv_tasnet import ConvTasNet
from robust_asr.results import RowWriter, audio_hash, audio_path, write_description
from robust_asr.search.base import FrameSearch, Search
from robust_asr.search.beam import BeamSearch
from robust_asr.search.decoder_beam import DecoderBeam
from robust_asr.search.fusion import FusedSearch
from robust_asr.search.greedy import GreedySearch
from robust_asr.search.phones import PhoneBeamSearch
from robust_asr.search.transducer import TransducerBeam
from robust_asr.storage.partial import PartialState
from robust_asr.threat import L2, SNR, Linf
from robust_asr.threat.ranges import LinfRange
from robust_asr.types import AudioBatch, Emissions, PairedBatch, Transcript
from tests.command_line import ROOT
from tests.device import DEVICE, Device, emulated_device
from tests.lightning_modules.callbacks.test_averaging import Counting, averaged
from tests.lightning_modules.test_recognition import outside_a_trainer  # noqa: F401 - a fixture
from tests.robust_asr.attacks.oracles import Oracle, Target
from tests.robust_asr.defenses.parts import Bend, Gain
from tests.robust_asr.models.test_adapter import LENGTHS as ADAPTED_LENGTHS
from tests.robust_asr.models.test_adapter import TEXTS as ADAPTED_TEXTS
from tests.robust_asr.models.test_adapter import audio as adapted_audio
from tests.robust_asr.models.test_adapter import yours as adapted
from tests.robust_asr.test_contract import LENGTHS, RECOGNIZERS, TEXTS, audio, trained
from tests.toys import ToyCTC

SEEDS = torch.arange(3)
IDS = ("one", "two", "three")


class FakeTrainer:
    world_size = 1
    datamodule = SimpleNamespace(dataloader_names=lambda stage: ["part"], training_texts=lambda: TEXTS)


@pytest.fixture
def device() -> Iterator[Device]:
    with emulated_device() as emulated:
        yield emulated


def batch() -> AudioBatch:
    return AudioBatch(audio(LENGTHS), LENGTHS, TEXTS, IDS).to(DEVICE)


# How often the host waits in a loss and its gradient: torch's CTC loss reads the text twice and the number of frames, and
# DeepSpeech and DeepSpeech2 read the lengths.
IN_A_LOSS = {"toy_attention": 2, "deepspeech": 4, "deepspeech2": 4, "conformer_lfmmi": 0}


@pytest.mark.parametrize("name", RECOGNIZERS)
def test_recogniser(name: str, device: Device) -> None:
    recognizer, given = trained(name), AudioBatch(audio(LENGTHS), LENGTHS, TEXTS, IDS)
    targets = recognizer.targets(TEXTS)
    with frozen_for_attack(recognizer):
        expected, slope = input_gradient(lambda x: recognizer.loss(x, given.lengths, targets), given.waveforms)
    texts = [one.text for one in recognizer.transcribe(given.waveforms, given.lengths)]

    recognizer.to(DEVICE)
    given = given.to(DEVICE)
    with frozen_for_attack(recognizer):
        device.waits.clear()
        losses, gradient = input_gradient(lambda x: recognizer.loss(x, given.lengths, targets), given.waveforms)
    assert device.waits.total() <= IN_A_LOSS.get(name, 3), device.waits
    together, heard = recognizer.loss_and_transcripts(given.waveforms, given.lengths, targets)
    for found in (losses, together):
        torch.testing.assert_close(found.detach().cpu(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient.cpu(), slope, rtol=1e-3, atol=1e-4 * float(slope.abs().max()))
    assert texts == [one.text for one in heard]
    assert texts == [one.text for one in recognizer.transcribe(given.waveforms, given.lengths)]
    assert recognizer.feasible(given.lengths, targets).device == DEVICE
    recognizer.train().loss(given.waveforms, given.lengths, targets).mean().backward()
    assert all(parameter.grad.device == DEVICE for parameter in recognizer.parameters() if parameter.grad is not None)


def test_dropout_in_evaluation(device: Device) -> None:
    recognizer = trained("deepspeech").to(DEVICE)
    recognizer.use_dropout({"dense": 0.2, "recurrent": 0.1})
    targets, given = recognizer.targets(TEXTS), batch()
    device.waits.clear()
    first, again, other = (
        recognizer.loss(given.waveforms, given.lengths, targets, seeds=seeds).detach()
        for seeds in (SEEDS, SEEDS, SEEDS + 1)
    )
    assert device.waits.total() <= 3 * IN_A_LOSS["deepspeech"], device.waits
    assert torch.equal(first, again) and not bool((first == other).any())


WORDS = ["HELLO", "YOU", "A", "BE", "I"]
# Made of the path of an n-gram, and the recogniser that each searches for.
SEARCHES: dict[str, tuple[Callable[[str], FrameSearch], str]] = {
    "greedy": (lambda ngram: GreedySearch(), "toy_ctc"),
    "beam": (lambda ngram: BeamSearch(beam_size=4, beam_size_token=3), "toy_ctc"),
    "words": (lambda ngram: BeamSearch(lexicon=WORDS, word_score=0.5, beam_size=4), "toy_ctc"),
    "words and n-gram": (lambda ngram: BeamSearch(lexicon=WORDS, ngram=ngram, beam_size=4), "toy_ctc"),
    "phones": (lambda ngram: PhoneBeamSearch(lexicon=WORDS, beam_size=4), "conformer_lfmmi"),
    "phones and n-gram": (lambda ngram: PhoneBeamSearch(lexicon=WORDS, ngram=ngram, beam_size=4), "conformer_lfmmi"),
}
ARPA = """\\data\\
ngram 1=7
ngram 2=1

\\1-grams:
-99 <s> -0.3
-1.0 </s>
-0.7 A -0.2
-0.8 BE
-0.9 I
-1.1 HELLO
-1.2 YOU

\\2-grams:
-0.2 A BE

\\end\\
"""


@pytest.mark.parametrize("name", SEARCHES)
def test_search(name: str, device: Device, tmp_path: Path) -> None:
    (tmp_path / "words.arpa").write_text(ARPA)
    search, of = SEARCHES[name]
    recognizer = trained(of)
    recognizer.use_search(search(str(tmp_path / "words.arpa")))
    expected = recognizer.transcribe(audio(LENGTHS), LENGTHS)
    given = batch()
    # The first call builds the tables of the search.
    recognizer.to(DEVICE).transcribe(given.waveforms, given.lengths)
    waits = []
    for seconds in (1, 2):
        device.waits.clear()
        found = recognizer.transcribe(given.waveforms.repeat(1, seconds), seconds * given.lengths)
        waits.append(device.waits.total())
        if seconds == 1:
            assert [one.text for one in found] == [one.text for one in expected]
    # No wait for each frame: longer audio makes the host wait no more often.
    assert waits[0] == waits[1] <= 12, device.waits


# Searches that write one token after another, and of which recogniser. They look whether they are done every few tokens.
TOKENWISE: dict[str, tuple[Callable[[], Search], str]] = {
    "decoder": (lambda: DecoderBeam(3), "transformer"),
    "decoder and CTC": (lambda: DecoderBeam(3, ctc_weight=0.3), "transformer"),
    "transducer": (lambda: TransducerBeam(3), "rnnt"),
}


@pytest.mark.parametrize("name", TOKENWISE)
def test_search_of_tokens(name: str, device: Device) -> None:
    make, of = TOKENWISE[name]
    recognizer = trained(of)
    recognizer.use_search(make())
    expected = recognizer.transcribe(audio(LENGTHS), LENGTHS)
    given = batch()
    recognizer.to(DEVICE).transcribe(given.waveforms, given.lengths)
    device.waits.clear()
    found = recognizer.transcribe(given.waveforms, given.lengths)
    assert [one.text for one in found] == [one.text for one in expected]
    assert device.waits.total() <= 40, device.waits


class Loud(Oracle, FrameSynchronous):
    """Its loss is the energy; what it hears is never what anybody wants. A transcript makes the host wait once."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return (waveforms - 0.001).square().sum(1)

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        return [Transcript(self.text) for _ in waveforms.sum(1).tolist()]

    def emissions(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> Emissions:
        return Emissions(torch.cat([waveforms[:, ::160, None], -waveforms[:, ::160, None]], -1), lengths // 160)


CW = CarliniWagner(Target(), num_iterations=20, check_every=10)
MASKING = Imperceptible(Target(), num_iterations=1, masking_iterations=20)
PGD_LOOKING = PaperPGD(Linf(0.01), goal=Target(), num_iterations=20, stop_on_success=True, check_every=10)
LOOKING = PGD(Linf(0.01), objective=Loss(), num_iterations=20, check_every=10)
# For each attack, how often the host waits in ten iterations, the recogniser's own waits included: none in a loss, one in a look.
WAITS: dict[str, tuple[Attack, int]] = {
    "PGD": (PaperPGD(Linf(0.01)), 0),
    "PGD in a drawn ball": (PaperPGD(LinfRange(1e-4, 1e-2)), 0),
    "PGD in the Euclidean norm": (PaperPGD(L2(0.5), random_start=True, num_restarts=2), 0),
    "PGD under an SNR": (PaperPGD(SNR(20.0, reading="maxsnr_linf"), random_start=True), 0),
    "PGD that keeps the best": (PaperPGD(Linf(0.01), keep="value", num_draws=3, max_samples=16_000), 0),
    "PGD in half precision": (PaperPGD(Linf(0.01), precision="bf16-mixed"), 0),
    "PGD that looks at success every ten": (PGD_LOOKING, 1),
    "PGD that looks at the damage every ten": (LOOKING, 10),
    "PGD with halving steps": (replace(LOOKING, keep="last", steps=Halving()), 0),
    "PGD on a margin": (replace(LOOKING, keep="last", objective=FrameMargin()), 0),
    "PGD on insertions": (replace(LOOKING, keep="last", objective=Insertions()), 0),
    "PGD on a mixture": (replace(LOOKING, keep="last", objective=Mixture((Loss(), FrameMargin()))), 0),
    "Square": (Square(Linf(0.01)), 0),
    "Square in the Euclidean norm": (Square(L2(0.5)), 0),
    "CW": (CW, 2),
    "CW, checked in every iteration": (replace(CW, check_every=1), 20),
    "CW of Olivier and Raj": (OlivierCarliniWagner(Target(), num_draws=2, num_iterations=20), 20),
    "imperceptible": (MASKING, 2),
}


# The field that counts the iterations, where it has another name.
COUNTS = {Imperceptible: "masking_iterations", Square: "num_queries"}


def attack_waits(attack: Attack, device: Device, iterations: int | None) -> tuple[Counter, Counter]:
    field = COUNTS.get(type(attack), "num_iterations")
    attack = replace(attack, **{field: iterations}) if iterations is not None else attack
    device.waits.clear(), device.doubles.clear()
    attack.generate(Loud("NOTHING"), batch(), seeds=SEEDS)
    return Counter(device.waits), Counter(device.doubles)


@pytest.mark.parametrize("name", WAITS)
def test_host_waits_in_an_attack(name: str, device: Device) -> None:
    attack, allowed = WAITS[name]
    (few, few_doubles), (many, many_doubles) = (attack_waits(attack, device, num) for num in (20, 30))
    assert (many - few).total() == allowed, many - few
    # The scores of a look are float64, one number for each utterance.
    assert (many_doubles - few_doubles).total() < 10, "float64 in every iteration"
    # What an attack makes the host wait before its first iteration and after its last; Imperceptible measures its result once more.
    assert few.total() - 2 * allowed <= (46 if name == "imperceptible" else 40), few


@pytest.mark.parametrize("goal", [Untargeted(), Target()], ids=["untargeted", "targeted"])
def test_host_waits_of_the_ensemble_do_not_grow_with_its_budget(goal: Goal, device: Device) -> None:
    """It looks three times in each of its attacks, on eight draws, however long they are."""
    waits = []
    for forwards in (400, 600):
        device.waits.clear()
        Standard(Linf(0.01), goal=goal, forwards=forwards).generate(Loud("LOW"), batch(), seeds=SEEDS)
        waits.append(Counter(device.waits))
    assert waits[0].total() == waits[1].total() <= 250, waits[1]


MATCHED = [MatchedNoise(Linf(0.01), distribution="signs"), MatchedNoise(SNR(20.0))]
DRAWN = OfflinePGD(linf=(0.001, 0.01), l2=(0.2,), iterations=(1, 2))
ATTACKS: list[Attack] = [
    *(replace(attack, **{COUNTS.get(type(attack), "num_iterations"): 2}) for attack, _ in WAITS.values()),
    *(Clean(), Gaussian(sigma=0.01), Gaussian(snr_db=20.0), Uniform(snr_db=20.0), *MATCHED, FGSM(Linf(0.01)), DRAWN),
    replace(PGD_LOOKING, goal=Untargeted(), check_every=1),
    *(Standard(Linf(0.01), forwards=300), Standard(L2(0.5), goal=Target(), forwards=300)),
    replace(CW, check_every=1, l2_weight=0.1, threat=SNR(20.0)),
    BreakingPoint(PGD(Linf(0.01), goal=Target(), num_iterations=2), 0.001, resolution_db=5.0),
    Transfer(PGD(Linf(0.01), num_iterations=2), ToyCTC().eval()),
]
DEFENSES: dict[str, Callable[[], Defense]] = {
    "noise": lambda: GaussianNoise(0.01),
    "denoiser": lambda: Denoise(ConvTasNet(num_filters=8, num_feats=4, num_hidden=8, num_layers=12)),
    "chain": lambda: Chain([Bend(0.5), GaussianNoise(0.01), Gain()]),
    "straight through": lambda: StraightThrough(Bend(0.5)),
}


def kinds(folder: str, base: type) -> set[type]:
    """The classes of a package that are values of ``base`` and no base themselves."""
    for module in pkgutil.iter_modules([str(ROOT / "robust_asr" / folder)], f"robust_asr.{folder}."):
        importlib.import_module(module.name)
    found, left = set(), [base]
    while left:
        left += (kind := left.pop()).__subclasses__()
        found.add(kind)
    own = {kind for kind in found if kind.__module__.startswith("robust_asr.") and not inspect.isabstract(kind)}
    return own - {base, FrameSearch, FusedSearch, Noise}


def test_everything_is_here() -> None:
    # The audio of a saved set lies in files: see test_saved_set.
    assert kinds("attacks", Attack) - {Saved} == {type(attack) for attack in ATTACKS}
    assert kinds("defenses", Defense) == {type(make()) for make in DEFENSES.values()}
    framewise = {type(make(None)) for name, (make, _) in SEARCHES.items() if "n-gram" not in name}
    assert kinds("search", Search) == framewise | {type(make()) for make, _ in TOKENWISE.values()}


# How often the host waits in an attack without a loop, of a batch and of its tenfold, the recogniser's own waits left out.
WITHOUT_LOOP: dict[str, tuple[Attack, int]] = {
    "FGSM": (FGSM(Linf(0.01)), 16),
    "clean": (Clean(), 7),
    "noise": (Gaussian(sigma=0.01), 8),
    "noise under an SNR": (Uniform(snr_db=20.0), 8),
    "noise in a ball": (MATCHED[0], 8),
    "noise on a sphere": (MATCHED[1], 8),
}


@pytest.mark.parametrize("name", WITHOUT_LOOP)
def test_host_waits_in_an_attack_without_a_loop(name: str, device: Device) -> None:
    attack, allowed = WITHOUT_LOOP[name]
    totals = []
    for times in (1, 10):
        given = AudioBatch(audio(LENGTHS).repeat(times, 1), LENGTHS.repeat(times), TEXTS * times, IDS * times).to(
            DEVICE
        )
        device.waits.clear()
        attack.generate(Loud("NOTHING"), given, seeds=SEEDS.repeat(times))
        totals.append(device.waits.total())
    assert totals[0] == totals[1] <= allowed, device.waits


def test_host_waits_in_iterations_of_the_drawn_attack(device: Device) -> None:
    few, many = (
        attack_waits(OfflinePGD(linf=(0.001,), l2=(), iterations=(count,)), device, None)[0] for count in (20, 30)
    )
    assert few.total() == many.total() <= 24, many - few


def test_adapter(device: Device) -> None:
    recognizer, given = adapted(), AudioBatch(adapted_audio(), ADAPTED_LENGTHS, ADAPTED_TEXTS, IDS)
    targets = recognizer.targets(ADAPTED_TEXTS)
    with frozen_for_attack(recognizer):
        expected, slope = input_gradient(lambda x: recognizer.loss(x, given.lengths, targets), given.waveforms)
    texts = [one.text for one in recognizer.transcribe(given.waveforms, given.lengths)]
    recognizer, given = recognizer.to(DEVICE), given.to(DEVICE)
    with frozen_for_attack(recognizer):
        device.waits.clear()
        losses, gradient = input_gradient(lambda x: recognizer.loss(x, given.lengths, targets), given.waveforms)
    # Audio of this size was checked on the CPU; three waits are of the CTC loss.
    assert device.waits.total() <= 3, device.waits
    torch.testing.assert_close(losses.cpu(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient.cpu(), slope, rtol=1e-3, atol=1e-5)
    assert texts == [one.text for one in recognizer.transcribe(given.waveforms, given.lengths)]
    # A new size is checked once, then no more.
    longer = torch.nn.functional.pad(given.waveforms, (0, 100))
    waits = []
    for _ in range(2):
        device.waits.clear()
        recognizer.encode(longer, given.lengths)
        waits.append(device.waits.total())
    assert 0 < waits[0] <= 12 and waits[1] == 0


def test_saved_set(device: Device, tmp_path: Path) -> None:
    recognizer, given = trained("toy_ctc").to(DEVICE), batch()
    attacked = batch().replace(batch().waveforms * 0.5)
    described, made = describe_system(recognizer), Gaussian(sigma=0.01)
    about = describe_condition(made, seed=0)
    write_description(
        tmp_path, {"systems": {"a": described}, "conditions": {"b": about}, "parts": {"c": {"num_utterances": 3}}}
    )
    result = made.verdict(recognizer, given, made.generate(recognizer, given, seeds=SEEDS), seeds=SEEDS)
    hashes = {"system": described["hash"], "condition": about["hash"]}
    known = {"data": [data_hash(given, row) for row in range(3)], "seconds": 1.0, "sample_rate": 16_000, "paid_by": "a"}
    rows = rows_of_cell(result, given, range(3), ("a", "b", "c"), hashes, **known)
    for row, length, samples in zip(
        rows, LENGTHS.tolist(), quantized(attacked.waveforms, given.waveforms).cpu(), strict=True
    ):
        write_flac(audio_path(tmp_path, "a", "b", "c", row["id"]), samples[:length], 16_000)
        row["audio"] = audio_hash(samples[:length])
    RowWriter(tmp_path).append(rows)
    saved = Saved(str(tmp_path))
    device.waits.clear()
    played = saved.generate(recognizer, given, seeds=SEEDS)
    assert device.waits.total() <= 12, device.waits
    assert played.batch.waveforms.device == DEVICE
    torch.testing.assert_close(played.batch.waveforms.cpu(), attacked.waveforms.cpu(), rtol=0, atol=2**-22)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack, device: Device) -> None:
    recognizer = Defended(GaussianNoise(0.001), trained("toy_ctc")).to(DEVICE)
    given = batch()
    result = attack(recognizer, given, seeds=SEEDS)
    assert result.batch.waveforms.device == DEVICE
    assert result.loss.device == result.success.device == torch.device("cpu")
    if not isinstance(attack, Clean | CarliniWagner):
        assert bool((result.size != 0).all())


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", DEFENSES)
def test_defense(name: str, half: bool, device: Device) -> None:
    torch.manual_seed(0)
    defense, given = DEFENSES[name](), batch()
    recognizer = Defended(defense, ToyCTC()).to(DEVICE).train()
    targets = recognizer.targets(TEXTS)
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        defended, _ = defense(given.waveforms, given.lengths, seeds=SEEDS)
        losses = recognizer.loss(given.waveforms, given.lengths, targets, seeds=SEEDS)
    losses.sum().backward()
    assert defended.dtype == torch.float32 and defended.device == DEVICE
    with frozen_for_attack(recognizer):
        device.waits.clear()
        input_gradient(lambda x: recognizer.loss(x, given.lengths, targets, seeds=SEEDS), given.waveforms)
    # Three in the CTC loss; a draw of noise reads the lengths.
    assert device.waits.total() <= 3 + defense.stochastic, device.waits


def test_attack_that_is_saved_and_taken_up_gives_rows(device: Device, tmp_path: Path) -> None:
    recognizer, given = Defended(GaussianNoise(0.001), trained("toy_ctc")).to(DEVICE), batch()
    attack = replace(CW, num_iterations=6, check_every=2)
    once = attack.generate(
        recognizer, given, seeds=SEEDS, partial=PartialState(tmp_path / "partial.ckpt", every_seconds=0)
    )
    # A fresh state is that of the file, which holds the finished attack.
    again = attack.generate(
        recognizer, given, seeds=SEEDS, partial=PartialState(tmp_path / "partial.ckpt", every_seconds=0)
    )
    assert torch.equal(once.waveforms, again.waveforms) and again.waveforms.device == DEVICE
    result = attack.verdict(recognizer, given, again, seeds=SEEDS)
    hashes, data = {"system": "", "condition": ""}, [data_hash(given, row) for row in range(3)]
    known = {"data": data, "seconds": 1.0, "sample_rate": 16_000, "paid_by": "system"}
    rows = rows_of_cell(result, given, range(3), ("system", "condition", "part"), hashes, **known)
    assert [row["id"] for row in rows] == list(IDS)
    checkpoint.save(recognizer, str(tmp_path / "system.ckpt"))
    assert checkpoint.weights_hash(recognizer) == checkpoint.weights_hash(recognizer.cpu())


@pytest.mark.parametrize(
    "attack", [PaperPGD(Linf(0.001), num_draws=2), Gaussian(sigma=0.01)], ids=lambda attack: attack.name
)
def test_live_checks(attack: Attack, device: Device) -> None:
    recognizer = Defended(GaussianNoise(0.001), trained("toy_ctc")).to(DEVICE)
    # So small a network prefers no other text in few steps.
    checks = [check for check in check_system(recognizer, attack, batch(), seeds=SEEDS) if check.name != WRITES.name]
    assert lines(checks, "fail", "not run") == []


ATTACK = PaperPGD(LinfRange(1e-4, 1e-2), num_iterations=2)
TANDEM = partial(JointDenoiserASR, attack=ATTACK)
# For each objective, how often the host may wait in a step; three times in each CTC loss, of which an attack computes two.
OBJECTIVES: dict[str, tuple[Callable[[], Recognition], int]] = {
    "recognition": (lambda: Recognition(ToyCTC()), 5),
    "noise": (lambda: GaussianAugmentation(ToyCTC(), sigma_max=0.1), 7),
    "adversarial": (lambda: AdversarialFinetuning(ToyCTC(), attack=ATTACK, clean_share=0.5), 39),
    "joint": (lambda: TANDEM(ToyCTC(), denoiser=DEFENSES["denoiser"]()), 39),
    "joint, held": (lambda: TANDEM(ToyCTC(), denoiser=DEFENSES["denoiser"](), hold_recognizer=True), 39),
    "denoiser": (lambda: DenoiserTraining(ToyCTC(), denoiser=DEFENSES["denoiser"]()), 1),
}


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_step_of_an_objective(name: str, half: bool, device: Device) -> None:
    torch.manual_seed(0)
    make, allowed = OBJECTIVES[name]
    training = make().to(DEVICE)
    training.log = training.log_dict = lambda *args, **kwargs: None
    training._trainer = FakeTrainer()
    training.on_fit_start()
    clean = batch()
    given = PairedBatch(*(getattr(clean, field) for field in ("waveforms", "lengths", "texts", "ids")), clean.waveforms)
    optimizer = torch.optim.Adam(training.parameters())
    device.waits.clear()
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        loss = training.training_step(given, 0)
    loss.backward()
    assert device.waits.total() <= allowed, device.waits
    nn.utils.clip_grad_norm_(training.parameters(), 1.0)
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in training.parameters())
    training.on_validation_epoch_start()
    device.waits.clear()
    training.validation_step(clean, 0)
    assert device.waits.total() <= 20, device.waits
    training.on_validation_epoch_end()


def test_average_of_the_last_epochs(device: Device) -> None:
    found = averaged(Counting().to(DEVICE), LastEpochsAveraging(2), max_epochs=3)
    assert found.norm.weight.tolist() == [2.5, 2.5] and found.norm.num_batches_tracked.item() == 20


class HostTable(ToyCTC):
    """A constant that is no buffer, so it does not move with the module."""

    def __init__(self) -> None:
        super().__init__()
        self.window = torch.ones(8)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        hidden, frame_lengths = super().encode(waveforms, lengths, seeds=seeds)
        return hidden * self.window, frame_lengths


def loss_of(recognizer: Recognizer) -> Tensor:
    given, recognizer = batch(), recognizer.to(DEVICE)
    return recognizer.loss(given.waveforms, given.lengths, recognizer.targets(TEXTS))


def lstm_gradient() -> None:
    lstm = nn.LSTM(2, 2).to(DEVICE).eval()
    values = torch.zeros(3, 1, 2, device=DEVICE, requires_grad=True)
    torch.autograd.grad(lstm(values)[0].sum(), values)


def half_from_an_lstm() -> Tensor:
    values = torch.zeros(3, 1, 2, device=DEVICE)
    with torch.autocast("cuda", torch.bfloat16):
        return torch.lerp(nn.LSTM(2, 2).to(DEVICE)(values)[0], values, 0.5)


def lightnings_average() -> None:
    averaged(Counting().to(DEVICE), LightningsAverage(3), max_epochs=3)


class LightningsAverage(LastEpochsAveraging):
    def __init__(self, num_epochs: int) -> None:
        super().__init__(num_epochs)
        self._kwargs = {}


def zeros(*sizes: int) -> Tensor:
    return torch.zeros(*sizes, device=DEVICE)


PLACES = torch.tensor([0, 1])
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "both devices": (lambda: zeros(3) + torch.ones(3), "same device"),
    "both devices in one list": (lambda: torch.cat([zeros(3), torch.ones(3)]), "same device"),
    "a constant that does not move": (lambda: loss_of(HostTable()), "same device"),
    "a result written to the host": (lambda: torch.zeros(()).add_(zeros(())), "same device"),
    "values of the host at places": (lambda: zeros(3).index_put_((PLACES.to(DEVICE),), torch.ones(2)), "same device"),
    "places of the device in a tensor of the host": (lambda: torch.ones(3)[PLACES.to(DEVICE)], "indices"),
    "NumPy": (lambda: zeros(3).numpy(), "numpy"),
    "a generator of the host": (lambda: torch.randn(3, device=DEVICE, generator=torch.Generator()), "generator"),
    "a generator of the device": (lambda: torch.ones(3).normal_(generator=torch.Generator(DEVICE)), "generator"),
    "lengths of a packed sequence": (lambda: pack_padded_sequence(zeros(2, 1, 1), zeros(1).long() + 2), "CPU int64"),
    "an RNN that did not move": (lambda: nn.LSTM(2, 2)(zeros(3, 1, 2)), "weights of an RNN"),
    "the gradient of an RNN in evaluation mode": (lstm_gradient, "training mode"),
    "an operation without a kernel": (lambda: torch.histogram(zeros(3), 2), "CUDA"),
    "two types under autocast": (half_from_an_lstm, "dtype"),
    "an average of integers": (lightnings_average, "Long"),
}


@pytest.mark.parametrize("bug", REFUSED)
def test_bug_is_seen(bug: str, device: Device) -> None:
    run, words = REFUSED[bug]
    with pytest.raises((RuntimeError, TypeError, NotImplementedError), match=words):
        run()


WAITING: dict[str, Callable[[Tensor], object]] = {
    "item": lambda values: values.sum().item(),
    "truth": lambda values: bool(values.any()),
    "a whole number": lambda values: int(values.sum()),
    "list": lambda values: values.tolist(),
    "nonzero": lambda values: values.nonzero(),
    "mask": lambda values: values[values > 0],
    "places of the host": lambda values: values[PLACES],
    "to the host": lambda values: values.cpu(),
    "to the device": lambda values: PLACES.to(values.device),
    "made of a list": lambda values: torch.tensor([1.0], device=values.device),
    "equal": lambda values: torch.equal(values, values + 1),
}


@pytest.mark.parametrize("kind", WAITING)
def test_wait_is_counted_where_it_is(kind: str, device: Device) -> None:
    values = zeros(3)
    device.waits.clear()
    WAITING[kind](values)
    assert device.waits.total() == 1
    assert all(place.startswith("tests/test_device.py:") for _, place in device.waits)
    PLACES.to(DEVICE, non_blocking=True), values + 1, values.where(values > 0, 2.0)
    assert device.waits.total() == 1


@dataclass(frozen=True)
class Impatient(Constant):
    def advance(self, run: Run, values: Tensor, gradient: Tensor, *others: object) -> None:
        if gradient.double().isfinite().all():
            super().advance(run, values, gradient, *others)


def test_a_loop_that_waits_and_computes_in_float64_is_seen(device: Device) -> None:
    attack = PaperPGD(Linf(0.01), steps=Impatient())
    few, many = (attack_waits(attack, device, iterations) for iterations in (20, 30))
    waits, doubles = (after - before for before, after in zip(few, many, strict=True))
    assert waits.total() == 10 and doubles.total() >= 10
    assert all("tests/test_device.py" in place for place in [*doubles, *(place for _, place in waits)])
