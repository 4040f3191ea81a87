"""Pairs of attacked and clean audio: aligned, keyed, shared by ranks, resumed exactly, refused where they are wrong."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from datamodules import AttackPairs
from datamodules.pairs.paired_set import PairSampler
from lightning_modules.command_line.cli import main
from robust_asr import checkpoint
from robust_asr.models.compact import CompactCTC
from robust_asr.types import PairedBatch
from tests.command_line import write_config

SMALL = {"width": 16, "gru_width": 8, "stem_channels": 4, "num_blocks": 1}
EPS = 1e-3
SET = "train.jsonl.gz"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("attacked")
    for seed in (0, 1):
        torch.manual_seed(seed)
        checkpoint.save(CompactCTC(**SMALL), folder / f"{seed}.ckpt")
    return [str(folder / f"{seed}.ckpt") for seed in (0, 1)]


@pytest.fixture(scope="module")
def made(tiny_manifests: Path, attacked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of the 40 training utterances, against the first checkpoint."""
    folder = tmp_path_factory.mktemp("made")
    threat = {"class_path": "robust_asr.threat.Linf", "init_args": {"eps": EPS}}
    config = {
        "run_dir": str(folder / "set"),
        "model": {
            "class_path": "lightning_modules.attack_set.AttackSet",
            "init_args": {
                "recognizer": {"class_path": "robust_asr.checkpoint.load", "init_args": {"path": attacked[0]}},
                "attack": {
                    "class_path": "robust_asr.attacks.fgsm.FGSM",
                    "init_args": {"threat": threat},
                },
            },
        },
        "data": {
            "class_path": "datamodules.Speech",
            "init_args": {"manifests": str(tiny_manifests), "predict": ["train"], "max_duration": 20.0},
        },
        "trainer": {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False},
    }
    main(["predict", "--config", str(write_config(folder / "c.yaml", config))])
    return folder / "set"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A set that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def pairs(manifests: Path, sets: dict[Path, float], **settings: object) -> AttackPairs:
    arguments = {"train": ["train"], "max_duration": 6.0, "num_buckets": 2, **settings}
    return AttackPairs(str(manifests), {str(folder / SET): weight for folder, weight in sets.items()}, **arguments)


def batches(data: AttackPairs, *, epoch: int = 0) -> list[PairedBatch]:
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_an_epoch_brings_every_pair_once_and_both_sides_are_aligned(made: Path, tiny_manifests: Path) -> None:
    found = batches(pairs(tiny_manifests, {made: 1.0}, clean_share=0.0, crop_seconds=None))
    assert len({utterance for batch in found for utterance in batch.ids}) == sum(map(len, found)) == 40
    for batch in found:
        assert all(batch.texts)
        differences = (batch.waveforms - batch.clean).abs().amax(1)
        assert ((differences > EPS / 2) & (differences <= EPS * 1.001)).all()
        for row, length in enumerate(batch.lengths.tolist()):
            assert batch.clean[row, :length].any() and not batch.clean[row, length:].any()


def test_crops_are_of_the_same_stretch_and_have_no_text(made: Path, tiny_manifests: Path) -> None:
    data = pairs(tiny_manifests, {made: 1.0}, clean_share=0.0, crop_seconds=0.3)
    first, second = batches(data, epoch=0), batches(data, epoch=1)
    assert all(length <= 4800 for batch in first for length in batch.lengths.tolist())
    assert all((batch.waveforms - batch.clean).abs().max() <= EPS * 1.001 for batch in first)
    assert not any(text for batch in first for text in batch.texts)
    crops = [
        {name: batch.clean[row] for batch in epoch for row, name in enumerate(batch.ids)} for epoch in (first, second)
    ]
    moved = [not torch.equal(crops[0][name], crops[1][name]) for name in crops[0]]
    assert sum(moved) > 30, "another stretch in the next epoch"


def test_a_share_is_clean_on_both_sides_and_another_in_each_epoch(made: Path, tiny_manifests: Path) -> None:
    data = pairs(tiny_manifests, {made: 1.0}, clean_share=0.3)
    clean = [
        {
            name
            for batch in batches(data, epoch=epoch)
            for row, name in enumerate(batch.ids)
            if torch.equal(batch.waveforms[row], batch.clean[row])
        }
        for epoch in range(10)
    ]
    assert sum(map(len, clean)) / 400 == pytest.approx(0.3, abs=4 * (0.21 / 400) ** 0.5)
    assert len(set(map(frozenset, clean))) > 1


