"""What a defence is, and a recogniser behind defences, which is again a recogniser.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robust_asr.gradients import straight_through
from robust_asr.masking import masked
from robust_asr.models.base import Knowledge, Recognizer, check_knowledge
from robust_asr.randomness import derive
from robust_asr.search.base import Search
from robust_asr.text import Tokenizer
from robust_asr.types import Emissions, Targets, Transcript


class Defense(nn.Module, ABC):
    """A transformation of the audio before the recogniser hears it.

    Every utterance is treated alone: its result does not depend on its neighbours or on the padding. Constructor arguments are
    kept as attributes of the same name. A defence that has no gradient of its own, such as a codec, gives that of the identity
    (``robust_asr.gradients.straight_through``): a gradient of zero would stop an attack, not an attacker.

    Attributes:
        name: as the papers' tables write it: ``RS``.
        sigmas: standard deviations of the Gaussian noise that it adds, for the papers' tables.
        stochastic: whether the result depends on ``seeds``.
        padding_invariant: False where padding changes the result.
        keeps_length: False where the result may have another number of samples: then it has no straight-through form.
    """

    name: str
    sigmas: tuple[float, ...] = ()
    stochastic: bool = False
    padding_invariant: bool = True
    keeps_length: bool = True

    def __init__(self) -> None:
        # The constructor of nn.Module takes anything, which would be the signature of a defence without arguments.
        super().__init__()

    @abstractmethod
    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the recogniser shall hear. A stochastic defence without seeds draws new ones: ``fresh_seeds``.

        Shape: waveforms (B, T), zero past lengths (B,), seeds (B,) int64 -> waveforms (B, T'), lengths (B,).
        """

    def num_samples(self, lengths: Tensor) -> Tensor:
        """The lengths that ``forward`` returns for these. Shape: (B,) -> (B,)."""
        return lengths

    @property
    def stages(self) -> tuple[Defense, ...]:
        """The defences in it, in the order in which they are applied."""
        return (self,)


def fresh_seeds(num: int) -> Tensor:
    """Seeds for draws that nobody keyed, from torch's global generator on the CPU. Shape: (num,) int64."""
    return torch.randint(2**63 - 1, (num,))


class Chain(Defense):
    """Defences one after the other. The draws of each are keyed by its position, also in chains of chains."""

    def __init__(self, defenses: Sequence[Defense]) -> None:
        super().__init__()
        if not defenses:
            raise ValueError("defenses: a chain holds at least one defence, found none")
        self.links = nn.ModuleList(defenses)
        self.name = "+".join(defense.name for defense in defenses)
        self.sigmas = tuple(sigma for defense in defenses for sigma in defense.sigmas)
        self.stochastic = any(defense.stochastic for defense in defenses)
        self.padding_invariant = all(defense.padding_invariant for defense in defenses)
        self.keeps_length = all(defense.keeps_length for defense in defenses)

    @property
    def defenses(self) -> tuple[Defense, ...]:
        return tuple(self.links)

    @property
    def stages(self) -> tuple[Defense, ...]:
        return tuple(stage for link in self.links for stage in link.stages)

    def num_samples(self, lengths: Tensor) -> Tensor:
        for stage in self.stages:
            lengths = stage.num_samples(lengths)
        return lengths

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _through(self.stages, waveforms, lengths, seeds)


class StraightThrough(Defense):
    """Another defence's exact result with the gradient of the identity (BPDA; Athalye, Carlini and Wagner 2018, section 4.1).

    Errors: ValueError for a defence that may change the number of samples, for which the identity has no meaning.
    """

    def __init__(self, defense: Defense) -> None:
        super().__init__()
        if not defense.keeps_length:
            raise ValueError(f"{defense.name} changes the number of samples, so it has no straight-through form")
        self.defense = defense
        self.name = defense.name
        self.sigmas = defense.sigmas
        self.stochastic = defense.stochastic
        self.padding_invariant = defense.padding_invariant

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            defended, _ = self.defense(waveforms, lengths, seeds=seeds)
        return straight_through(defended, waveforms), lengths


