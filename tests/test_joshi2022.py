"""The chain of JO22's recipes, each for a step on the tiny corpus: what one writes, the next one reads."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_modules.command_line.cli import main
from lightning_modules.command_line.values import Values
from robust_asr import checkpoint
from robust_asr.checkpoint import weights_hash
from robust_asr.defenses.base import Defended
from robust_asr.models.compact import CompactCTC
from robust_asr.models.conformer import ConformerEncoder
from robust_asr.models.conformer_lfmmi import ConformerLFMMI
from robust_asr.results import read_evaluation
from tests.command_line import ROOT, full_settings

SMALL = {"width": 16, "gru_width": 8, "stem_channels": 4, "num_blocks": 1}
RECIPES = ROOT / "recipes" / "joshi2022"
SCALES = ("an4", "an4_conformer", "librispeech")
PRINTED = {"table3": "joshi2022_table3_fgsm_pgd7.csv", "table4": "joshi2022_table4_pgd500.csv"}
PHRASES, WORDS = str(ROOT / "tests" / "phrases.txt"), str(ROOT / "tests" / "words.txt")


def at_scale(name: str, scale: str) -> dict:
    """The settings of a recipe of the chain at a scale."""
    return full_settings(RECIPES / f"{name}.yaml", f"--values={ROOT / 'configs' / 'scale' / scale}.yaml")


class Chain:
    """The recipes at a scale with their paths moved below ``out`` and everything small."""

    def __init__(self, scale: str, manifests: Path, out: Path) -> None:
        self.scale, self.manifests, self.out = scale, manifests, out
        self.baseline = out / "baseline.ckpt"
        torch.manual_seed(0)
        checkpoint.save(CompactCTC(**SMALL) if scale == "an4" else _hears_phones(), self.baseline)

    def run(self, command: str, name: str) -> Path:
        """Run a recipe; where its run folder is."""
        settings = self._small(at_scale(name, self.scale))
        run_dir = self.out / name
        settings["run_dir"], data = str(run_dir), settings["data"]
        data["init_args"] |= {"manifests": str(self.manifests), "max_duration": 4.0, "num_workers": 0}
        if command == "predict":
            data["init_args"] |= {"predict": ["train"], "eval_utterances": 4}
        elif command == "test":
            data["init_args"] |= {"test": ["dev"], "eval_utterances": 2, "eval_subset": None}
        else:
            data["init_args"] |= {"train": ["train"], "validate": ["dev"]}
        settings["trainer"] = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "logger": False}
        if command == "fit":
            settings["trainer"] |= {"max_steps": 1, "max_epochs": 1, "limit_val_batches": 1}
            settings["checkpoint"] = {"every_n_steps": 1}
        path = self.out / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        main([command, "--config", str(path)])
        return run_dir

    def _small(self, node: Any) -> Any:
        """Checkpoints and sets are those of this chain; networks and attacks are tiny."""
        if isinstance(node, list):
            return [self._small(item) for item in node]
        if isinstance(node, str):
            return self._moved(node)
        if not isinstance(node, dict):
            return node
        small = {self._moved(key): self._small(value) for key, value in node.items()}
        kind = str(small.get("class_path")).rsplit(".", 1)[-1]
        if kind == "OfflinePGD":
            small.setdefault("init_args", {})["iterations"] = [1, 2]
        if kind == "PaperPGD":
            small["init_args"] |= {"num_iterations": 2, "precision": "32-true"}
        if kind == "PhoneBeamSearch":
            small["init_args"] = {"lexicon": WORDS}
        if kind == "ConvTasNet":
            small["init_args"] = {"num_filters": 8, "num_feats": 4, "num_hidden": 8, "num_layers": 3}
        return small

    def _moved(self, text: str) -> Any:
        path = Path(text)
        if path.suffix == ".ckpt" and {"baseline", "conformer_lfmmi"} & set(path.parts):
            return str(self.baseline)
        if path.suffix == ".ckpt":
            # Trained by the same recipe with other settings.
            run = path.parent.parent.name.replace("unmixed", "asr")
            return str(self.out / run / "checkpoints" / "last.ckpt")
        if path.parent.name.startswith("offline"):
            return str(self.out / path.parent.name / "train.jsonl.gz")
        if text.endswith(".phrases.txt"):
            return PHRASES
        return text


def _hears_phones() -> ConformerLFMMI:
    encoder = ConformerEncoder(width=8, num_layers=1, num_heads=2, feed_forward_width=8, subsampling_channels=2)
    recognizer = ConformerLFMMI(encoder)
    recognizer.estimate_language(Path(WORDS).read_text().splitlines())
    return recognizer


# Between the scales only models and sizes differ, which tests/test_recipes.py runs too. The standard evaluation is of twelve
# systems.
TESTED = {"an4": ("without_noise", "table4"), "an4_conformer": ("standard", "without_noise", "table4")}


@pytest.mark.parametrize(
    "scale", [pytest.param(scale, marks=pytest.mark.long) if scale == "an4_conformer" else scale for scale in SCALES]
)
def test_what_one_recipe_writes_the_next_one_reads(scale: str, tiny_manifests: Path, tmp_path: Path) -> None:
    chain = Chain(scale, tiny_manifests, tmp_path)
    for name in ("offline_attacks", "offline_attacks_targeted"):
        assert len(list((chain.run("predict", name) / "audio").iterdir())) == 4
    baseline = weights_hash(checkpoint.load(str(chain.baseline)))
    trained = {
        name: checkpoint.load(str(chain.run("fit", name) / "checkpoints" / "last.ckpt"))
        for name in ("denoiser", "finetune_asr", "finetune_joint", "finetune_joint_frozen", "finetune_mixture")
    }
    tandems = {name: system for name, system in trained.items() if isinstance(system, Defended)}
    assert tandems.keys() == {"denoiser", "finetune_joint", "finetune_joint_frozen"}
    kept = {name for name, system in tandems.items() if weights_hash(system.recognizer) == baseline}
    assert kept == {"denoiser", "finetune_joint_frozen"}
    denoisers = {name: weights_hash(system.defense) for name, system in tandems.items()}
    assert len(set(denoisers.values())) == 3, "each has learnt"

    for name in TESTED.get(scale, ("table4",)):
        evaluation = read_evaluation(chain.run("test", name))
        assert len(evaluation.rows) == 2 * len(evaluation.systems) * len(evaluation.conditions)
    columns = {name: system["columns"]["defense"] for name, system in evaluation.systems.items()}
    assert sorted(columns.values()) == ["RS", "RS", "RS+Denoiser", "RS+Denoiser", "RS+Denoiser", "none"]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("table", ["table3", "table4"])
def test_tables_hold_the_papers_columns(scale: str, table: str) -> None:
    settings = at_scale(table, scale)["model"]["init_args"]
    printed = csv.DictReader(
        (ROOT / "robust_asr" / "results" / "paper_results" / PRINTED[table]).read_text().splitlines()
    )
    wanted = {(row["attack"], float(row["strength"])) for row in printed if row["attack"] != "none"}
    found = {
        (name.rsplit(" ", 1)[0], attack["init_args"]["threat"]["init_args"]["eps"])
        for name, attack in settings["conditions"].items()
        if name != "none"
    }
    assert wanted <= found
    assert {attack for attack, _ in found - wanted} & {"PGD-7", "PGD-500"}, "and untargeted"
    assert len(settings["systems"]) == 6


def test_every_scale_gives_every_value() -> None:
    """A value that one leaves out would be that of AN4, with which the recipes begin."""
    given = {}
    for scale in SCALES:
        values = Values()
        values.add_file(ROOT / "configs" / "scale" / f"{scale}.yaml", "here")
        given[scale] = set(values.names)
    assert given["an4"] == given["an4_conformer"] == given["librispeech"]
