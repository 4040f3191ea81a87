"""Recipes that stand on others, and what no file may name by any of these ways."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from lightning_modules.command_line.cli import main
from lightning_modules.command_line.config_guard import check_arguments
from lightning_modules.command_line.expansion import expand
from lightning_modules.command_line.written import dump
from robust_asr.checkpoint import load
from tests.command_line import ROOT, train
from tests.lightning_modules.command_line.test_values import settings

CANARY = "canary_of_short_forms"
EVIL = f"{CANARY}.Evil"


def test_a_recipe_goes_over_the_one_it_stands_on(tmp_path: Path) -> None:
    base = """
values: {lr: 1, name: base}
fragments: {trainer: trainer.yaml}
run_dir: runs/${name}
optimizer: {AdamW: {lr: $lr, weight_decay: 0.5}}
model: {Evaluation: {systems: {a: runs/a}, conditions: {none: Clean}, keep_audio: 1}}
trainer: {callbacks: [a], max_epochs: 3}
"""
    recipe = """
recipe: base.yaml
values: {name: top}
optimizer: {AdamW: {lr: 2}}
model: {Evaluation: {conditions: {b: Clean}}}
trainer: {callbacks: [b]}
"""
    found = settings(tmp_path, recipe, base=base, trainer="max_epochs: 9\ndevices: 1\n")
    assert found["run_dir"] == "runs/top"
    assert found["trainer"] == {"max_epochs": 3, "devices": 1, "callbacks": ["b"]}
    assert found["optimizer"]["init_args"] == {"lr": 2, "weight_decay": 0.5}
    arguments = found["model"]["init_args"]
    assert (list(arguments["systems"]), list(arguments["conditions"]), arguments["keep_audio"]) == (["a"], ["b"], 1)
    other = settings(tmp_path, "recipe: base.yaml\noptimizer: {SGD: {lr: 2}}\n", base=base, trainer="{}\n")
    assert other["optimizer"] == {"class_path": "torch.optim.SGD", "init_args": {"lr": 2}}


def test_fragments_are_files_maps_or_lists_of_them(tmp_path: Path) -> None:
    recipe = "fragments: {data: [a.yaml, {x: 2}, $more], model: $more}\nvalues: {more: {y: 3}}\ndata: {z: 4}\n"
    assert settings(tmp_path, recipe, a="{x: 1, w: 0}\n") == {
        "data": {"x": 2, "w": 0, "y": 3, "z": 4},
        "model": {"y": 3},
    }


def test_plain_settings_stay_as_they_are_in_every_spelling_of_the_option(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    content = {
        "a": [1, 1e-5, "1e-5", "010", None, True, "yes"],
        "b": {"class_path": "torch.optim.Y", "init_args": {0: "z"}},
    }
    path.write_text(dump({**content, "fragments": {}}))
    for spelling in (
        [f"--config={path}"],
        ["--config", str(path)],
        ["-c", str(path)],
        [f"-c{path}"],
        ["--conf", str(path)],
    ):
        (found,) = expand(spelling)
        assert yaml.safe_load(found.removeprefix("--config=").replace("1.0e-05", "0.00001")) == content
    assert expand(["fit", "--print_config", "--allow_module", "a", "b"]) == [
        "fit",
        "--print_config",
        "--allow_module",
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"recipe": "recipe: recipe.yaml\n"}, "recipe.yaml: recipe leads back to this file"),
        ({"recipe": "recipe: absent.yaml\n"}, "recipe.yaml: recipe names absent.yaml, and there is no such file"),
        ({"recipe": "fragments: {data: absent.yaml}\n"}, "recipe.yaml: fragments.data names absent.yaml"),
        ({"recipe": "fragments: [absent.yaml]\n"}, "recipe.yaml: fragments: maps a setting to a file"),
        ({"recipe": "[1]\n"}, "recipe.yaml: holds no map of settings"),
        ({"recipe": "model: a.yaml\n", "a": "x: [a.yaml]\n"}, "a.yaml leads back to itself"),
        ({"recipe": "values: {a: 1, a: 2}\n"}, "the key a occurs twice"),
        ({"recipe": "values: v.yaml\n", "v": "a: &a [*a]\n"}, "part of"),
    ],
)
def test_a_mistake_names_the_file(files: dict[str, str], sentence: str, tmp_path: Path) -> None:
    text = files.pop("recipe")
    with pytest.raises((ValueError, OSError), match=sentence):
        settings(tmp_path, text, **files)


# A recipe, the file values.yaml beside it, and more of the command line.
SMUGGLED = {
    "an object in a values file": ("model: $m\n", f"m: {{class_path: {EVIL}}}\n", ()),
    "a path in a value": ("model: {class_path: $m}\n", f"m: {EVIL}\n", ()),
    "a path put together": ("model: {class_path: '${a}.Evil'}\n", f"a: {CANARY}\n", ()),
    "a key put together": ("model: {'class_${a}': $b}\n", f"a: path\nb: {EVIL}\n", ()),
    "a text where an object is wanted": ("optimizer: $m\n", f"m: {EVIL}\n", ()),
    "a text put together": ("optimizer: ${a}.Evil\n", f"a: {CANARY}\n", ()),
    "a private key": ("model: {'${a}': 1}\n", "a: __path__\n", ()),
    "a package that a value opens": ("allow_module: $a\n", f"a: [{CANARY}]\n", ()),
    "a package that a key opens": ("'allow_${a}': $b\n", f"a: module\nb: [{CANARY}]\n", ()),
    "a strategy": ("trainer: {strategy: '${a}_stage_3'}\n", "a: deepspeed\n", ()),
    "a strength": (
        "model: {Evaluation: {conditions: {'{}': {strengths: [$a], class_path: '{}'}}}}\n",
        f"a: {EVIL}\n",
        (),
    ),
    "a defence": ("model: {Evaluation: {systems: {a: {run: x, defenses: [{class_path: $a}]}}}}\n", f"a: {EVIL}\n", ()),
    "a short name with dots": (f"model: {{Evaluation: {{conditions: {{a: {EVIL}}}}}}}\n", "{}\n", ()),
    "the option --value": ("optimizer: $m\n", "m: 1\n", (f"--value=m={EVIL}",)),
    "the option --value with an object": ("optimizer: $m\n", "m: 1\n", ("--value", f"m={{class_path: {EVIL}}}")),
    "an option in short": ("model: 1\n", "{}\n", (f"--model={{PGD: {{threat: {{class_path: {EVIL}}}}}}}",)),
    "a recipe below": ("recipe: below.yaml\n", "{}\n", ()),
    "a fragment": ("fragments: {model: $m}\n", f"m: {{class_path: {EVIL}}}\n", ()),
}


VALUES = "".join(
    f"{one}: [{', '.join([f'${below}'] * 10)}]\n" for one, below in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = "".join(f"{one}: '{f'${{{below}}}' * 10}'\n" for one, below in zip("abcdefgh", "bcdefghi", strict=True))
STRENGTHS = f"[{', '.join(map(str, range(5000)))}]"
BOMBS = {
    "values of values": ("values: v.yaml\nmodel: $a\n", {"v": f"{VALUES}i: x\n"}),
    "texts of texts": ("values: v.yaml\nmodel: $a\n", {"v": f"{TEXTS}i: {'x' * 100}\n"}),
    "files of files": (
        "model: a.yaml\n",
        {a: f"x: [{', '.join([f'{b}.yaml'] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)},
    ),
    "a family": (f"model: {{conditions: {{'{{}}': {{strengths: {STRENGTHS}, x: {STRENGTHS}, y: '{{}}'}}}}}}\n", {}),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", BOMBS)
def test_a_few_lines_cannot_become_millions(name: str, tmp_path: Path) -> None:
    text, files = BOMBS[name]
    (tmp_path / "h.yaml").write_text("x: 1\n")
    with pytest.raises(ValueError, match="more than"):
        settings(tmp_path, text, **files)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{CANARY}.py").write_text("open('imported', 'w')\nclass Evil: pass\n")
    (tmp_path / "below.yaml").write_text(f"model: {{class_path: {EVIL}}}\n")


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("name", SMUGGLED)
def test_nothing_outside_the_allowlist_comes_in_by_a_value_or_short_form(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, values, more = SMUGGLED[name]
    Path("recipe.yaml").write_text(f"values: values.yaml\n{recipe}")
    Path("values.yaml").write_text(values)
    arguments = ["fit", "--config", "recipe.yaml", *more]
    with pytest.raises(SystemExit):
        main(arguments)
    assert capsys.readouterr().err.startswith("error: ")
    assert CANARY not in sys.modules and not Path("imported").exists()
    with pytest.raises(ValueError):
        check_arguments(arguments)
        expand(arguments)


def test_the_resolved_settings_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.yaml").write_text(
        "values: {eps: 0.00003}\nrun_dir: runs/${eps}\ndata: {Speech: {manifests: data/x}}\n"
        "model: {Evaluation: {systems: {a: runs/a}, conditions: {'PGD {}': {strengths: [$eps], PGD: {Linf: '{}'}}}}}\n"
    )
    with pytest.raises(SystemExit):
        main(["test", "--config", str(tmp_path / "r.yaml"), "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["run_dir"] == "runs/0.00003" and found["data"]["init_args"]["max_duration"] == 100.0
    condition = found["model"]["init_args"]["conditions"]["PGD 0.00003"]
    assert (
        condition["init_args"]["threat"]["init_args"]["eps"] == 3e-5 and condition["init_args"]["num_iterations"] == 50
    )


def test_both_processes_of_a_run_see_the_same_expansion(tiny_manifests: Path, tmp_path: Path) -> None:
    """Lightning starts the second one with the arguments of the first."""
    (tmp_path / "scale.yaml").write_text(
        f"manifests: {tiny_manifests}\nsize: {{width: 16, gru_width: 8, stem_channels: 4}}\n"
    )
    (tmp_path / "r.yaml").write_text(
        f"values: {{manifests: none, size: {{}}, lr: 1}}\nfragments: {{trainer: {ROOT}/configs/trainer/ddp_cpu.yaml}}\n"
        "run_dir: $name\nmodel: {Recognition: {recognizer: {CompactCTC: $size}}}\noptimizer: {AdamW: {lr: $lr}}\n"
        "data: {Speech: {manifests: $manifests, train: [train], validate: [], max_duration: 8.0}}\n"
        "trainer: {max_steps: 2, enable_progress_bar: false}\ncheckpoint: {monitor: null}\n"
    )
    given = ("--values", tmp_path / "scale.yaml", "--value", "lr=3e-3", "--value", f"name={tmp_path / 'run'}")
    result = train("fit", "--config", tmp_path / "r.yaml", *given)
    assert result.returncode == 0 and "MEMBER: 2/2" in result.stdout, result.stdout
    found = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (found["optimizer"]["init_args"]["lr"], found["trainer"]["devices"]) == (0.003, 2)
    assert found["model"]["init_args"]["recognizer"]["init_args"]["width"] == 16
    assert load(str(tmp_path / "run" / "checkpoints" / "last.ckpt")).width == 16
