"""Every recipe runs a step, on the tiny corpus and with small sizes; what it says otherwise is untouched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

import pytest
import yaml

from lightning_modules.command_line.cli import main
from robust_asr import checkpoint
from robust_asr.models.compact import CompactCTC
from robust_asr.models.conformer import ConformerEncoder
from robust_asr.models.conformer_lfmmi import ConformerLFMMI
from robust_asr.models.transformer import Transformer, TransformerEncoder
from robust_asr.results import read_evaluation
from tests.command_line import ROOT, full_settings

# Those of joshi2022 build on one another: tests/test_joshi2022.py runs the chain.
ALL = {
    path: full_settings(path)["model"]["class_path"].rsplit(".", 1)[-1]
    for path in sorted((ROOT / "recipes").rglob("*.yaml"))
    if "joshi2022" not in path.parts
}
EVALUATIONS = [path for path, kind in ALL.items() if kind == "Evaluation"]
SETS = [path for path, kind in ALL.items() if kind == "AttackSet"]
RECIPES = [path for path in ALL if path not in EVALUATIONS + SETS]
FEW = {
    "CarliniWagner": {"num_iterations": 2},
    "OlivierCarliniWagner": {"num_iterations": 2, "num_draws": 1},
    "Imperceptible": {"num_iterations": 2, "masking_iterations": 2, "slow_after": 1},
    # The tests have no prepared corpus.
    "PhraseFile": {"path": str(ROOT / "tests" / "phrases.txt")},
    "BeamSearch": {"lexicon": str(ROOT / "tests" / "words.txt")},
    "PhoneBeamSearch": {"lexicon": str(ROOT / "tests" / "words.txt")},
}
SMALL_CONFORMER = {
    "encoder.init_args.width": 8,
    "encoder.init_args.num_layers": 1,
    "encoder.init_args.num_heads": 2,
    "encoder.init_args.feed_forward_width": 8,
    "encoder.init_args.subsampling_channels": 2,
}
SMALL_TRANSFORMER = {
    "encoder.init_args.width": 8,
    "encoder.init_args.num_layers": 1,
    "encoder.init_args.num_heads": 2,
    "encoder.init_args.feed_forward_width": 8,
    "encoder.init_args.subsampling_channels": 2,
    "num_layers": 1,
    "num_heads": 2,
    "feed_forward_width": 8,
}
SMALL = {
    "ConformerCTC": SMALL_CONFORMER,
    "ConformerLFMMI": SMALL_CONFORMER,
    "CompactCTC": {"width": 16, "gru_width": 8, "stem_channels": 4, "num_blocks": 1},
    "DeepSpeech2": {"conv_channels": 2, "rnn_hidden": 8, "rnn_layers": 1},
    "DeepSpeech": {"num_hidden": 8},
    "RNNT": {
        "encoder.init_args.width": 8,
        "encoder.init_args.num_layers": 1,
        "embedding_width": 8,
        "predictor_width": 8,
        "predictor_layers": 1,
        "joint_width": 8,
        # The tests have no prepared corpus.
        "tokenizer": "robust_asr.text.CharacterTokenizer",
    },
    "Wav2Vec2": {"width": 16, "num_layers": 1, "num_heads": 2, "feed_forward_width": 8, "position_groups": 8},
    "Transformer": SMALL_TRANSFORMER,
    "LanguageModel": {"width": 8},
}
# Recipes that train one of several architectures: the others than the recipe's own.
OTHERS = [
    *(("an4/architectures", name) for name in ("deepspeech", "rnnt", "wav2vec2")),
    *(("librispeech/architectures", name) for name in ("rnnt", "wav2vec2", "deepspeech")),
]


@pytest.fixture(scope="module")
def clean_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clean") / "clean.ckpt"
    checkpoint.save(CompactCTC(**SMALL["CompactCTC"]), str(path))
    return path


@pytest.fixture(scope="module")
def phones_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {name.rsplit(".", 1)[-1]: value for name, value in SMALL_CONFORMER.items()}
    recognizer = ConformerLFMMI(ConformerEncoder(**sizes))
    recognizer.estimate_language((ROOT / "tests" / "words.txt").read_text().splitlines())
    path = tmp_path_factory.mktemp("phones") / "phones.ckpt"
    checkpoint.save(recognizer, str(path))
    return path


@pytest.fixture(scope="module")
def transformer_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"num_layers": 1, "num_heads": 2, "feed_forward_width": 8}
    encoder = TransformerEncoder(width=8, subsampling_channels=2, **sizes)
    path = tmp_path_factory.mktemp("transformer") / "transformer.ckpt"
    checkpoint.save(Transformer(encoder, ctc_weight=0.3, **sizes), str(path))
    return path


def small(recipe: Path, *, manifests: Path, clean: Path, values: Sequence[str] = ()) -> list[str]:
    """Arguments that leave the recipe, at these values, as it is but for sizes, paths and the machine."""
    settings = full_settings(recipe, *values)
    # What learns is a recogniser, or a language model, which is small as it is.
    learner = "recognizer" if "recognizer" in settings["model"]["init_args"] else "language_model"
    recognizer = settings["model"]["init_args"][learner]
    prefix = f"--model.init_args.{learner}.init_args"
    kind = recognizer["class_path"].rsplit(".", 1)[-1]
    if kind in SMALL:
        sizes = [f"{prefix}.{name}={value}" for name, value in SMALL[kind].items()]
    else:
        assert kind == "load"
        sizes = [f"{prefix}.path={clean}"]
    if settings["model"]["init_args"].get("search"):
        search = {"class_path": "PhoneBeamSearch", "init_args": FEW["PhoneBeamSearch"]}
        # Away with the recipe's first: its files would be kept beside what is given here.
        sizes += ["--model.init_args.search=null", f"--model.init_args.search={json.dumps(search)}"]
    data = [f"--data.init_args.{name}=[{part}]" for name, part in (("train", "train"), ("validate", "dev"))]
    machine = ["accelerator=cpu", "devices=1", "strategy=auto", "precision=32-true", "fast_dev_run=true"]
    return [
        *values,
        *sizes,
        *data,
        f"--data=datamodules.{'Speech' if learner == 'recognizer' else 'Transcripts'}",
        f"--data.init_args.manifests={manifests}",
        *(f"--trainer.{setting}" for setting in machine),
    ]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_runs_a_step(recipe: Path, tiny_manifests: Path, clean_checkpoint: Path, tmp_path: Path) -> None:
    arguments = small(recipe, manifests=tiny_manifests, clean=clean_checkpoint)
    main(["fit", "--config", str(recipe), "--run_dir", str(tmp_path / "run"), *arguments])
    assert not (tmp_path / "run" / "checkpoints").exists(), "fast_dev_run writes no checkpoint"


@pytest.mark.parametrize(("name", "architecture"), OTHERS)
def test_the_other_architectures_run_a_step(name: str, architecture: str, tiny_manifests: Path, tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / f"{name}.yaml"
    values = [f"--value=architecture=${architecture}"]
    assert full_settings(recipe, *values)["run_dir"] == f"runs/{recipe.parent.name}/{architecture}"
    arguments = small(recipe, manifests=tiny_manifests, clean=tmp_path, values=values)
    main(["fit", "--config", str(recipe), "--run_dir", str(tmp_path / "run"), *arguments])


@pytest.fixture(scope="module")
def made_set(tiny_manifests: Path, clean_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set that the first recipe of ``SETS`` makes."""
    folder = tmp_path_factory.mktemp("set")
    recipe = small_systems(SETS[0], {"*.ckpt": clean_checkpoint}, folder)
    data = [f"--data.init_args.manifests={tiny_manifests}", "--data.init_args.predict=[dev]"]
    arguments = ["--data=datamodules.Speech", *data, "--trainer.accelerator=cpu"]
    main(["predict", "--config", str(recipe), "--run_dir", str(folder / "run"), *arguments])
    return folder / "run"


