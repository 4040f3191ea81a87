"""The strength of our attacks beside adversarial-robustness-toolbox (ART), one table for each attack."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from benchmarks.art_adapter import Estimator
from benchmarks.art_runs import Outcome, Verdict, run_art, run_ours, verdict
from benchmarks.art_settings import Family, Setting
from robust_asr.attacks.base import Attack
from robust_asr.attacks.cw import FULL_SCALE
from robust_asr.attacks.imperceptible import Imperceptible
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.steps import Constant
from robust_asr.randomness import utterance_seeds
from robust_asr.results.intervals import mean_interval, share_interval
from robust_asr.types import AudioBatch


@dataclass(frozen=True)
class Bout:
    """One of our attacks, and the ART settings that are compared with it."""

    family: Family
    ours: Attack
    settings: tuple[Setting, ...]


def strength(bout: Bout, estimator: Estimator, batch: AudioBatch) -> Setting:
    """Run our attack and every setting of ART. Returns ART's best: most successes, then highest SNR, then word errors."""
    recognizer, size, goal = estimator.model, len(batch), bout.ours.goal
    texts = goal.texts(batch, seeds=utterance_seeds(0, batch.ids))
    print(f"\n{bout.family}: strength, {size} utterances\n\n{_HEAD}\n{'|---' * 8}|", flush=True)

    def judged(name: str, outcome: Outcome) -> Verdict:
        judgement = verdict(goal, recognizer, batch, texts, outcome)
        _print_row(name, judgement, outcome)
        return judgement

    theirs = {
        setting: judged(f"ART {setting}", run_art(setting, estimator, batch, texts, size=size))
        for setting in bout.settings
    }
    best = max(theirs, key=lambda setting: theirs[setting].rank(goal))
    ours = {"ours": bout.ours, "ours at the baseline's settings": matched(bout.ours, best)}
    verdicts = {name: judged(name, run_ours(attack, recognizer, batch, size=size)) for name, attack in ours.items()}
    print(f"\nbaseline: {best}. Paired, less the baseline, with 95 % intervals:")
    for name, mine in verdicts.items():
        print(f"- {name}: {_difference(mine, theirs[best])}", flush=True)
    return best


def matched(attack: Attack, setting: Setting) -> Attack:
    """Our attack with the steps and iterations of an ART setting."""
    if isinstance(attack, PaperPGD):
        return replace(attack, num_iterations=setting.iterations, steps=Constant(setting.steps[0]))
    first, second = (step / FULL_SCALE for step in setting.steps)
    if not isinstance(attack, Imperceptible):
        return replace(attack, num_iterations=setting.iterations, learning_rate=first)
    half = setting.iterations // 2
    stages = {"num_iterations": half, "masking_iterations": setting.iterations - half}
    return replace(attack, **stages, learning_rate=first, masking_learning_rate=second)


def _difference(ours: Verdict, theirs: Verdict) -> str:
    both = (ours.success * theirs.success) > 0
    snr, excess, art_excess = (
        _mean((getattr(ours, name) - getattr(theirs, name))[both]) for name in ("snr", "excess", "art_excess")
    )
    return (
        f"success {_mean(ours.success - theirs.success)}; where both succeed ({int(both.sum())}): SNR {snr} dB; "
        f"above the masking thresholds {excess} dB, above ART's {art_excess} dB"
    )


_HEAD = (
    "| | success | SNR of successes, dB | WER of the attacked text, % | largest sample | dB above the masking thresholds; ART's "
    "| forward-equivalents a success | s an iteration |"
)


def _print_row(name: str, judgement: Verdict, outcome: Outcome) -> None:
    cells = [
        name,
        _share(judgement.success),
        _mean(judgement.snr[judgement.success > 0]),
        f"{100 * judgement.wer:.1f}",
        f"{judgement.largest:.2g}",
        "; ".join(_mean(excess[judgement.success > 0]) for excess in (judgement.excess, judgement.art_excess)),
        f"{judgement.cost:.0f}" if judgement.success.any() else "-",
        f"{outcome.seconds_per_iteration:.3f}",
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


def _mean(values: Tensor) -> str:
    if not len(values):
        return "-"
    low, high = mean_interval(values)
    return f"{float(values.mean()):.2f} [{low:.2f}, {high:.2f}]"


def _share(success: Tensor) -> str:
    """The success rate with its 95 % interval, which has a positive width even if all or no utterances succeed."""
    low, high = share_interval(int(success.sum()), len(success))
    return f"{float(success.double().mean()):.2f} [{low:.2f}, {high:.2f}]"
