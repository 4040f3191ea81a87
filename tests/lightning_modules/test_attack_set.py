"""Adversarial sets: the same on any number of ranks and after kills, measured on what the files hold, playable to any system."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import soundfile
import torch

from datamodules import Speech
from datamodules.manifest import Manifest
from datamodules.subsets import sample
from lightning_modules.command_line.cli import main
from robust_asr import checkpoint
from robust_asr.attacks.goals import Targeted
from robust_asr.attacks.noise import Gaussian
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.phrases import PhraseList
from robust_asr.attacks.saved import Saved
from robust_asr.attacks.steps import Constant
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.measuring.audio import quantized
from robust_asr.metrics import snr_db
from robust_asr.models.compact import CompactCTC
from robust_asr.randomness import utterance_seeds
from robust_asr.results import audio_path, read_evaluation
from robust_asr.threat import Linf
from tests.command_line import train, write_config
from tests.lightning_modules.test_evaluation import GLOO, SMALL, rows_of

EPS = 1e-3


@pytest.fixture(scope="module")
def recognizers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("systems")
    for seed in (0, 1):
        torch.manual_seed(seed)
        checkpoint.save(CompactCTC(**SMALL), str(folder / f"{seed}.ckpt"))
    return [str(folder / f"{seed}.ckpt") for seed in (0, 1)]


@pytest.fixture
def config(tiny_manifests: Path, recognizers: list[str], tmp_path: Path) -> dict:
    targets = {"class_path": "robust_asr.attacks.phrases.PhraseList", "init_args": {"texts": ["RED", "BLUE GREEN"]}}
    attack = {
        "class_path": "robust_asr.attacks.pgd.PaperPGD",
        "init_args": {
            "threat": {"class_path": "robust_asr.threat.Linf", "init_args": {"eps": EPS}},
            "goal": {"class_path": "robust_asr.attacks.goals.Targeted", "init_args": {"phrases": targets}},
            "num_iterations": 3,
        },
    }
    load = {"class_path": "robust_asr.checkpoint.load", "init_args": {"path": recognizers[0]}}
    return {
        "run_dir": str(tmp_path / "set"),
        "model": {
            "class_path": "lightning_modules.attack_set.AttackSet",
            "init_args": {"recognizer": load, "attack": attack},
        },
        "data": {
            "class_path": "datamodules.Speech",
            "init_args": {"manifests": str(tiny_manifests), "predict": ["dev"], "max_duration": 5.0},
        },
        "trainer": {"accelerator": "cpu", "devices": 1, "enable_model_summary": False},
    }


@pytest.fixture
def made(config: dict, tmp_path: Path) -> Path:
    main(["predict", "--config", str(write_config(tmp_path / "c.yaml", config))])
    return tmp_path / "set"


def clean_part(manifests: Path) -> Speech:
    data = Speech(str(manifests), test=["dev"], max_duration=5.0)
    data.setup("test")
    return data


def test_rows_are_measured_on_the_files(made: Path, tiny_manifests: Path) -> None:
    """Defect 17 of other systems: audio saved in 16 bits no longer fools the model."""
    evaluation = read_evaluation(made)
    rows = {row["id"]: row for row in evaluation.rows}
    assert len(rows) == 10 and all(row["target"] in ("RED", "BLUE GREEN") for row in rows.values())
    for batch in clean_part(tiny_manifests).test_dataloader()[0]:
        for index, length in enumerate(batch.lengths.tolist()):
            row = rows[batch.ids[index]]
            path = audio_path(made, row["system"], row["condition"], row["part"], row["id"])
            samples, rate = soundfile.read(path, dtype="float32")
            clean, saved = batch.waveforms[index, :length], torch.from_numpy(samples)
            assert rate == 16_000 and soundfile.info(path).subtype == "PCM_24"
            assert row["snr_db"] == pytest.approx(snr_db(clean, saved), abs=1e-3)
            assert 0 < float((saved - clean).abs().max()) <= EPS + 1e-9


def test_manifest_of_a_set_is_data_like_any_other(made: Path) -> None:
    data = Speech(str(made), test=["dev"])
    data.setup("test")
    batches = list(data.test_dataloader()[0])
    assert sum(len(batch) for batch in batches) == 10
    assert len(list(Manifest(made / "dev.jsonl.gz").verified())) == 10


def test_saved_set_plays_to_any_system(made: Path, tiny_manifests: Path, recognizers: list[str]) -> None:
    saved = Saved(str(made))
    rows = {row["id"]: row for row in read_evaluation(made).rows}
    assert saved.columns() == {
        "attack": "PGD-3 targeted",
        "norm": "Linf",
        "strength": EPS,
        "strength_unit": "amplitude",
        "knowledge": "transfer",
    }
    plain = [checkpoint.load(path) for path in recognizers]
    for recognizer in (*plain, Defended(GaussianNoise(0.01), plain[0])):
        for batch in clean_part(tiny_manifests).test_dataloader()[0]:
            result = saved(recognizer, batch, seeds=utterance_seeds(0, batch.ids))
            assert result.targeted and result.texts == tuple(rows[utterance]["target"] for utterance in batch.ids)
            if recognizer is plain[0]:
                assert list(result.hypotheses) == [rows[utterance]["hypothesis"] for utterance in batch.ids]


def test_a_changed_file_or_set_is_named(made: Path, tiny_manifests: Path, recognizers: list[str]) -> None:
    saved, recognizer = Saved(str(made)), checkpoint.load(recognizers[0])
    batch = next(iter(clean_part(tiny_manifests).test_dataloader()[0]))
    row = saved.row(batch.ids[0])
    path = audio_path(made, row["system"], row["condition"], row["part"], row["id"])
    samples, rate = soundfile.read(path)
    soundfile.write(path, 0.5 * samples, rate, subtype="PCM_24")
    with pytest.raises(ValueError, match=f"not the audio that the set recorded for utterance {batch.ids[0]}"):
        saved(recognizer, batch, seeds=utterance_seeds(0, batch.ids))
    outside = path.rename(made.parent / "outside.flac")
    for make, message in (
        (lambda: None, "cannot be read"),
        (lambda: path.symlink_to(outside), "is a link to a file outside the set"),
        (lambda: os.mkfifo(path), "cannot be read .*is not a regular file"),
        (lambda: soundfile.write(path, samples, rate, format="OGG", subtype="VORBIS"), "is neither FLAC nor WAV"),
    ):
        path.unlink(missing_ok=True)
        make()
        with pytest.raises(ValueError, match=message):
            saved(recognizer, batch, seeds=utterance_seeds(0, batch.ids))
    lines = (made / "results.jsonl").read_text().splitlines()
    (made / "results.jsonl").write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(ValueError, match="has changed"):
        Saved(str(made), digest=saved.digest)
    missing = json.loads(lines[0])["id"]
    with pytest.raises(ValueError, match=f"holds no utterance {missing}"):
        Saved(str(made)).row(missing)


def test_kill_and_ranks_make_the_same_set_of_so_many_hours(config: dict, tiny_manifests: Path, tmp_path: Path) -> None:
    chosen = sample(Manifest(tiny_manifests / "dev.jsonl.gz"))[:7]
    config["data"]["init_args"]["eval_hours"] = sum(cut.duration for cut in chosen) / 3600 + 1e-6
    main(["predict", "--config", str(write_config(tmp_path / "c.yaml", config))])
    made = tmp_path / "set"
    assert {row["id"] for row in read_evaluation(made).rows} == {cut.id for cut in chosen}
    killer = {"class_path": "tests.callbacks.KillInEvaluation", "init_args": {"after": 3, "rank": 1}}
    again = {
        **config,
        "run_dir": str(tmp_path / "again"),
        "trainer": {**config["trainer"], **GLOO, "callbacks": [killer]},
    }
    assert train("predict", "--config", write_config(tmp_path / "k.yaml", again)).returncode != 0
    again["trainer"] = {**config["trainer"], **GLOO}
    result = train("predict", "--config", write_config(tmp_path / "k.yaml", again))
    assert result.returncode == 0, result.stdout
    assert rows_of(tmp_path / "again") == rows_of(made)
    files = [{path.name: path.read_bytes() for path in (run / "audio").iterdir()} for run in (made, tmp_path / "again")]
    assert files[0] == files[1] and len(files[0]) == 7
    assert (made / "dev.jsonl.gz").read_bytes() == (tmp_path / "again" / "dev.jsonl.gz").read_bytes()


def test_quantisation_goes_inwards(tiny_manifests: Path) -> None:
    batch = next(iter(clean_part(tiny_manifests).test_dataloader()[0]))
    for eps in (1e-6, 3e-5, 1e-4):
        attack = PaperPGD(Linf(eps), goal=Targeted(PhraseList(("RED",))), num_iterations=1, steps=Constant(1.0))
        noisy = batch.waveforms + eps * torch.sign(Gaussian(sigma=1.0).unit_noise(batch, utterance_seeds(0, batch.ids)))
        saved = quantized(noisy.clamp(-1, 1), batch.waveforms)
        assert bool(attack.threat.contains(saved, batch).all())
        assert float((saved - noisy).abs().max()) <= 2.0**-23
        assert not (saved.signbit() & (saved == 0)).any(), "a file holds no negative zero"


def test_the_verdict_on_saved_audio_is_in_float32_whatever_the_trainer_says(
    made: Path, config: dict, tmp_path: Path
) -> None:
    """A recogniser in half precision is another system than the one of every other row."""
    half = {**config, "run_dir": str(tmp_path / "half"), "trainer": {**config["trainer"], "precision": "bf16-mixed"}}
    main(["predict", "--config", str(write_config(tmp_path / "half.yaml", half))])
    assert rows_of(tmp_path / "half") == rows_of(made)