@pytest.mark.parametrize("recipe", SETS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_set_is_made(recipe: Path, made_set: Path) -> None:
    assert [recipe] == SETS and (made_set / "dev.jsonl.gz").exists() and read_evaluation(made_set).rows


@pytest.mark.parametrize("recipe", EVALUATIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_evaluation_makes_every_row(
    recipe: Path,
    tiny_manifests: Path,
    clean_checkpoint: Path,
    phones_checkpoint: Path,
    transformer_checkpoint: Path,
    made_set: Path,
    tmp_path: Path,
) -> None:
    settings = full_settings(recipe)["model"]["init_args"]
    paths = {
        "*lfmmi*": phones_checkpoint,
        "*transformer*": transformer_checkpoint,
        "*.ckpt": clean_checkpoint,
        "*/attack_set*": made_set,
    }
    run = tmp_path / "run"
    arguments = [
        *("--run_dir", str(run), "--trainer.limit_test_batches=1", "--data=datamodules.Speech"),
        *(f"--data.init_args.manifests={tiny_manifests}", "--data.init_args.test=[dev]"),
        *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"),
    ]
    main(["test", "--config", str(small_systems(recipe, paths, tmp_path)), *arguments])
    evaluation = read_evaluation(run)
    assert list(evaluation.systems) == list(settings["systems"])
    assert list(evaluation.conditions) == list(settings["conditions"])
    found = {(row["system"], row["condition"]) for row in evaluation.rows}
    assert found == set(product(settings["systems"], settings["conditions"]))


def small_systems(recipe: Path, paths: Mapping[str, Path], folder: Path) -> Path:
    """The recipe with paths replaced by pattern: names with dots cannot be reached from the command line."""
    settings = full_settings(recipe)
    _shrink(settings["model"]["init_args"], paths)
    path = folder / recipe.name
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def _shrink(node: object, paths: Mapping[str, Path]) -> None:
    """Every path becomes that of its pattern, every attack takes few iterations."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key in ("path", "folder"):
            node[key] = next((str(path) for pattern, path in paths.items() if fnmatch(value, pattern)), value)
        elif key in ("num_iterations", "num_restarts", "num_draws"):
            node[key] = 2
        else:
            _shrink(value, paths)
    if isinstance(node, dict) and str(node.get("class_path")).rsplit(".", 1)[-1] in FEW:
        node.setdefault("init_args", {}).update(FEW[node["class_path"].rsplit(".", 1)[-1]])


def test_every_fragment_belongs_to_a_recipe_or_the_readme() -> None:
    written = [path for folder in ("recipes", "configs") for path in (ROOT / folder).rglob("*.yaml")]
    written += [*(ROOT / "recipes").rglob("*.md"), ROOT / "README.md"]
    texts = "".join(path.read_text() for path in written)
    unused = [path.name for path in (ROOT / "configs").rglob("*.yaml") if path.name not in texts]
    assert not unused
