"""Which objective and which steps do the most damage in equal passes: the search behind the standard evaluation.

``python -m benchmarks.objectives``, after ``make demo``: the demo's recognisers by greedy search and among the words of the
training transcripts, on voices of the dev part, which no table uses. It goes on where it stopped; rows and summary.csv are in the
run folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_modules.command_line.cli import main as train

_ROOT = Path(__file__).parents[1]
_RECIPE = """
recipe: {root}/recipes/quickstart/evaluation.yaml
run_dir: runs/quickstart/objectives
data: {{Synthetic: {{test: [dev], eval_utterances: {utterances}}}}}
values:
  runs: {{clean: runs/quickstart/clean, hardened: runs/quickstart/hardened, adversarial: runs/quickstart/adversarial}}
model:
  Evaluation:
    systems:
      "{{}}": {{runs: $runs}}
      "{{}} + lexicon": {{runs: $runs, search: {{BeamSearch: data/numbers/train.words.txt}}}}
    conditions:
      none: Clean
      loss, constant steps: {{PaperPGD: {{threat: {{Linf: {eps}}}, num_iterations: 20}}}}
"""
_CONDITION = """
      {name}, {steps}:
        PGD: {{threat: {{Linf: {eps}}}, num_iterations: 20, objective: {objective}, steps: {{{kind}: {{}}}}}}
"""
_OBJECTIVES = {
    "loss": "{Loss: {}}",
    "margin": "{FrameMargin: {}}",
    "loss + margin": "{Mixture: {parts: [{Loss: {}}, {FrameMargin: {}}]}}",
    "insertions": "{Insertions: {}}",
}


def recipe(*, eps: float, utterances: int) -> str:
    """The evaluation as a recipe: every objective with falling and with halving steps, and the papers' attack."""
    conditions = "".join(
        _CONDITION.format(name=name, steps=kind.lower(), kind=kind, eps=eps, objective=objective).lstrip("\n")
        for name, objective in _OBJECTIVES.items()
        for kind in ("Cosine", "Halving")
    )
    return _RECIPE.format(root=_ROOT, eps=eps, utterances=utterances) + conditions


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives", description=__doc__.splitlines()[0])
    parser.add_argument("--eps", type=float, default=3e-4, help="full-scale amplitude")
    parser.add_argument("--utterances", type=int, default=32)
    chosen = parser.parse_args()
    folder = Path("runs/quickstart")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "objectives.yaml"
    path.write_text(recipe(eps=chosen.eps, utterances=chosen.utterances))
    train(["test", f"--config={path}"])


if __name__ == "__main__":
    main()
