"""Which objective and which steps do the most damage in equal passes: the search behind the standard evaluation.

``python -m benchmarks.objectives frames``, after ``make demo``: the demo's recognisers by greedy search and among the words of the
training transcripts, on voices of the dev part. ``python -m benchmarks.objectives tokens``, after the recipes of AN4's RNN-T and
Transformer: these, on utterances of the training part, since AN4 has no dev part. No table uses either. It goes on where it
stopped; rows and summary.csv are in the run folder.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from lightning_modules.command_line.cli import main as train

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Family:
    """Recognisers that the same objectives serve. ``recipe`` is all of the evaluation but its attacks; ``objectives`` are YAML."""

    recipe: str
    threats: tuple[str, ...]
    objectives: dict[str, str]
    utterances: int


FAMILIES = {
    "frames": Family(
        """
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
""",
        ("Linf: 3.0e-4",),
        {
            "loss": "{Loss: {}}",
            "margin": "{FrameMargin: {}}",
            "loss + margin": "{Mixture: {parts: [{Loss: {}}, {FrameMargin: {}}]}}",
            "insertions": "{Insertions: {}}",
        },
        32,
    ),
    "tokens": Family(
        """
recipe: {root}/recipes/an4/attacks_architectures.yaml
run_dir: runs/an4/objectives
data: {{Speech: {{test: [train], eval_utterances: {utterances}}}}}
model:
  Evaluation:
    systems:
      RNN-T: runs/an4/rnnt
      Transformer: {{run: runs/an4/transformer, search: {{DecoderBeam: {{width: 10, ctc_weight: 0.3}}}}}}
""",
        ("Linf: 1.0e-4", "SNR: 30.0"),
        {
            "loss": "{Loss: {}}",
            "token margin": "{TokenMargin: {}}",
            "loss + token margin": "{Mixture: {parts: [{Loss: {}}, {TokenMargin: {}}]}}",
        },
        24,
    ),
}


def recipe(family: Family, *, utterances: int) -> str:
    """The evaluation as a recipe: every objective with falling and with halving steps, and the papers' attack."""
    lines = ["    conditions:", "      none: Clean"]
    for threat in family.threats:
        given = f"threat: {{{threat}}}, num_iterations: 20"
        lines.append(f'      "loss, constant steps, {threat}": {{PaperPGD: {{{given}}}}}')
        for name, objective in family.objectives.items():
            for steps in ("Cosine", "Halving"):
                settings = f"{given}, objective: {objective}, steps: {{{steps}: {{}}}}"
                lines.append(f'      "{name}, {steps.lower()}, {threat}": {{PGD: {{{settings}}}}}')
    return "\n".join([family.recipe.format(root=_ROOT, utterances=utterances).strip(), *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives", description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--utterances", type=int, help="by default 32 of the demo, 24 of AN4")
    chosen = parser.parse_args()
    family = FAMILIES[chosen.family]
    path = Path("runs") / f"objectives_{chosen.family}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(recipe(family, utterances=chosen.utterances or family.utterances))
    train(["test", f"--config={path}"])


if __name__ == "__main__":
    main()
