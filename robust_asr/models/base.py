"""The contract of a recogniser, which training, attacks, defences and evaluation are written against.

Legend: B utterances, T samples, F frames, D hidden units, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from robust_asr.losses import ctc_frames_needed, ctc_loss
from robust_asr.search.base import FrameSearch, Search
from robust_asr.search.greedy import GreedySearch
from robust_asr.text import CharacterTokenizer, Tokenizer
from robust_asr.types import Emissions, Targets, TokenTargets, Transcript

# How much an attacker knows of the defences of a recogniser, see ``Recognizer.view``.
Knowledge = Literal["exact", "straight_through", "unaware"]


def check_knowledge(knowledge: str) -> None:
    """Raise a ValueError unless ``knowledge`` is one of the values of ``Knowledge``."""
    if knowledge not in get_args(Knowledge):
        raise ValueError(f"knowledge must be one of {', '.join(get_args(Knowledge))}, found {knowledge!r}")


class Recognizer(nn.Module, ABC):
    """A module that maps waveforms to the loss of a given text, differentiable in the waveforms, and to a transcript.

    Every method treats each utterance alone: its result does not depend on the other utterances or on the padding. Constructor
    arguments are kept as attributes of the same name, so that a checkpoint can describe the architecture
    (``robust_asr.storage.describe.describe``).

    A recogniser may wrap another one: ``Defended`` puts a defence before a recogniser, a vote combines several transcripts of a
    recogniser. ``inside`` is the wrapped recogniser, and ``layers`` walks from the outermost recogniser to the innermost.

    Attributes:
        sample_rate: the sample rate of the waveforms, in hertz.
        padding_invariant: False if padding changes the result; such a model is attacked and evaluated with utterances alone or
            in equal lengths.
        stochastic: whether two calls with different seeds may differ. With False, attacks use one draw only. Each model must
            state this itself, because an attack that uses one draw of a random model is too weak.
        forwards_per_transcript: passes through the network that one transcript of one utterance costs; the copies of a vote.
        forwards_per_look: passes through the network that ``loss_and_transcripts`` costs for one utterance.
        cased: whether it writes case and punctuation, as a reference need not. An untargeted attack then asks which text it
            climbs away from (``robust_asr.attacks.goals.Untargeted``). Of a wrapper, ``innermost`` says it.
    """

    sample_rate: int = 16_000
    padding_invariant: bool = True
    stochastic: bool = True
    forwards_per_transcript: int = 1
    cased: bool = False

    @abstractmethod
    def targets(self, texts: Sequence[str]) -> Targets:
        """Convert texts to targets, such as token ids. A ValueError names a text that the recogniser cannot write."""

    def unwritable(self, text: str) -> list[str]:
        """What of a text the recogniser cannot write, characters or words; empty for a text that ``targets`` takes."""
        tokenizer = getattr(self.innermost, "tokenizer", None)
        if isinstance(tokenizer, Tokenizer):
            return tokenizer.unwritable(text)
        try:
            self.targets([text])
        except ValueError:
            return [text]
        return []

    def compared(self, text: str) -> str:
        """The form of a text in which it is compared with others: references, hypotheses and targets, before errors are counted.

        A recogniser with a spelling of its own overrides this. ``Transcript.text`` is in this form already.
        """
        return text if self.inside is None else self.inside.compared(text)

    @abstractmethod
    def feasible(self, lengths: Tensor, targets: Targets) -> Tensor:
        """Whether the audio of each utterance is long enough for its text. Shape: (B,) samples -> (B,) bool."""

    @abstractmethod
    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of each text, differentiable in the waveforms, never reduced.

        The loss is infinite, with zero gradient, where the target is not feasible.

        Shape: waveforms (B, T), lengths (B,), seeds (B,) int64 -> (B,).
        Units: nats.
        """

    @abstractmethod
    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        """The transcript of each utterance. Shape: waveforms (B, T), lengths (B,) -> B transcripts."""

    def loss_and_transcripts(
        self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None
    ) -> tuple[Tensor, list[Transcript]]:
        """``loss`` and ``transcribe`` on the same draws, in one pass if the recogniser can. Shape: -> (B,), B transcripts."""
        losses = self.loss(waveforms, lengths, targets, seeds=seeds)
        with torch.no_grad():
            return losses, self.transcribe(waveforms, lengths, seeds=seeds)

    @property
    def forwards_per_look(self) -> int:
        return 1 + self.forwards_per_transcript

    @property
    def inside(self) -> Recognizer | None:
        """The recogniser that this one wraps, or None."""
        return None

    @property
    def layers(self) -> Iterator[Recognizer]:
        """This recogniser, the one inside it, and so on to the innermost."""
        layer: Recognizer | None = self
        while layer is not None:
            yield layer
            layer = layer.inside

    @property
    def innermost(self) -> Recognizer:
        """The recogniser inside all wrappers."""
        *_, last = self.layers
        return last

    def view(self, knowledge: Knowledge) -> Recognizer:
        """The recogniser that an attacker with this knowledge takes gradients of; without a defence, this recogniser itself."""
        check_knowledge(knowledge)
        return self

    def columns(self) -> dict[str, Any]:
        """``model``, ``defense`` and ``sigma`` as in the papers' tables."""
        return {"model": type(self).__name__, "defense": "none", "sigma": ""}

    @property
    def search(self) -> Search | None:
        """The search from the network's output to a text, or None if the recogniser has a fixed search."""
        return None

    def use_search(self, search: Search) -> None:
        """Replace the search. ValueError for a search that does not fit the recogniser's outputs."""
        raise ValueError(f"search: {type(self).__name__} has a search of its own and takes no {type(search).__name__}")

    def prepare(self, texts: Iterable[str]) -> None:
        """Estimate statistics of the training texts, before the first loss; a recogniser that needs none does not read them."""

    def window(self, lengths: Tensor) -> Tensor:
        """The length that decides the memory of each utterance: the whole window if a model pads audio to a fixed window.

        Shape: (B,) -> (B,). Units: samples.
        """
        return lengths

    def hears(self, lengths: Tensor) -> Tensor:
        """Whether a recogniser can hear audio of these lengths to the end; False beyond the fixed window of a model that has one.

        Such audio has no transcript: ``transcribe`` raises a ValueError, attacks and verdicts leave the utterance out with a
        note, and no target is feasible.

        Shape: (B,) samples -> (B,) bool.
        """
        return torch.ones_like(lengths, dtype=torch.bool) if self.inside is None else self.inside.hears(lengths)


