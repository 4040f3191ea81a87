"""Denoiser and recogniser: trained on pairs, then together, or the denoiser alone; in sync, exact after a kill."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_modules.adversarial import AdversarialFinetuning
from lightning_modules.command_line.cli import RobustCLI
from lightning_modules.denoiser import DenoiserTraining
from lightning_modules.joint import JointDenoiserASR
from robust_asr import checkpoint
from robust_asr.checkpoint import weights_hash
from robust_asr.defenses.base import Defended
from robust_asr.defenses.denoise import Denoise
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.gradients import hold
from robust_asr.losses import MultiResolutionSTFT
from robust_asr.models.compact import CompactCTC
from robust_asr.models.conv_tasnet import ConvTasNet
from robust_asr.types import PairedBatch
from tests.command_line import train, write_config
from tests.datamodules.test_attack_pairs import SET, attacked, made  # noqa: F401 - fixtures
from tests.lightning_modules.test_adversarial import ATTACK, SMALL, adversarial_settings
from tests.lightning_modules.test_recognition import FakeTrainer, batch_of, outside_a_trainer  # noqa: F401 - a fixture
from tests.lightning_modules.test_resume import assert_same_run, settings
from tests.toys import ToyCTC

TINY = {"num_filters": 8, "num_feats": 4, "num_hidden": 8, "num_layers": 3}
DENOISE = {
    "class_path": "robust_asr.defenses.denoise.Denoise",
    "init_args": {"network": {"class_path": "robust_asr.models.conv_tasnet.ConvTasNet", "init_args": TINY}},
}


def in_a_trainer(training: AdversarialFinetuning | DenoiserTraining) -> AdversarialFinetuning | DenoiserTraining:
    training.log = lambda *args, **kwargs: None
    training._trainer = FakeTrainer()
    training.on_fit_start()
    return training


def tandem() -> Defended:
    torch.manual_seed(0)
    return Defended(Denoise(ConvTasNet(**TINY)), ToyCTC())


def learned(training: AdversarialFinetuning | DenoiserTraining, batch: PairedBatch) -> dict[str, bool]:
    """Whether each part got a gradient."""
    training.training_step(batch, 0).backward()
    parts = {"denoiser": training.recognizer.defense, "recogniser": training.recognizer.recognizer}
    return {name: any(p.grad is not None and p.grad.any() for p in part.parameters()) for name, part in parts.items()}


def paired() -> PairedBatch:
    batch = batch_of("YES", "NO", "GO ON")
    clean = batch.waveforms.clone()
    noisy = torch.where(clean == 0, 0.0, clean + 0.01)
    return PairedBatch(noisy, batch.lengths, batch.texts, batch.ids, clean)


def test_denoiser_learns_the_distance_to_the_clean_audio() -> None:
    torch.manual_seed(0)
    training = in_a_trainer(DenoiserTraining(ToyCTC(), denoiser=Denoise(ConvTasNet(**TINY))))
    batch = paired()
    denoised, _ = training.recognizer.defense(batch.waveforms, batch.lengths)
    expected = MultiResolutionSTFT()(denoised, batch.clean, batch.lengths).mean()
    torch.testing.assert_close(training.training_step(batch, 0), expected)
    assert learned(training, batch) == {"denoiser": True, "recogniser": False}
    assert training.recognizer.defense.training and not training.recognizer.recognizer.training


def test_denoiser_gets_better() -> None:
    torch.manual_seed(0)
    training = in_a_trainer(DenoiserTraining(ToyCTC(), denoiser=Denoise(ConvTasNet(**TINY))))
    before, batch, losses = weights_hash(training.recognizer.recognizer), paired(), []
    optimizer = torch.optim.Adam([p for p in training.parameters() if p.requires_grad], 1e-2)
    for step in range(12):
        loss = training.training_step(batch, step)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert weights_hash(training.recognizer.recognizer) == before


def test_denoiser_wants_pairs_and_names_what_is_not_finite() -> None:
    training = in_a_trainer(DenoiserTraining(ToyCTC(), denoiser=Denoise(ConvTasNet(**TINY))))
    with pytest.raises(ValueError, match="AttackPairs"):
        training.training_step(batch_of("YES"), 0)
    batch = paired()
    batch.clean[1, 10] = torch.nan
    with pytest.raises(FloatingPointError, match="utterance-1") as error:
        training.training_step(batch, 0)
    assert "utterance-0" not in str(error.value)


@pytest.mark.parametrize("held", [False, True])
def test_who_learns(held: bool) -> None:
    training = in_a_trainer(JointDenoiserASR(tandem(), attack=ATTACK, hold_recognizer=held))
    inner = training.recognizer.recognizer
    before = weights_hash(inner)
    assert learned(training, batch_of("YES", "NO")) == {"denoiser": True, "recogniser": not held}
    assert weights_hash(inner) == before
    trainable = [parameter for parameter in inner.parameters() if parameter.requires_grad]
    assert bool(trainable) is not held
    # The attack put everything back where it was.
    assert inner.training is not held and not inner.encoder.norm.training


@pytest.mark.parametrize("objective", [DenoiserTraining, JointDenoiserASR])
def test_half_precision_where_a_dilation_exceeds_the_frames(objective: type) -> None:
    torch.manual_seed(0)
    denoise = Denoise(ConvTasNet(**{**TINY, "num_layers": 13}))
    more = {} if objective is DenoiserTraining else {"attack": ATTACK}
    training = in_a_trainer(objective(ToyCTC(), denoiser=denoise, **more))
    exact = training.training_step(paired(), 0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = training.training_step(paired(), 0)
    loss.backward()
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0)
    assert all(parameter.grad.isfinite().all() for parameter in denoise.parameters())


def test_a_held_recogniser_is_a_fixed_function_with_gradients() -> None:
    recognizer = ToyCTC().train()
    hold(recognizer)
    assert not any(part.training for part in recognizer.modules())
    batch = batch_of("YES", "NO")
    waveforms, before = batch.waveforms.clone().requires_grad_(True), weights_hash(recognizer)
    losses = [recognizer.loss(waveforms, batch.lengths, recognizer.targets(batch.texts)) for _ in range(2)]
    assert torch.equal(*losses) and torch.autograd.grad(losses[0].sum(), waveforms)[0].any()
    assert weights_hash(recognizer) == before


def test_attack_of_the_tandem_goes_through_the_denoiser() -> None:
    training = in_a_trainer(JointDenoiserASR(tandem(), attack=ATTACK))
    batch = batch_of("YES", "NO")
    attacked_batch = training.perturb(batch)
    system = training.recognizer.eval()
    targets = system.targets(batch.texts)
    clean, worse = (system.loss(each.waveforms, each.lengths, targets) for each in (batch, attacked_batch))
    assert (worse > clean).all()


def test_checkpointing_changes_no_step() -> None:
    found = []
    for checkpointing in (False, True):
        training = in_a_trainer(JointDenoiserASR(tandem(), attack=ATTACK, checkpointing=checkpointing))
        torch.manual_seed(1)
        training.training_step(batch_of("YES", "NO"), 0).backward()
        found.append([parameter.grad for parameter in training.parameters()])
    assert all(torch.equal(plain, again) for plain, again in zip(*found, strict=True))


def test_two_checkpoints_become_one_tandem() -> None:
    denoiser, recognizer = tandem().defense, ToyCTC()
    training = JointDenoiserASR(recognizer, attack=ATTACK, denoiser=denoiser)
    assert training.recognizer.recognizer is recognizer and training.recognizer.defense is denoiser
    for wrong in ({"recognizer": recognizer}, {"recognizer": tandem(), "denoiser": denoiser}):
        with pytest.raises(ValueError, match="recognizer: has"):
            JointDenoiserASR(attack=ATTACK, **wrong)
    with pytest.raises(ValueError, match="denoiser: has no weights to learn"):
        JointDenoiserASR(recognizer, attack=ATTACK, denoiser=GaussianNoise(0.01))


def test_the_denoiser_has_a_learning_rate_of_its_own() -> None:
    training = JointDenoiserASR(tandem(), attack=ATTACK, denoiser_lr=0.25)
    optimizer = torch.optim.AdamW(training.parameters(), lr=0.5, weight_decay=0.125)
    assert RobustCLI.configure_optimizers(training, optimizer) is optimizer
    first, second = optimizer.param_groups
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25] and second["weight_decay"] == 0.125
    assert set(first["params"]) == set(training.recognizer.recognizer.parameters())
    assert second["params"] == list(training.recognizer.defense.parameters())
    with pytest.raises(ValueError, match=r"lr_scheduler: .* model.denoiser_lr"):
        RobustCLI.configure_optimizers(training, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer))
    with pytest.raises(ValueError, match="denoiser_lr must be positive"):
        JointDenoiserASR(tandem(), attack=ATTACK, denoiser_lr=0)


def test_crops_that_do_not_reach_a_tap_are_refused() -> None:
    training = DenoiserTraining(ToyCTC(), denoiser=Denoise(ConvTasNet(**{**TINY, "num_layers": 9})))
    training._trainer = FakeTrainer()
    for crop, refused in ((None, False), (0.129, False), (0.128, True)):
        training._trainer.datamodule = SimpleNamespace(crop_seconds=crop)
        with pytest.raises(ValueError, match=r"0\.128 s to either side") if refused else nullcontext():
            training.setup("fit")
        training.setup("validate")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clean") / "clean.ckpt"
    torch.manual_seed(3)
    checkpoint.save(CompactCTC(**SMALL), path)
    return path


LOAD_DEFENSE = "robust_asr.checkpoint.load_defense"


def load(path: Path) -> dict:
    return {"class_path": "robust_asr.checkpoint.load", "init_args": {"path": str(path)}}


def denoiser_settings(manifests: Path, attacks: Path, clean: Path, run_dir: Path, callbacks: list) -> dict:
    config = settings(manifests, run_dir, 2, 0, callbacks)
    config["model"]["class_path"] = "lightning_modules.denoiser.DenoiserTraining"
    config["model"]["init_args"] |= {"recognizer": load(clean), "denoiser": DENOISE}
    config["data"]["class_path"] = "datamodules.AttackPairs"
    config["data"]["init_args"] |= {"sets": {str(attacks / SET): 1.5}, "crop_seconds": 0.2, "max_duration": 3.0}
    config["trainer"]["max_epochs"] = 2
    return config


def record(path: Path) -> dict:
    return {"class_path": "tests.callbacks.RecordWeights", "init_args": {"path": str(path)}}


@pytest.fixture(scope="module")
def denoiser(tiny_manifests: Path, made: Path, clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The folder of a denoiser trained on two ranks."""
    folder = tmp_path_factory.mktemp("denoiser")
    config = denoiser_settings(tiny_manifests, made, clean, folder / "run", [record(folder / "weights")])
    result = train("fit", "--config", write_config(folder / "c.yaml", config), timeout=600)
    assert result.returncode == 0, result.stdout
    return folder


