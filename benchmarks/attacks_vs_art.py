"""Our attacks beside those of adversarial-robustness-toolbox 1.20.1 (ART): strength, speed, masking thresholds.

Both get the same weights, utterances, budgets and iterations, in one process, and take turns:
``python -m benchmarks.attacks_vs_art [--quick]``, after ``pip install -c constraints.txt -e '.[bench]'``.
"""

from __future__ import annotations

import argparse
from typing import get_args

import torch
from torch import Tensor

from benchmarks.art_adapter import Estimator
from benchmarks.art_settings import Family, search
from benchmarks.art_speed import speed, thresholds
from benchmarks.art_strength import Bout, strength
from benchmarks.corpus import hardware
from datamodules import Speech
from robust_asr import checkpoint
from robust_asr.attacks.base import Attack
from robust_asr.attacks.cw import FULL_SCALE, CarliniWagner
from robust_asr.attacks.goals import Goal, Targeted
from robust_asr.attacks.imperceptible import Imperceptible
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.phrases import PhraseFile
from robust_asr.models.base import Recognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.text import normalize
from robust_asr.threat import Linf
from robust_asr.types import AudioBatch

_QUICK = {
    "utterances": 3,
    "pgd_iterations": 4,
    "cw_iterations": 12,
    "imperceptible_iterations": 24,
    "speed_iterations": 2,
    "repeats": 1,
}


def utterances(recognizer: Recognizer, goal: Goal, options: argparse.Namespace) -> AudioBatch:
    """Utterances that are transcribed without an error and are long enough for their target, sorted by length."""
    data = Speech(manifests=options.manifests, test=[options.part], eval_utterances=4 * options.utterances)
    data.setup("test")
    picked: list[tuple[Tensor, str, str]] = []
    for batch in data.test_dataloader()[0]:
        targets = recognizer.targets(goal.texts(batch, seeds=utterance_seeds(0, batch.ids)))
        fits = recognizer.feasible(batch.lengths, targets).tolist()
        heard = recognizer.transcribe(batch.waveforms, batch.lengths)
        for row, transcript in enumerate(heard):
            if fits[row] and normalize(transcript.text) == normalize(batch.texts[row]):
                waveform = batch.waveforms[row, : batch.lengths[row]]
                picked.append((waveform, batch.texts[row], batch.ids[row]))
    if not picked:
        raise ValueError(f"{options.checkpoint} hears no utterance of {options.part} right")
    picked = sorted(sorted(picked, key=lambda item: item[2])[: options.utterances], key=lambda item: len(item[0]))
    waveforms, texts, ids = zip(*picked, strict=True)
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    return AudioBatch(torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True), lengths, texts, ids)


def bouts(options: argparse.Namespace, targeted: Goal) -> list[Bout]:
    pgd = {"num_iterations": options.pgd_iterations}
    half = options.imperceptible_iterations // 2
    stages = {"num_iterations": half, "masking_iterations": options.imperceptible_iterations - half}
    # The default is made for a thousand iterations.
    rate = {"learning_rate": options.first_step / FULL_SCALE}
    cw = CarliniWagner(targeted, num_iterations=options.cw_iterations, **rate)
    attacks: dict[Family, tuple[Attack, float, int]] = {
        "PGD": (PaperPGD(Linf(options.eps), **pgd), options.eps, options.pgd_iterations),
        "PGD targeted": (
            PaperPGD(Linf(options.eps_targeted), goal=targeted, **pgd),
            options.eps_targeted,
            options.pgd_iterations,
        ),
        "CW": (cw, cw.bound, options.cw_iterations),
        "Imperceptible": (Imperceptible(targeted, **stages, **rate), cw.bound, options.imperceptible_iterations),
    }
    return [
        Bout(family, ours, tuple(search(family, bound=bound, iterations=iterations)))
        for family, (ours, bound, iterations) in attacks.items()
        if family in options.only
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="runs/an4/baseline/checkpoints/last.ckpt")
    parser.add_argument("--manifests", default="data/an4")
    parser.add_argument("--part", default="test")
    parser.add_argument("--phrases", default="data/an4/train.phrases.txt")
    parser.add_argument("--only", nargs="+", choices=get_args(Family), default=get_args(Family))
    parser.add_argument("--utterances", type=int, default=16)
    parser.add_argument("--eps", type=float, default=1e-4, help="of PGD; full-scale amplitude")
    parser.add_argument("--eps-targeted", type=float, default=3e-3)
    parser.add_argument("--pgd-iterations", type=int, default=50)
    parser.add_argument("--cw-iterations", type=int, default=300)
    parser.add_argument("--imperceptible-iterations", type=int, default=600, help="of both stages together")
    parser.add_argument("--first-step", type=float, default=10, help="of our CW and first stage; 16-bit steps")
    parser.add_argument("--speed-iterations", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="sizes that only show that everything runs")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(_QUICK)
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    recognizer = checkpoint.load(options.checkpoint, map_location=options.device)
    targeted = Targeted(PhraseFile(options.phrases))
    batch = utterances(recognizer, targeted, options).to(options.device)
    estimator = Estimator(recognizer)
    seconds = float(batch.lengths.sum()) / recognizer.sample_rate
    print(
        f"{hardware()}; {type(recognizer).__name__}, {len(batch)} utterances heard right, {seconds:.0f} s", flush=True
    )
    thresholds(estimator, batch, repeats=options.repeats)
    for bout in bouts(options, targeted):
        best = strength(bout, estimator, batch)
        speed(bout, best, estimator, batch, num=options.speed_iterations, repeats=options.repeats)


if __name__ == "__main__":
    main()
