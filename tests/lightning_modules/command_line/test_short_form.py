"""Short objects, systems by their runs, conditions by the family: what they become, and the sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lightning_modules.command_line import catalogue
from robust_asr.attacks.base import Attack
from robust_asr.storage import trust
from tests.lightning_modules.command_line.test_values import settings

PGD = "robust_asr.attacks.pgd.PGD"


def full(path: str, /, **arguments: object) -> dict:
    return {"class_path": path, "init_args": arguments} if arguments else {"class_path": path}


def linf(eps: float) -> dict:
    return full("robust_asr.threat.Linf", eps=eps)


def load(path: str, **arguments: object) -> dict:
    return full("robust_asr.checkpoint.load", path=path, **arguments)


def one(folder: Path, text: str) -> object:
    return settings(folder, f"model: {{x: {text}}}\n")["model"]["x"]


def test_an_object_in_short_is_the_object_in_full(tmp_path: Path) -> None:
    assert one(tmp_path, "{PGD: {num_iterations: 7, threat: {Linf: 0.001}}}") == full(
        PGD, num_iterations=7, threat=linf(0.001)
    )
    assert one(tmp_path, "{Linf: {eps: 1}}") == linf(1)
    phrases = full("robust_asr.attacks.phrases.PhraseFile", path="a.txt")
    assert one(tmp_path, "{Targeted: {PhraseFile: a.txt}}") == full(
        "robust_asr.attacks.goals.Targeted", phrases=phrases
    )
    assert one(tmp_path, "[{CompactCTC: {}}, {CompactCTC: }]") == [full("robust_asr.models.compact.CompactCTC")] * 2
    assert one(tmp_path, "{AdamW: {lr: 0.1}}") == full("torch.optim.AdamW", lr=0.1)
    assert one(tmp_path, "{load: {path: a.ckpt}}") == one(tmp_path, "{load: a.ckpt}") == load("a.ckpt")
    nested = full("robust_asr.threat.ranges.LinfRange", eps_min=1, eps_max=2)
    assert one(
        tmp_path, f"{{class_path: {PGD}, init_args: {{threat: {{LinfRange: {{eps_min: 1, eps_max: 2}}}}}}}}"
    ) == full(PGD, threat=nested)


def attack_of(found: object) -> Attack:
    """Built as the command line builds it."""
    parser = ArgumentParser()
    parser.add_argument("--attack", type=Attack)
    return parser.instantiate_classes(parser.parse_object({"attack": found})).attack


def test_objectives_and_steps_in_short(tmp_path: Path) -> None:
    objectives, steps = "robust_asr.attacks.objectives", "robust_asr.attacks.steps"
    loss, margin = full(f"{objectives}.Loss"), full(f"{objectives}.FrameMargin")
    for parts in ("[{Loss: {}}, {FrameMargin: {}}]", "{parts: [{Loss: }, {FrameMargin: }]}"):
        text = f"{{PGD: {{threat: {{Linf: 0.001}}, objective: {{Mixture: {parts}}}, steps: {{Cosine: 0.4}}}}}}"
        found = one(tmp_path, text)
        assert found == full(
            PGD,
            threat=linf(0.001),
            objective=full(f"{objectives}.Mixture", parts=[loss, margin]),
            steps=full(f"{steps}.Cosine", first=0.4),
        )
        assert attack_of(found).name == "PGD-50 loss+margin cosine"
    halving = one(tmp_path, "{PGD: {threat: {Linf: 1.0}, steps: {Halving: {}}, objective: {Insertions: {}}}}")
    assert attack_of(halving).name == "PGD-50 insertions halving"
    assert one(tmp_path, "{Standard: {Linf: 0.001}}") == full(
        "robust_asr.attacks.standard.Standard", threat=linf(0.001)
    )
    standard = one(tmp_path, "{Standard: {threat: {SNR: 20.0}, forwards: 100}}")
    assert attack_of(standard).name == "standard-1 (100 forwards)"
    assert one(tmp_path, "{Square: {Linf: 1}}")["class_path"] == "robust_asr.attacks.square.Square"


def test_what_is_no_object_stays_what_it_is(tmp_path: Path) -> None:
    for text in ("{Qzx: 3}", "{path/to/PGD: 1.0}", "{PGD: 1, FGSM: 2}", "{lower: {}}"):
        assert one(tmp_path, text) == settings(tmp_path, f"model: {text}\n")["model"]


def test_short_objects_on_the_command_line(tmp_path: Path) -> None:
    from lightning_modules.command_line.expansion import expand

    (tmp_path / "threat.yaml").write_text("Linf: 0.5\n")
    arguments = [
        "--optimizer",
        "{SGD: {lr: 1}}",
        f"--a.threat={tmp_path / 'threat.yaml'}",
        "--b={x: 1}",
        "--d",
        "e",
        "-3",
    ]
    found = expand(["fit", *arguments])
    assert found[1] == '--optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 1}}'
    assert found[2] == '--a.threat={"class_path": "robust_asr.threat.Linf", "init_args": {"eps": 0.5}}'
    assert found[3:] == ["--b={x: 1}", "--d", "e", "-3"]


def evaluation(folder: Path, **tables: str) -> dict:
    lines = "".join(f"    {name}:\n      {text}\n" for name, text in tables.items())
    return settings(folder, f"model:\n  Evaluation:\n{lines}")["model"]["init_args"]


def test_a_system_is_a_run_behind_its_defences(tmp_path: Path) -> None:
    table = """
      a: runs/a
      b: runs/b/checkpoints/best.ckpt
      c: {run: runs/c/, search: {BeamSearch: words.txt}}
      d: {run: runs/d, defenses: [{GaussianNoise: 0.1}]}
      e: {run: runs/e, search: null, defenses: [{GaussianNoise: 0.1}, {GaussianNoise: {sigma: 0.2}}]}
      f: {CompactCTC: {}}
      g: robust_asr.models.compact.CompactCTC
      h: {run: runs/h, defenses: [{GaussianNoise: 0.1}], vote: {Rover: 16}}"""
    found = evaluation(tmp_path, systems=table)["systems"]
    noise = [full("robust_asr.defenses.noise.GaussianNoise", sigma=sigma) for sigma in (0.1, 0.2)]
    behind, search = "robust_asr.defenses.base.Defended", full("robust_asr.search.beam.BeamSearch", lexicon="words.txt")
    chain = full("robust_asr.defenses.base.Chain", defenses=noise)
    assert found == {
        "a": load("runs/a/checkpoints/last.ckpt"),
        "b": load("runs/b/checkpoints/best.ckpt"),
        "c": load("runs/c/checkpoints/last.ckpt", search=search),
        "d": full(behind, defense=noise[0], recognizer=load("runs/d/checkpoints/last.ckpt")),
        "e": full(behind, defense=chain, recognizer=load("runs/e/checkpoints/last.ckpt", search=None)),
        "f": full("robust_asr.models.compact.CompactCTC"),
        "g": "robust_asr.models.compact.CompactCTC",
        "h": full(
            "robust_asr.defenses.voted.Voted",
            recognizer=full(behind, defense=noise[0], recognizer=load("runs/h/checkpoints/last.ckpt")),
            vote=full("robust_asr.defenses.votes.Rover", num=16),
        ),
    }
    assert one(tmp_path, "{run: runs/a}") == found["a"]


def test_one_defence_in_front_of_several_runs(tmp_path: Path) -> None:
    table = "{a: runs/a, '{} + RS': {runs: {a: runs/a, PGD: runs/b}, defenses: [{GaussianNoise: 0.1}]}}"
    found = evaluation(tmp_path, systems=table)["systems"]
    assert list(found) == ["a", "a + RS", "PGD + RS"]
    assert found["a + RS"]["init_args"]["recognizer"] == found["a"]
    same = evaluation(
        tmp_path, systems="{'RS {}': {strengths: [.01, .020], run: runs/a, defenses: [{GaussianNoise: '{}'}]}}"
    )
    sigmas = {name: system["init_args"]["defense"]["init_args"]["sigma"] for name, system in same["systems"].items()}
    assert sigmas == {"RS .01": 0.01, "RS .020": 0.02}


def test_a_family_is_a_condition_for_each_strength(tmp_path: Path) -> None:
    table = """
      none: Clean
      "PGD-7 {}": {strengths: [0.00003, 1.0e-4], PGD: {threat: {Linf: "{}"}, num_iterations: 7}}
      "gaussian {} dB": {strengths: [35, 30.0], Gaussian: {snr_db: "{}"}}
      "from {}": {strengths: [a, b], Saved: "runs/{}"}
      "full {}": {strengths: [1], class_path: robust_asr.attacks.noise.Gaussian, init_args: {sigma: "{}"}}"""
    found = evaluation(tmp_path, conditions=table)["conditions"]
    gaussian, saved = "robust_asr.attacks.noise.Gaussian", "robust_asr.attacks.saved.Saved"
    assert found == {
        "none": full("robust_asr.attacks.noise.Clean"),
        "PGD-7 0.00003": full(PGD, threat=linf(3e-5), num_iterations=7),
        "PGD-7 1.0e-4": full(PGD, threat=linf(1e-4), num_iterations=7),
        "gaussian 35 dB": full(gaussian, snr_db=35),
        "gaussian 30 dB": full(gaussian, snr_db=30.0),
        "from a": full(saved, folder="runs/a"),
        "from b": full(saved, folder="runs/b"),
        "full 1": full(gaussian, sigma=1),
    }


def test_a_table_with_one_row_that_is_called_as_a_class(tmp_path: Path) -> None:
    found = evaluation(tmp_path, systems="{PGD: runs/a}", conditions="{FGSM: {FGSM: {Linf: 1}}}")
    assert found["systems"] == {"PGD": load("runs/a/checkpoints/last.ckpt")}
    assert found["conditions"] == {"FGSM": full("robust_asr.attacks.fgsm.FGSM", threat=linf(1))}


MISTAKES = {
    "a class": ("conditions: {a: {PDG: {}}}", "recipe.yaml: .*a.PDG: PDG is the name of no class here; did you mean PGD"),
    "a class of no likeness": ("conditions: {a: {Qzx: {}}}", "conditions.a.Qzx: Qzx is the name of no class here; of your own"),
    "an argument": ("conditions: {a: {PGD: {num_iteration: 3}}}", "a.PGD: takes no num_iteration, .* did you mean num_iterations"),
    "a text for a number": ("conditions: {a: {PGD: {num_iterations: many}}}", "num_iterations: must be of type int, found many"),
    "a number too broken": ("conditions: {a: {PGD: {num_iterations: 7.5}}}", "num_iterations: must be of type int, found 7.5"),
    "no choice": ("conditions: {a: {PGD: {keep: worst}}}", "a.PGD.keep: must be of type Literal.*, found worst"),
    "an object of another kind": ("conditions: {a: {PGD: {goal: {Linf: 3}}}}", "a.PGD.goal: must be of type Goal, found .*Linf"),
    "a class within": ("conditions: {a: {PGD: {threat: {Linff: 3}}}}", "conditions.a.PGD.threat.Linff: .*did you mean Linf"),
    "two classes": ("conditions: {a: {MaskedBatchNorm: {}}}", "may be robust_asr.models.masked_norm.MaskedBatchNorm or robust_asr"),
    "a row twice": ("conditions: {a 1: Clean, 'a {}': {strengths: [1], Linf: '{}'}}", "a 1 is in the table already"),
    "no place in the name": ("conditions: {a: {strengths: [1], Linf: '{}'}}", "conditions.a: a family has strengths or runs"),
    "no list of strengths": ("conditions: {'a {}': {strengths: {}, Linf: '{}'}}", "conditions.a {}.strengths: is a list"),
    "no strengths": ("conditions: {'a {}': {Linf: '{}'}}", "needs strengths"),
    "no place in the object": ("conditions: {'a {}': {strengths: [1], Linf: 3}}", 'nothing in it says "{}"'),
    "no list": ("conditions: {'a {}': {strengths: 1, Linf: '{}'}}", "conditions.a {}.strengths: is a list of numbers, found 1"),
    "no map": ("systems: {'a {}': {runs: [b]}}", "systems.a {}.runs: is a map from the name"),
    "a key of a system": ("systems: {a: {run: x, defences: []}}", "defences: a system has run, defenses, search and vote"),
    "no run": ("systems: {a: {run: 3}}", "systems.a: run is a folder or a checkpoint"),
    "positional of torch": ("optimizer: {AdamW: 0.1}", "AdamW takes named arguments only"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_file_and_key(name: str, tmp_path: Path) -> None:
    text, sentence = MISTAKES[name]
    with pytest.raises(ValueError, match=sentence.replace("{}", r"\{\}")):
        settings(tmp_path, f"model:\n  Evaluation:\n    {text}\n")


def test_every_short_name_leads_to_what_a_file_may_name() -> None:
    for name, paths in catalogue._table().items():
        for path in paths:
            trust.check_name(path)
            assert path.endswith(f".{name}") and "command_line" not in path


ZELASKO = """
values:
  eps: [0.0001, 0.001, 0.01, 0.1, 0.2]
  goal: {Targeted: {PhraseFile: data/librispeech/train-clean-100.phrases.txt}}
  noise: {GaussianNoise: 0.01}
  # Stands for a vocoder here.
  vocoder: {Denoise: {ConvTasNet: {}}}
  augmented: {DeepSpeech2 + RSAUG: runs/ds2_rsaug, Transformer + RSAUG: runs/tf_rsaug}
  runs: {DeepSpeech2: runs/ds2, DeepSpeech2 + RSAUG: runs/ds2_rsaug, Transformer: runs/tf, Transformer + RSAUG: runs/tf_rsaug}
model:
  Evaluation:
    systems:
      "{}": {runs: $runs}
      "{} + RS0.01": {runs: $runs, defenses: [$noise]}
      "{} + WaveGAN": {runs: $runs, defenses: [$vocoder]}
      "{} + WaveGAN, RS0.01": {runs: $augmented, defenses: [$noise, $vocoder]}
    conditions:
      none: Clean
      FGSM targeted {}: {strengths: $eps, FGSM: {threat: {Linf: "{}"}, goal: $goal}}
      PGD-7 targeted {}: {strengths: $eps, PGD: {threat: {Linf: "{}"}, goal: $goal}}
      Imperceptible: {Imperceptible: $goal}
      Imperceptible, any phrase: {Imperceptible: {Targeted: {Yang2022: {}}}}
      from the {}: {strengths: [DeepSpeech2, Transformer], Saved: "runs/attacks_{}"}
"""


def test_fourteen_systems_under_fifteen_conditions_fit_into_sixty_lines(tmp_path: Path) -> None:
    found = settings(tmp_path, ZELASKO)["model"]["init_args"]
    assert len(found["systems"]) == 14 and len(found["conditions"]) == 15
    assert len(ZELASKO.splitlines()) < 60
