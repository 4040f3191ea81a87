"""Values: typed where they stand alone, text inside a text, and an error that names file, key and name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_modules.command_line.expansion import expand
from lightning_modules.command_line.written import load


def settings(folder: Path, text: str, *arguments: str, **files: str) -> dict:
    """What a recipe becomes; ``files`` lie beside it."""
    for name, content in {**files, "recipe": text}.items():
        (folder / f"{name}.yaml").write_text(content)
    found = expand(["fit", f"--config={folder / 'recipe.yaml'}", *arguments])
    assert found[0] == "fit" and len(found) == 2
    return load(found[1].removeprefix("--config="))


def test_a_value_alone_keeps_its_type_and_inside_a_text_is_as_written(tmp_path: Path) -> None:
    values = "{lr: 1.0e-4, sigma: 0.00054, parts: [a, b], none: null, yes_: true, num: 3, file: data/x}"
    recipe = "{a: $lr, b: 'RS ${sigma}', c: $parts, d: $none, e: $yes_, f: 'of ${num}, ${yes_}', g: $file, '${num}x': [$num]}"
    found = settings(tmp_path, f"values: {values}\nmodel: {recipe}\n")["model"]
    assert found == {
        "a": 1e-4,
        "b": "RS 0.00054",
        "c": ["a", "b"],
        "d": None,
        "e": True,
        "f": "of 3, true",
        "g": "data/x",
        "3x": [3],
    }
    assert type(found["f"]) is str and isinstance(found["a"], float) and type(found["3x"][0]) is int


def test_a_number_in_a_text_stays_text(tmp_path: Path) -> None:
    assert settings(tmp_path, "values: {level: 0.010}\nrun_dir: ${level}\n") == {"run_dir": "0.010"}


def test_later_values_replace_earlier_ones_whole_and_a_dotted_name_changes_one_entry(tmp_path: Path) -> None:
    files = {
        "large": "finetune: {lr: 1, epochs: 2}\nchain: runs/large\nsearch: {beam: 3}\n",
        "small": "values: large.yaml\nfinetune.lr: 5\nsearch: {width: 1}\n",
    }
    recipe = "values: small.yaml\nmodel: [$finetune, $search, $finetune.lr, '${chain}/x']\n"
    found = settings(tmp_path, recipe, **files)
    assert found["model"] == [{"lr": 5, "epochs": 2}, {"width": 1}, 5, "runs/large/x"]
    arguments = ["--values", str(tmp_path / "large.yaml"), "--value", "finetune.epochs=9", "--value=search=[1.5]"]
    found = settings(tmp_path, recipe, *arguments, **files)
    assert found["model"] == [{"lr": 1, "epochs": 9}, [1.5], 1, "runs/large/x"]


def test_values_may_stand_on_values(tmp_path: Path) -> None:
    found = settings(tmp_path, "values: {chain: runs/a, last: '${chain}/last', both: [$last]}\nmodel: $both\n")
    assert found == {"model": ["runs/a/last"]}


def test_a_value_may_choose_among_maps(tmp_path: Path) -> None:
    recipe = "values: {kind: $small, small: {lr: 1, name: s}, large: {lr: 2, name: l}}\nmodel: [$kind.lr, 'x/${kind.name}']\n"
    assert settings(tmp_path, recipe)["model"] == [1, "x/s"]
    assert settings(tmp_path, recipe, "--value=kind=$large")["model"] == [2, "x/l"]
    arguments = ["--value", "kind=$large", "large.lr=3"]
    assert settings(tmp_path, recipe, *arguments)["model"] == [3, "x/l"]
    with pytest.raises(ValueError, match=r"there is no value lareg; did you mean large"):
        settings(tmp_path, recipe, "--value=kind=$lareg")


def test_a_file_that_a_value_names_is_beside_the_values(tmp_path: Path) -> None:
    (tmp_path / "scale").mkdir()
    (tmp_path / "scale" / "data.yaml").write_text("class_path: datamodules.Speech\ninit_args: {manifests: $folder}\n")
    (tmp_path / "scale" / "an4.yaml").write_text("data: data.yaml\nfolder: data/an4\n")
    recipe = "values: scale/an4.yaml\nfragments: {data: $data}\ndata: {init_args: {max_duration: 5}}\nmodel: [$data]\n"
    found = settings(tmp_path, recipe)
    whole = {"class_path": "datamodules.Speech", "init_args": {"manifests": "data/an4"}}
    assert found["model"] == [whole]
    assert found["data"] == {**whole, "init_args": {"manifests": "data/an4", "max_duration": 5}}


MISTAKES = {
    "unknown": (
        "values: {lr: 1}\nmodel: {a: {b: $lrr}}\n",
        "recipe.yaml: model.a.b: there is no value lrr; did you mean lr",
    ),
    "unknown in a text": (
        "values: {lr: 1}\nmodel: ['x ${q}']\n",
        "recipe.yaml: model.0: there is no value q; the names are lr",
    ),
    "none at all": ("model: $lr\n", "recipe.yaml: model: there is no value lr; no values are given"),
    "inside a map": (
        "values: {a: {b: 1}}\nmodel: $a.c\n",
        "recipe.yaml: model: there is no value a.c; the names are b",
    ),
    "no braces": ("values: {run: x}\nmodel: $run/y\n", "recipe.yaml: model: inside a text write ${run}"),
    "a list in a text": ("values: {a: [1, 2]}\nmodel: x${a}\n", "recipe.yaml: model: [1, 2] cannot be put into a text"),
    "itself": ("values: {a: $b, b: $a}\nmodel: $a\n", "stands for itself"),
    "itself by a part": ("values: {a: $b, b: $a}\nmodel: $a.c\n", "stands for itself"),
    "no file": ("values: absent.yaml\n", "recipe.yaml: values: names .*absent.yaml, and there is no such file"),
    "a number": ("values: 3\n", "recipe.yaml: values: 3 is no map of names"),
    "no name": ("values: {a b: 3}\n", "recipe.yaml: values.a b: 'a b' is no name"),
    "nothing to change": ("values: {a: {b: 1}}\n---\n", "one document"),
    "a new entry": ("values: [{a: {b: 1}}, {a.c: 2}]\n", "recipe.yaml: values.1.a.c: there is no value a.c to change"),
    "twice one key": ("values: {a: x}\nmodel: {x: 1, '${a}': 2}\n", "recipe.yaml: model: two of its keys are the same"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_file_key_and_name(name: str, tmp_path: Path) -> None:
    text, sentence = MISTAKES[name]
    with pytest.raises((ValueError, OSError), match=sentence.replace("$", r"\$").replace("[1", r"\[1")):
        settings(tmp_path, text)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--value=lr", "NAME=VALUE, found 'lr'"),
        ("--value=sigam=3", "--value sigam: nothing in the recipe asks for it; did you mean sigma"),
        ("--value=sigma.x=3", "--value sigma.x: there is no value sigma.x to change"),
        ("--value=sigma=.nan", ".nan is refused; numbers are finite"),
        ("--values=absent.yaml", "--values: names absent.yaml"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(argument: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError), match=re.escape(sentence)):
        settings(tmp_path, "values: {sigma: 1}\nmodel: $sigma\n", argument)


def test_files_in_a_circle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"b\.yaml: values leads back"):
        settings(tmp_path, "values: b.yaml\n", b="values: b.yaml\n")
