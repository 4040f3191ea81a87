"""The contract of a defence, and ``Defended``: a recogniser behind a defence, which is a recogniser again.

Legend: B utterances, T samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robust_asr.gradients import straight_through
from robust_asr.masking import masked
from robust_asr.models.base import Knowledge, Recognizer, check_knowledge
from robust_asr.models.wrapper import Wrapper
from robust_asr.randomness import derive
from robust_asr.types import Emissions, Targets, Transcript


class Defense(nn.Module, ABC):
    """A transformation of the audio before the recogniser hears it.

    Every utterance is treated alone: its result does not depend on the other utterances or on the padding. Constructor
    arguments are kept as attributes of the same name. A defence without a gradient of its own, such as a codec, returns the
    gradient of the identity (``robust_asr.gradients.straight_through``). A gradient of zero would only stop our attacks, not a
    real attacker, and the defence would look stronger than it is.

    Attributes:
        name: the defence's name in the papers' tables: ``RS``.
        sigmas: standard deviations of the Gaussian noise that the defence adds, for the papers' tables.
        stochastic: whether the result depends on ``seeds``.
        padding_invariant: False where padding changes the result.
        keeps_length: False if the result may have a different number of samples; such a defence has no straight-through form.
    """

    name: str
    sigmas: tuple[float, ...] = ()
    stochastic: bool = False
    padding_invariant: bool = True
    keeps_length: bool = True

    def __init__(self) -> None:
        # nn.Module's constructor accepts any arguments. Without this one, a defence without arguments would accept any too.
        super().__init__()

    @abstractmethod
    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the audio for the recogniser. A stochastic defence that gets no seeds draws new seeds with
        ``robust_asr.randomness.fresh_seeds``.

        Shape: waveforms (B, T), zero past lengths (B,), seeds (B,) int64 -> waveforms (B, T'), lengths (B,).
        """

    def num_samples(self, lengths: Tensor) -> Tensor:
        """The lengths that ``forward`` returns for audio of these lengths. Shape: (B,) -> (B,)."""
        return lengths

    @property
    def stages(self) -> tuple[Defense, ...]:
        """The single defences that a chain consists of, in the order in which they are applied; else the defence itself."""
        return (self,)


class Chain(Defense):
    """Defences one after the other. The position of a defence keys its random draws, also in a chain of chains."""

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
    """A defence's exact result with the gradient of the identity (BPDA; Athalye, Carlini and Wagner 2018, section 4.1).

    Errors: ValueError for a defence that may change the number of samples, because then the identity is not defined.
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


class Defended(Wrapper):
    """A recogniser behind a defence or a ``Chain`` of defences; the first defence of a chain receives the audio first.

    ``emissions``, ``encode`` and the other methods of special recognisers pass on to the recogniser inside, with the defended
    audio. The type of ``innermost`` says which of them exist.

    Random draws are keyed: the defence at position p of n gets ``derive(seeds, draw=p)``, the recogniser inside gets
    ``derive(seeds, draw=n)``. Without seeds every stochastic part draws differently in every call.

    Errors: AttributeError for a method that the recogniser inside does not have.
    """

    def __init__(self, defense: Defense, recognizer: Recognizer) -> None:
        super().__init__()
        self.defense = defense
        self.recognizer = recognizer

    def view(self, knowledge: Knowledge) -> Recognizer:
        """The system that an attacker with this knowledge takes gradients of; it shares its modules with this one.

        ``exact``: the system itself. ``straight_through``: the system with the same outputs on the same draws, but with the
        gradient of the identity for every defence. ``unaware``: the recogniser without any defence.
        """
        check_knowledge(knowledge)
        inside = self.recognizer.view(knowledge)
        if knowledge == "exact":
            return self if inside is self.recognizer else Defended(self.defense, inside)
        if knowledge == "unaware":
            return inside
        return Defended(Chain([StraightThrough(stage) for stage in self.defense.stages]), inside)

    def columns(self) -> dict[str, Any]:
        """``defense`` and ``sigma`` as in the papers' tables: ``RS+ASNR``, 0.01; sigma is "" if no defence adds noise."""
        sigmas = [sigma for defense in self.defenses for sigma in defense.sigmas]
        sigma = "+".join(map(str, sigmas)) if len(sigmas) > 1 else next(iter(sigmas), "")
        names = "+".join(defense.name for defense in self.defenses)
        return {**self.recognizer.columns(), "defense": names, "sigma": sigma}

    @property
    def defenses(self) -> tuple[Defense, ...]:
        """The defences of all ``Defended`` layers, in the order in which the audio passes them."""
        return tuple(layer.defense for layer in self.layers if isinstance(layer, Defended))

    @property
    def stochastic(self) -> bool:
        """Whether losses and transcripts depend on ``seeds``; if not, a single draw is enough."""
        return self.defense.stochastic or self.recognizer.stochastic

    @property
    def padding_invariant(self) -> bool:
        return self.defense.padding_invariant and self.recognizer.padding_invariant

    @property
    def forwards_per_look(self) -> int:
        return self.recognizer.forwards_per_look

    def window(self, lengths: Tensor) -> Tensor:
        return torch.maximum(lengths, self.recognizer.window(self.defense.num_samples(lengths)))

    def hears(self, lengths: Tensor) -> Tensor:
        return self.recognizer.hears(self.defense.num_samples(lengths))

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
        """The defended audio, its lengths, and the seeds for the random draws of the recogniser inside."""
        stages = self.defense.stages
        waveforms, lengths = _through(stages, waveforms, lengths, seeds)
        return waveforms, lengths, None if seeds is None else derive(seeds, draw=len(stages))


def _through(
    stages: Sequence[Defense], waveforms: Tensor, lengths: Tensor, seeds: Tensor | None
) -> tuple[Tensor, Tensor]:
    # The padding is set to zero after every defence, because the filters of the next defence would mix it into the audio.
    waveforms = masked(waveforms, lengths)
    for position, stage in enumerate(stages):
        keyed = None if seeds is None else derive(seeds, draw=position)
        waveforms, new_lengths = stage(waveforms, lengths, seeds=keyed)
        # The values are compared only if the tensors differ: reading them on a GPU waits until all queued work is finished.
        if stage.keeps_length and new_lengths is not lengths and not torch.equal(new_lengths, lengths):
            raise ValueError(f"{stage.name} changed the number of samples: it must say keeps_length = False")
        lengths = new_lengths
        waveforms = masked(waveforms, lengths)
    return waveforms, lengths