class FrameSynchronous(Recognizer):
    """A recogniser with a distribution over labels for every frame."""

    @abstractmethod
    def emissions(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> Emissions:
        """Label log-probabilities. Shape: waveforms (B, T), lengths (B,) -> log_probs (B, F, V), frame_lengths (B,)."""


class Encoded(Recognizer):
    """A recogniser whose encoder can be used separately: loss and transcript are functions of its hidden units.

    A subclass writes ``encode``, ``loss_from_hidden`` and ``transcribe_hidden``. ``loss`` and ``transcribe`` follow from the
    three and may not be overridden, because attacks take loss and transcript from one pass of the encoder.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        past = sorted({"loss", "transcribe", "loss_and_transcripts", "forwards_per_look"} & vars(cls).keys())
        if past:
            raise TypeError(
                f"{cls.__qualname__} defines {', '.join(past)}: an Encoded recogniser writes encode, loss_from_hidden and "
                "transcribe_hidden, from which these follow"
            )

    @abstractmethod
    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The hidden units. Shape: waveforms (B, T), lengths (B,) -> hidden (B, F, D), frame_lengths (B,)."""

    @abstractmethod
    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: Targets) -> Tensor:
        """The losses that follow from hidden units. Shape: hidden (B, F, D), frame_lengths (B,) -> (B,) nats."""

    @abstractmethod
    def transcribe_hidden(self, hidden: Tensor, frame_lengths: Tensor) -> list[Transcript]:
        """The transcripts; called without gradients. Shape: hidden (B, F, D), frame_lengths (B,) -> B transcripts."""

    forwards_per_look = 1

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        return self.loss_from_hidden(*self.encode(waveforms, lengths, seeds=seeds), targets)

    @torch.no_grad()
    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        return self.transcribe_hidden(*self.encode(waveforms, lengths, seeds=seeds))

    def loss_and_transcripts(
        self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None
    ) -> tuple[Tensor, list[Transcript]]:
        hidden, frame_lengths = self.encode(waveforms, lengths, seeds=seeds)
        with torch.no_grad():
            heard = self.transcribe_hidden(hidden.detach(), frame_lengths)
        return self.loss_from_hidden(hidden, frame_lengths, targets), heard


class LabelRecognizer(FrameSynchronous, Encoded):
    """An encoder and a linear head that gives label scores for every frame; a ``FrameSearch`` finds the transcript.

    A subclass writes ``encode``, ``num_frames``, ``targets``, ``feasible`` and ``loss_from_hidden``, and sets ``head``.

    Attributes:
        frame_shift: seconds between frames, for word times.
        head: module from hidden (B, F, D) to scores (B, F, V).
        tokenizer: converts between texts and labels.
    """

    frame_shift: float
    head: nn.Module
    tokenizer: Tokenizer

    def __init__(self) -> None:
        super().__init__()
        self._search: FrameSearch = GreedySearch()

    @property
    def search(self) -> FrameSearch:
        return self._search

    def use_search(self, search: Search) -> None:
        if not isinstance(search, FrameSearch):
            raise ValueError(
                f"search: {type(self).__name__} answers in frames of labels, which {type(search).__name__} cannot search"
            )
        self._search = search

    @abstractmethod
    def num_frames(self, lengths: Tensor) -> Tensor:
        """The number of frames that ``encode`` returns for each length. Shape: (B,) samples -> (B,) frames."""

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Label log-probabilities of hidden units. Shape: hidden (B, F, D) -> (B, F, V)."""
        scores = self.head(hidden)
        # At least float32: in half precision the recursions of CTC and LF-MMI underflow on long utterances.
        return (scores if scores.dtype == torch.float64 else scores.float()).log_softmax(-1)

    def emissions(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> Emissions:
        hidden, frame_lengths = self.encode(waveforms, lengths, seeds=seeds)
        return Emissions(self.log_probs(hidden), frame_lengths)

    def transcribe_hidden(self, hidden: Tensor, frame_lengths: Tensor) -> list[Transcript]:
        emissions = Emissions(self.log_probs(hidden).float(), frame_lengths)
        return self.search(emissions, self.tokenizer, frame_shift=self.frame_shift)


class CTCRecognizer(LabelRecognizer):
    """Encoder, linear head and CTC (Graves et al. 2006). A subclass writes ``encode`` and ``num_frames`` and sets ``head``."""

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer if tokenizer is not None else CharacterTokenizer()

    def targets(self, texts: Sequence[str]) -> TokenTargets:
        return self.tokenizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: TokenTargets) -> Tensor:
        return ctc_frames_needed(targets).to(lengths.device, non_blocking=True) <= self.num_frames(lengths)

    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> Tensor:
        return ctc_loss(self.log_probs(hidden), frame_lengths, targets, blank=self.tokenizer.blank)