def test_pairs_to_denoiser_to_joint_finetuning_on_two_ranks(
    denoiser: Path, tiny_manifests: Path, clean: Path, tmp_path: Path
) -> None:
    assert (denoiser / "weights.0").read_text() == (denoiser / "weights.1").read_text()
    before = checkpoint.load(str(denoiser / "run" / "checkpoints" / "last.ckpt"))
    assert weights_hash(before.recognizer) == weights_hash(checkpoint.load(str(clean)))

    config = adversarial_settings(tiny_manifests, tmp_path / "run", 2, [record(tmp_path / "weights")])
    config["model"]["class_path"] = "lightning_modules.joint.JointDenoiserASR"
    config["model"]["init_args"] |= {
        "recognizer": load(clean),
        "denoiser": {**load(denoiser / "run" / "checkpoints" / "last.ckpt"), "class_path": LOAD_DEFENSE},
        "hold_recognizer": True,
        "denoiser_lr": 1.0e-3,
    }
    config.pop("lr_scheduler")
    config["trainer"] |= {"max_epochs": 1, "limit_train_batches": 3}
    result = train("fit", "--config", write_config(tmp_path / "j.yaml", config), timeout=600)
    assert result.returncode == 0, result.stdout
    assert (tmp_path / "weights.0").read_text() == (tmp_path / "weights.1").read_text()
    after = checkpoint.load(str(tmp_path / "run" / "checkpoints" / "last.ckpt"))
    assert weights_hash(after.recognizer) == weights_hash(before.recognizer)
    assert weights_hash(after.defense) != weights_hash(before.defense)
    alone = checkpoint.load_defense(str(tmp_path / "run" / "checkpoints" / "last.ckpt"))
    assert weights_hash(alone) == weights_hash(after.defense)


@pytest.mark.long
def test_denoiser_killed_and_resumed_is_bit_identical(
    denoiser: Path,
    tiny_manifests: Path,
    made: Path,  # noqa: F811
    clean: Path,
    tmp_path: Path,
) -> None:
    kill = {"class_path": "tests.callbacks.KillAt", "init_args": {"epoch": 1, "batch": 1, "rank": 1}}
    config = denoiser_settings(tiny_manifests, made, clean, tmp_path / "run", [kill])
    assert train("fit", "--config", write_config(tmp_path / "k.yaml", config), timeout=600).returncode != 0
    config["trainer"]["callbacks"] = []
    result = train("fit", "--config", write_config(tmp_path / "r.yaml", config), "--ckpt_path", "last", timeout=600)
    assert result.returncode == 0, result.stdout
    assert_same_run(tmp_path / "run", denoiser / "run")