def test_weights_are_how_often_an_epoch_brings_a_pair(made: Path, copy: Path, tiny_manifests: Path) -> None:
    data = pairs(tiny_manifests, {made: 0.5, copy: 2.0})
    counts: Counter[str] = Counter()
    for epoch in range(6):
        names = [name for batch in batches(data, epoch=epoch) for name in batch.ids]
        assert len(names) == len(set(names))
        counts.update(name.split("@")[1].split("#")[0] for name in names)
    assert counts["copy-train"] == 6 * 2 * 40
    assert counts["set-train"] == pytest.approx(6 * 20, abs=4 * (240 * 0.25) ** 0.5)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_pairs_and_a_resume_continues(made: Path, tiny_manifests: Path, world_size: int) -> None:
    data = pairs(tiny_manifests, {made: 1.0})
    data.setup("fit")

    def ids(rank: int, epoch: int, done: int = 0) -> list[list[str]]:
        settings = {"max_duration": 6.0, "num_buckets": 2, "seed": 0, "rank": rank, "world_size": world_size}
        sampler = PairSampler(data._training, **settings)
        sampler.resume_at(epoch=epoch, num_batches=done)
        return [[cut.id for cut in batch] for batch in sampler]

    ranks = [ids(rank, 1) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    names = [name for batches in ranks for batch in batches for name in batch]
    assert len(names) == len(set(names)) == 40
    assert [ids(rank, 1, done=1) for rank in range(world_size)] == [batches[1:] for batches in ranks]


def test_a_set_made_against_another_model_is_refused(made: Path, attacked: list[str], tiny_manifests: Path) -> None:
    pairs(tiny_manifests, {made: 1.0}, attacked=attacked[0]).setup("fit")
    with pytest.raises(ValueError, match="was made against weights"):
        pairs(tiny_manifests, {made: 1.0}, attacked=attacked[1]).setup("fit")


def test_two_sets_of_one_name_are_refused(made: Path, tiny_manifests: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(made, tmp_path / made.name))
    with pytest.raises(ValueError, match="both called set-train"):
        pairs(tiny_manifests, {made: 1.0, other: 1.0}).setup("fit")


def test_missing_and_damaged_files_are_named(copy: Path, tiny_manifests: Path) -> None:
    files = sorted((copy / "audio").iterdir())
    content = bytearray(files[0].read_bytes())
    content[len(content) // 2] ^= 0xFF
    files[0].write_bytes(content)
    with pytest.raises(ValueError, match=files[0].name):
        batches(pairs(tiny_manifests, {copy: 1.0}, clean_share=0.0))
    files[1].unlink()
    with pytest.raises(ValueError, match=f"{files[1].name}.*cannot be found"):
        pairs(tiny_manifests, {copy: 1.0}).setup("fit")


def test_an_utterance_without_its_clean_audio_is_named(copy: Path, tiny_manifests: Path) -> None:
    with pytest.raises(ValueError, match="is in none of the parts"):
        pairs(tiny_manifests, {copy: 1.0}, train=["dev"]).setup("fit")
    lines = [json.loads(line) for line in gzip.decompress((copy / SET).read_bytes()).splitlines()]
    lines[3]["supervisions"][0]["text"] = "OTHER WORDS"
    with gzip.open(copy / SET, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    with pytest.raises(ValueError, match=f"{lines[3]['id']}.*field 'text'"):
        pairs(tiny_manifests, {copy: 1.0}).setup("fit")


def test_evaluation_is_that_of_the_corpus(made: Path, tiny_manifests: Path) -> None:
    data = pairs(tiny_manifests, {made: 1.0}, validate=["dev", str(made / SET)])
    data.setup("fit")
    assert data.dataloader_names("validate") == ["dev", "set-train"]
    sizes = [sum(len(batch) for batch in loader) for loader in data.val_dataloader()]
    assert sizes == [10, 40]


def test_a_batch_keeps_its_sides_together() -> None:
    batch = PairedBatch(torch.rand(3, 9), torch.tensor([9, 5, 7]), ("A", "B", "C"), ("a", "b", "c"), torch.rand(3, 9))
    part = batch.select([1, 2])
    assert part.clean.shape == part.waveforms.shape == (2, 7)
    assert torch.equal(part.clean, batch.clean[1:, :7])
    moved = batch.to("cpu")
    assert isinstance(moved, PairedBatch) and torch.equal(moved.clean, batch.clean)
    with pytest.raises(ValueError, match="one entry per utterance"):
        PairedBatch(torch.rand(2, 9), torch.tensor([9, 5]), ("A", "B"), ("a", "b"), torch.rand(3, 9))


@pytest.mark.parametrize(
    ("field", "value"), [("clean_share", 1.0), ("crop_seconds", 0.0), ("crop_seconds", float("nan"))]
)
def test_settings_are_checked(tiny_manifests: Path, tmp_path: Path, field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        pairs(tiny_manifests, {tmp_path: 1.0}, **{field: value})
    with pytest.raises(ValueError, match="shar and speed_perturb"):
        pairs(tiny_manifests, {tmp_path: 1.0}, speed_perturb=True)
    with pytest.raises(ValueError, match="weight"):
        pairs(tiny_manifests, {tmp_path: 0.0})