class Defended(Recognizer):
    """A recogniser behind a defence, or behind a ``Chain`` of them, the first of which meets the audio first.

    What the recogniser inside can do beside losses and transcripts - emissions, hidden units - it does here too, on the audio
    that passed the defences; whether it can, ``innermost`` tells.

    Draws are keyed: the defence at position p gets ``derive(seeds, draw=p)``, the recogniser inside the position after the last.
    Without seeds every stochastic part draws afresh, and from one call to the next differently.

    Errors: AttributeError for what the recogniser inside has not.
    """

    def __init__(self, defense: Defense, recognizer: Recognizer) -> None:
        super().__init__()
        self.defense = defense
        self.recognizer = recognizer

    @property
    def inside(self) -> Recognizer:
        return self.recognizer

    def view(self, knowledge: Knowledge) -> Recognizer:
        """The same modules as an attacker with this knowledge takes them to be.

        ``exact``: as they are. ``straight_through``: as they are, on the same draws, but with the gradient of the identity for
        every defence. ``unaware``: the recogniser without any defence.
        """
        check_knowledge(knowledge)
        inside = self.recognizer.view(knowledge)
        if knowledge == "exact":
            return self if inside is self.recognizer else Defended(self.defense, inside)
        if knowledge == "unaware":
            return inside
        return Defended(Chain([StraightThrough(stage) for stage in self.defense.stages]), inside)

    def columns(self) -> dict[str, Any]:
        """``defense`` and ``sigma`` as in the papers' tables: ``RS+ASNR``, 0.01; "" where no noise is added."""
        sigmas = [sigma for defense in self.defenses for sigma in defense.sigmas]
        sigma = "+".join(map(str, sigmas)) if len(sigmas) > 1 else next(iter(sigmas), "")
        names = "+".join(defense.name for defense in self.defenses)
        return {**self.recognizer.columns(), "defense": names, "sigma": sigma}

    @property
    def defenses(self) -> tuple[Defense, ...]:
        """What the audio passes, with the defences of a defended recogniser inside."""
        return tuple(layer.defense for layer in self.layers if isinstance(layer, Defended))

    @property
    def stochastic(self) -> bool:
        """Whether an answer depends on ``seeds``: if not, one draw is all draws."""
        return self.defense.stochastic or self.recognizer.stochastic

    @property
    def sample_rate(self) -> int:
        return self.recognizer.sample_rate

    @property
    def padding_invariant(self) -> bool:
        return self.defense.padding_invariant and self.recognizer.padding_invariant

    @property
    def forwards_per_transcript(self) -> int:
        return self.recognizer.forwards_per_transcript

    @property
    def forwards_per_look(self) -> int:
        return self.recognizer.forwards_per_look

    @property
    def tokenizer(self) -> Tokenizer:
        return self.recognizer.tokenizer

    @property
    def frame_shift(self) -> float:
        return self.recognizer.frame_shift

    @property
    def search(self) -> Search | None:
        return self.recognizer.search

    def use_search(self, search: Search) -> None:
        self.recognizer.use_search(search)

    def prepare(self, texts: Iterable[str]) -> None:
        self.recognizer.prepare(texts)

    def window(self, lengths: Tensor) -> Tensor:
        return torch.maximum(lengths, self.recognizer.window(self.defense.num_samples(lengths)))

    def targets(self, texts: Sequence[str]) -> Targets:
        return self.recognizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: Targets) -> Tensor:
        return self.recognizer.feasible(self.defense.num_samples(lengths), targets)

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        waveforms, lengths, seeds = self._defend(waveforms, lengths, seeds)
        return self.recognizer.loss(waveforms, lengths, targets, seeds=seeds)

    @torch.no_grad()
    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        waveforms, lengths, seeds = self._defend(waveforms, lengths, seeds)
        return self.recognizer.transcribe(waveforms, lengths, seeds=seeds)

    def loss_and_transcripts(
        self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None
    ) -> tuple[Tensor, list[Transcript]]:
        waveforms, lengths, seeds = self._defend(waveforms, lengths, seeds)
        return self.recognizer.loss_and_transcripts(waveforms, lengths, targets, seeds=seeds)

    def emissions(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> Emissions:
        waveforms, lengths, seeds = self._defend(waveforms, lengths, seeds)
        return self.recognizer.emissions(waveforms, lengths, seeds=seeds)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        waveforms, lengths, seeds = self._defend(waveforms, lengths, seeds)
        return self.recognizer.encode(waveforms, lengths, seeds=seeds)

    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: Targets) -> Tensor:
        return self.recognizer.loss_from_hidden(hidden, frame_lengths, targets)

    def transcribe_hidden(self, hidden: Tensor, frame_lengths: Tensor) -> list[Transcript]:
        return self.recognizer.transcribe_hidden(hidden, frame_lengths)

    def _defend(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the recogniser inside hears, and the seeds of its own draws."""
        stages = self.defense.stages
        waveforms, lengths = _through(stages, waveforms, lengths, seeds)
        return waveforms, lengths, None if seeds is None else derive(seeds, draw=len(stages))


def _through(
    stages: Sequence[Defense], waveforms: Tensor, lengths: Tensor, seeds: Tensor | None
) -> tuple[Tensor, Tensor]:
    # Masked on every passage: what a defence leaves in the padding would reach the next one's filters.
    waveforms = masked(waveforms, lengths)
    for position, stage in enumerate(stages):
        keyed = None if seeds is None else derive(seeds, draw=position)
        waveforms, new_lengths = stage(waveforms, lengths, seeds=keyed)
        # Their values are compared only where they may differ: on a GPU it waits for the queue.
        if stage.keeps_length and new_lengths is not lengths and not torch.equal(new_lengths, lengths):
            raise ValueError(f"{stage.name} changed the number of samples: it must say keeps_length = False")
        lengths = new_lengths
        waveforms = masked(waveforms, lengths)
    return waveforms, lengths
