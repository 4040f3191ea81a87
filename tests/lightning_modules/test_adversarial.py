"""Adversarial fine-tuning: what the attack sees, what it leaves alone, in sync over ranks, exact after a kill inside it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from datamodules import Speech
from lightning_modules.adversarial import AdversarialFinetuning
from lightning_modules.callbacks.overfitting import CatastrophicOverfitting
from robust_asr.attacks.fgsm import FGSM
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.checkpoint import weights_hash
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.threat import Linf
from robust_asr.threat.ranges import LinfRange
from tests.command_line import train, write_config
from tests.lightning_modules.test_recognition import FakeTrainer, batch_of, module, outside_a_trainer  # noqa: F401 - a fixture
from tests.lightning_modules.test_resume import assert_same_run, settings
from tests.toys import ToyCTC

EPS = (1e-5, 1e-2)
ATTACK = PaperPGD(LinfRange(*EPS), num_iterations=3)
SMALL = {"width": 16, "gru_width": 8, "stem_channels": 4, "num_blocks": 1}


class KillInAttack(Callback):
    """SIGKILL in the middle of the attack of one batch: at its second pass through the head."""

    def __init__(self, epoch: int, batch: int, rank: int) -> None:
        self.epoch, self.batch, self.rank = epoch, batch, rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx, trainer.global_rank) != (self.epoch, self.batch, self.rank):
            return
        passes: Iterator[int] = iter(range(1000))

        def count(head, arguments) -> None:
            if next(passes) == 1:
                assert not head.training and not head.weight.requires_grad, "this is the attack"
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(0.1)

        pl_module.recognizer.head.register_forward_pre_hook(count)


def finetuning(**arguments: object) -> AdversarialFinetuning:
    training = module(AdversarialFinetuning, attack=ATTACK, **arguments)
    training.recognizer = ToyCTC()
    training.on_fit_start()
    return training


def modes(recognizer: Recognizer) -> dict[str, bool]:
    return {name: part.training for name, part in recognizer.named_modules()}


def test_attack_sees_a_fixed_function_and_the_update_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    training = finetuning()
    seen = []
    plain = training.recognizer.loss
    monkeypatch.setattr(
        training.recognizer, "loss", lambda *a, **k: seen.append(modes(training.recognizer)) or plain(*a, **k)
    )
    training.training_step(batch_of("YES", "NO"), 0)
    *attack, update = seen
    assert len(attack) == ATTACK.num_iterations
    assert not any(any(found.values()) for found in attack)
    assert {name for name, on in update.items() if not on} == {"encoder.norm"}


def test_attack_leaves_the_model_as_it_was() -> None:
    training = finetuning()
    batch = batch_of("YES", "NO")
    before, found = weights_hash(training.recognizer), modes(training.recognizer)
    training.perturb(batch)
    assert weights_hash(training.recognizer) == before
    assert modes(training.recognizer) == found
    assert all(parameter.grad is None and parameter.requires_grad for parameter in training.parameters())


def test_batch_norm_statistics_stay_and_its_scale_learns() -> None:
    training = finetuning()
    norm = training.recognizer.encoder.norm
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    training.training_step(batch_of("YES", "NO"), 0).backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in norm.named_buffers())
    assert norm.weight.grad.any() and norm.bias.grad.any()


def test_loss_rises_and_the_bound_of_each_utterance_holds() -> None:
    training = finetuning(seed=5)
    batch = batch_of("YES", "NO", "GO ON", "STOP")
    attacked = training.perturb(batch)
    threat = LinfRange(*EPS, seed=5, step=0)
    assert threat.contains(attacked.waveforms, batch).all()
    recognizer = training.recognizer.eval()
    losses = [
        recognizer.loss(each.waveforms, each.lengths, recognizer.targets(each.texts)) for each in (batch, attacked)
    ]
    assert (losses[1] > losses[0]).all()


def test_what_is_drawn_is_keyed_by_utterance_and_epoch() -> None:
    training = finetuning(clean_share=0.5)
    batch = batch_of(*["YES"] * 8)
    together = training.perturb(batch).waveforms
    for row in range(8):
        alone = batch.select([row])
        found = training.perturb(alone).waveforms
        torch.testing.assert_close(found[0], together[row, : found.shape[1]], rtol=0, atol=2e-4)
        assert torch.equal(found, alone.waveforms) == torch.equal(together[row], batch.waveforms[row])
    training.epoch = 1
    sizes = [(waveforms - batch.waveforms).abs().amax(1) for waveforms in (together, training.perturb(batch).waveforms)]
    assert not (sizes[0] == sizes[1])[(sizes[0] > 0) | (sizes[1] > 0)].any()


def test_clean_share_is_a_share_of_the_utterances() -> None:
    training = finetuning(clean_share=0.25)
    batch = batch_of(*["YES"] * 10, seconds=0.8)
    changed = []
    for training.epoch in range(30):
        changed += ((training.perturb(batch).waveforms - batch.waveforms).abs().amax(1) > 0).tolist()
    assert sum(changed) / len(changed) == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 300) ** 0.5)


def test_an_utterance_that_cannot_be_attacked_stays_clean_and_the_others_go_on() -> None:
    training = finetuning()
    batch = batch_of("YES", "A VERY LONG SENTENCE " * 20)
    changed = (training.perturb(batch).waveforms - batch.waveforms).abs().amax(1) > 0
    assert changed.tolist() == [True, False]


def test_cost_is_the_step_over_the_step_without_its_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    training = finetuning()
    assert training.cost_ratio == 1.0, "nothing measured yet"
    clock = iter([0.0, 1.0, 7.0, 10.0])
    monkeypatch.setattr(training, "_now", lambda: next(clock))
    monkeypatch.setattr(FakeTrainer, "global_rank", 0, raising=False)
    batch = batch_of("YES")
    training.on_train_batch_start(batch, 0)
    training.perturb(batch)
    training.on_train_batch_end(None, batch, 0)
    assert training.cost_ratio == pytest.approx(10 / (10 - 6))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_clean_share_is_checked(share: float) -> None:
    with pytest.raises(ValueError, match="clean_share"):
        AdversarialFinetuning(ToyCTC(), attack=ATTACK, clean_share=share)


def test_alarm_needs_both_signs_and_survives_a_resume() -> None:
    alarm = CatastrophicOverfitting(ATTACK, FGSM(Linf(1e-3)), margin=0.05)
    assert not alarm.is_overfitted(0.9, 0.1), "nothing to compare with yet"
    alarm.load_state_dict({"best": [0.5, 0.4]})
    assert alarm.is_overfitted(0.6, 0.3)
    assert not alarm.is_overfitted(0.54, 0.3), "within the margin"
    assert not alarm.is_overfitted(0.6, 0.45), "worse under both: no overfitting to one"
    again = CatastrophicOverfitting(ATTACK, FGSM(Linf(1e-3)))
    again.load_state_dict(alarm.state_dict())
    assert again.state_dict() == {"best": [0.5, 0.4]}


def test_alarm_without_anything_to_look_at_is_refused() -> None:
    data = Speech("manifests", train=["train"])
    with pytest.raises(ValueError, match="validate names none"):
        CatastrophicOverfitting(ATTACK, FGSM(Linf(1e-3))).on_fit_start(SimpleNamespace(datamodule=data), None)


def adversarial_settings(
    manifests: Path, run_dir: Path, ranks: int, callbacks: list, *, clean_share: float = 0.25
) -> dict:
    config = settings(manifests, run_dir, ranks, 0, callbacks)
    threat = {"class_path": "robust_asr.threat.ranges.LinfRange", "init_args": {"eps_min": 1e-5, "eps_max": 1e-3}}
    attack = {"class_path": "robust_asr.attacks.pgd.PaperPGD", "init_args": {"threat": threat, "num_iterations": 3}}
    config["model"]["class_path"] = "lightning_modules.adversarial.AdversarialFinetuning"
    config["model"]["init_args"] |= {"attack": attack, "clean_share": clean_share}
    config["model"]["init_args"]["recognizer"]["init_args"] = SMALL
    config["trainer"]["max_epochs"] = 2
    fixed = {"class_path": "robust_asr.threat.Linf", "init_args": {"eps": 1e-3}}
    single = {"class_path": "robust_asr.attacks.fgsm.FGSM", "init_args": {"threat": fixed}}
    alarm = {"strong": attack, "single_step": single, "num_batches": 1}
    config["trainer"]["callbacks"] = [
        *callbacks,
        {"class_path": "lightning_modules.callbacks.overfitting.CatastrophicOverfitting", "init_args": alarm},
    ]
    return config


@pytest.fixture(scope="module")
def two_ranks(tiny_manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adversarial")
    record = {"class_path": "tests.callbacks.RecordWeights", "init_args": {"path": str(folder / "weights")}}
    config = adversarial_settings(tiny_manifests, folder / "run", 2, [record])
    result = train("fit", "--config", write_config(folder / "c.yaml", config), timeout=600)
    assert result.returncode == 0, result.stdout
    assert "clean epochs" in result.stdout
    return folder


def test_two_ranks_stay_in_sync_and_log_what_it_costs(two_ranks: Path) -> None:
    assert (two_ranks / "weights.0").read_text() == (two_ranks / "weights.1").read_text()
    columns = (two_ranks / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"time/cost_ratio", "val/strong_wer", "val/single_step_wer"} <= set(columns)


def test_killed_in_the_inner_loop_and_resumed_is_bit_identical(
    two_ranks: Path, tiny_manifests: Path, tmp_path: Path
) -> None:
    kill = {
        "class_path": "tests.lightning_modules.test_adversarial.KillInAttack",
        "init_args": {"epoch": 1, "batch": 1, "rank": 1},
    }
    killed = adversarial_settings(tiny_manifests, tmp_path / "run", 2, [kill])
    assert train("fit", "--config", write_config(tmp_path / "k.yaml", killed), timeout=600).returncode != 0
    config = adversarial_settings(tiny_manifests, tmp_path / "run", 2, [])
    result = train("fit", "--config", write_config(tmp_path / "c.yaml", config), "--ckpt_path", "last", timeout=600)
    assert result.returncode == 0, result.stdout
    assert_same_run(tmp_path / "run", two_ranks / "run")


@pytest.mark.long
def test_two_ranks_are_in_sync_after_two_hundred_steps(tiny_manifests: Path, tmp_path: Path) -> None:
    record = {"class_path": "tests.callbacks.RecordWeights", "init_args": {"path": str(tmp_path / "weights")}}
    config = adversarial_settings(tiny_manifests, tmp_path / "run", 2, [record])
    config["trainer"] |= {"max_epochs": -1, "max_steps": 200}
    result = train("fit", "--config", write_config(tmp_path / "c.yaml", config), timeout=1800)
    assert result.returncode == 0, result.stdout
    assert (tmp_path / "weights.0").read_text() == (tmp_path / "weights.1").read_text()


def test_seeds_of_the_attack_are_those_of_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    training = finetuning(seed=3)
    training.epoch = 2
    batch, seen = batch_of("YES", "NO"), []
    plain = PaperPGD.generate
    monkeypatch.setattr(
        PaperPGD, "generate", lambda self, *a, seeds: seen.append((self.threat, seeds)) or plain(self, *a, seeds=seeds)
    )
    training.perturb(batch)
    ((threat, seeds),) = seen
    assert threat == LinfRange(*EPS, seed=3, step=2)
    assert torch.equal(seeds, utterance_seeds(3, batch.ids, step=2))
