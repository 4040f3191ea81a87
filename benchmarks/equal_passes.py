"""The standard evaluation beside other attacks at equal passes of the recogniser: a bare loop, and two toolboxes.

``python -m benchmarks.equal_passes CHECKPOINT``, after ``pip install -c constraints.txt -e '.[bench]'``. The checkpoint is any
recogniser with CTC; the utterances are those of a part of any manifests. All attacks get the same ball and passes, in one process;
one judge counts the word errors of each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent
from asr_attacks.attacks.iterative import pgd
from asr_attacks.backends.base import ASRBackend
from torch import Tensor

from benchmarks.art_adapter import Estimator
from benchmarks.corpus import hardware, one_batch
from robust_asr import checkpoint
from robust_asr.attacks.standard import Standard
from robust_asr.gradients import frozen_for_attack, input_gradient
from robust_asr.metrics import count_errors
from robust_asr.models.base import CTCRecognizer
from robust_asr.randomness import utterance_seeds
from robust_asr.results.intervals import difference_interval, rate_interval
from robust_asr.threat import Linf
from robust_asr.types import AudioBatch

# Steps of the projected gradient, as shares of the radius. The best is taken, chosen on the utterances that are reported.
_STEPS = (0.05, 0.1, 0.2)

Contender = Callable[[CTCRecognizer, AudioBatch, float, int], Tensor]


class Backend(ASRBackend):
    """A recogniser for asr-attacks, which attacks one utterance at a time."""

    def __init__(self, recognizer: CTCRecognizer) -> None:
        self.recognizer, self.device, self.blank_id = recognizer, torch.device("cpu"), 0

    def logits(self, audio: Tensor) -> Tensor:
        return self.recognizer.emissions(audio, torch.tensor([audio.shape[1]])).log_probs

    def encode(self, transcript: str) -> Tensor:
        return self.recognizer.targets([transcript]).tokens[0]

    def decode(self, audio: Tensor) -> str:
        return self.recognizer.transcribe(audio, torch.tensor([audio.shape[1]]))[0].text


def bare_loop(recognizer: CTCRecognizer, batch: AudioBatch, eps: float, passes: int, *, step: float = 0.2) -> Tensor:
    """PGD on the loss in a dozen lines: signs of the gradient, constant steps."""
    targets, waveforms = recognizer.targets(batch.texts), batch.waveforms.clone()
    valid = torch.arange(waveforms.shape[1]) < batch.lengths[:, None]
    for _ in range(passes):
        _, slope = input_gradient(lambda values: recognizer.loss(values, batch.lengths, targets), waveforms)
        delta = (waveforms + step * eps * slope.sign() - batch.waveforms).clamp(-eps, eps) * valid
        waveforms = (batch.waveforms + delta).clamp(-1, 1)
    return waveforms


def art(recognizer: CTCRecognizer, batch: AudioBatch, eps: float, passes: int, *, step: float) -> Tensor:
    estimator = Estimator(recognizer)
    estimator.attend(batch)
    attack = ProjectedGradientDescent(
        estimator, norm=np.inf, eps=eps, eps_step=step * eps, max_iter=passes, batch_size=len(batch), verbose=False
    )
    return torch.from_numpy(attack.generate(batch.waveforms.numpy(), y=np.array(batch.texts)))


def asr_attacks(recognizer: CTCRecognizer, batch: AudioBatch, eps: float, passes: int, *, step: float | None) -> Tensor:
    """The toolbox's own step is 2.5 radii in all iterations together. It starts at random, as it does by default."""
    made, backend = batch.waveforms.clone(), Backend(recognizer)
    for row, (length, text) in enumerate(zip(batch.lengths.tolist(), batch.texts, strict=True)):
        found = pgd(
            backend,
            batch.waveforms[row, :length],
            epsilon=eps,
            alpha=None if step is None else step * eps,
            # It looks at its result twice.
            num_iter=passes - 2,
            label=text,
            verbose=False,
        )
        made[row, :length] = torch.from_numpy(found).flatten()
    return made


def ours(recognizer: CTCRecognizer, batch: AudioBatch, eps: float, passes: int) -> Tensor:
    made = Standard(Linf(eps), forwards=passes).generate(recognizer, batch, seeds=utterance_seeds(0, batch.ids))
    # The verdict's pass is not of the attack; the others have none.
    assert int(made.forwards.sum()) <= (passes + 2) * len(batch)
    return made.waveforms


def contenders() -> dict[str, list[Contender]]:
    def at(attack: Callable[..., Tensor], step: float | None) -> Contender:
        return lambda *given: attack(*given, step=step)

    return {
        "bare loop": [at(bare_loop, step) for step in _STEPS],
        "adversarial-robustness-toolbox, PGD": [at(art, step) for step in _STEPS],
        "asr-attacks, PGD": [at(asr_attacks, step) for step in (None, *_STEPS)],
        "standard": [ours],
    }


def errors(recognizer: CTCRecognizer, batch: AudioBatch, waveforms: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Edits and words of each utterance. Shape: (B,), (B,)."""
    beyond = float((waveforms - batch.waveforms).abs().max()) - eps
    if beyond > 1e-7:
        raise ValueError(f"a perturbation exceeds eps by {beyond:.3g}")
    heard = recognizer.transcribe(waveforms, batch.lengths)
    counts = [count_errors([text], [one.text]) for text, one in zip(batch.texts, heard, strict=True)]
    edits = [sum(count[kind] for kind in ("insertions", "deletions", "substitutions")) for count in counts]
    return torch.tensor(edits), torch.tensor([count["reference_words"] for count in counts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--manifests", default="data/numbers")
    parser.add_argument("--part", default="dev")
    parser.add_argument("--utterances", type=int, default=24)
    parser.add_argument("--passes", type=int, default=60)
    parser.add_argument("--eps", type=float, nargs="+", default=[1e-4, 3e-4])
    options = parser.parse_args()
    recognizer = checkpoint.load(options.checkpoint).eval()
    batch = one_batch(options.manifests, options.part, options.utterances)
    print(
        f"{hardware()}; {options.checkpoint}, {options.utterances} utterances of {options.part}, {options.passes} passes\n"
    )
    print("| eps | attack | WER, % | standard minus it |\n|---|---|---|---|", flush=True)
    for eps in options.eps:
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name, settings in contenders().items():
            tried = []
            for attack in settings:
                with frozen_for_attack(recognizer):
                    made = attack(recognizer, batch, eps, options.passes)
                    tried.append(errors(recognizer, batch, made, eps))
            found[name] = max(tried, key=lambda counts: int(counts[0].sum()))
        mine, words = found["standard"]
        for name, (edits, _) in found.items():
            rate = _percent(edits, words, rate_interval)
            less = "" if name == "standard" else _percent(mine - edits, words, difference_interval)
            print(f"| {eps:g} | {name} | {rate} | {less} |", flush=True)


def _percent(edits: Tensor, words: Tensor, interval: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> str:
    low, high = map(float, interval(edits, words))
    return f"{100 * float(edits.sum() / words.sum()):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
