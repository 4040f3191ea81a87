"""What the recipes' tables hold: what the committed results hold, and nothing lost on the way from one form to another.

``python -m tests.test_recipe_tables`` writes tests/recipe_tables.json again, after a change of a recipe that was meant.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.command_line import ROOT, full_settings

RECIPES, PINNED = ROOT / "recipes", Path(__file__).with_name("recipe_tables.json")
SCALES = ("an4", "an4_conformer", "librispeech")
# Results -> recipe and scale. Not the offline sets, whose one condition has no name in the recipe.
RESULTS = {
    **{f"an4/{path.stem}.csv": (f"an4/{path.stem}", "") for path in sorted((RECIPES / "an4").glob("attacks*.yaml"))},
    "an4/noise.csv": ("an4/noise", ""),
    "an4/standard.csv": ("an4/standard", ""),
    "an4/transfer.csv": ("an4/transfer", ""),
    "an4/votes.csv": ("an4/votes", ""),
    "quickstart/summary.csv": ("quickstart/evaluation", ""),
    "quickstart/standard.csv": ("quickstart/standard", ""),
    "quickstart/breaking.csv": ("quickstart/breaking", ""),
    "joshi2022/an4/standard.csv": ("joshi2022/standard", "an4"),
    "joshi2022/an4/table3_again.csv": ("joshi2022/table3", "an4"),
    **{
        f"joshi2022/{scale}/{name}.csv": (f"joshi2022/{name}", scale)
        for scale, name in product(SCALES[:2], ("table3", "table4", "without_noise"))
    },
}


def settings(name: str, scale: str = "") -> dict:
    values = [f"--values={ROOT / 'configs' / 'scale' / scale}.yaml"] if scale else []
    return full_settings(RECIPES / f"{name}.yaml", *values)


@pytest.mark.parametrize("results", RESULTS)
def test_results_have_the_names_and_strengths_of_the_recipe(results: str) -> None:
    arguments = settings(*RESULTS[results])["model"]["init_args"]
    rows = list(csv.DictReader((RECIPES / results).read_text().splitlines()))
    found = {(row["system"], row["condition"]) for row in rows}
    assert found == set(product(arguments["systems"], arguments["conditions"]))
    strengths = {row["condition"]: row["strength"] for row in rows if row["norm"].startswith("L")}
    attacks = {name: arguments["conditions"][name]["init_args"] for name in strengths}
    for name, attack in attacks.items():
        # A saved set knows its budget itself.
        assert "threat" not in attack or float(strengths[name]) == attack["threat"]["init_args"]["eps"]


def test_the_example_of_the_readme_is_a_recipe(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "example.yaml").write_text(text)
    arguments = full_settings(tmp_path / "example.yaml")["model"]["init_args"]
    assert list(arguments["systems"]) == ["baseline", "baseline + RS"]
    attacks = [f"{attack} {eps}" for attack in ("PGD-7", "standard") for eps in (0.0001, 0.001)]
    assert list(arguments["conditions"]) == ["none", *attacks]


def summary() -> dict[str, dict]:
    """Recipe, at each of its scales -> systems, conditions and a digest of all that it says."""
    found = {}
    for path in sorted(RECIPES.rglob("*.yaml")):
        name = str(path.relative_to(RECIPES).with_suffix(""))
        for scale in SCALES if path.parent.name == "joshi2022" else ("",):
            content = settings(name, scale)
            arguments = content["model"]["init_args"]
            tables = {kind: len(arguments[kind]) for kind in ("systems", "conditions") if kind in arguments}
            digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
            found[f"{name} {scale}".strip()] = {**tables, "digest": digest}
    return found


def test_no_recipe_says_something_else_by_accident() -> None:
    expected, found = json.loads(PINNED.read_text()), summary()
    assert found.keys() == expected.keys()
    changed = {name: (expected[name], found[name]) for name in found if found[name] != expected[name]}
    assert not changed, "if it was meant: python -m tests.test_recipe_tables"


def test_recipes_stay_short() -> None:
    # A sweep of W&B, *.yml, is no configuration of train.py.
    files = [path for folder in ("recipes", "configs") for path in (ROOT / folder).rglob("*.yaml")]
    assert len(files) <= 60 and sum(len(path.read_text().splitlines()) for path in files) <= 2200
    assert len((RECIPES / "joshi2022" / "table3.yaml").read_text().splitlines()) <= 40


def write() -> None:
    lines = (f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in summary().items())
    PINNED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    sys.exit(write())
