"""Objectives: what an attack raises for each utterance. The recogniser's own loss, or a function that is nearer to the error rate.

Legend: B utterances, T samples, F frames, D hidden units, V labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robust_asr.attacks.aims import (
    Aim,
    LossOf,
    Margins,
    Sum,
    TokenMargins,
    hands_out_frames,
    has_encoder,
    has_frames,
    has_tokens,
)
from robust_asr.attacks.goals import Goal
from robust_asr.attacks.own_texts import own_texts
from robust_asr.models.base import Recognizer
from robust_asr.models.token_synchronous import TokenSynchronous
from robust_asr.randomness import Key, derive
from robust_asr.types import AudioBatch, Targets

# The draws of a random recogniser whose mean says what it hears in the clean audio.
_LABEL_DRAWS = 8
# The words of insertions: how many of a lexicon, letters, the share of the audio that they fill, and a bound on their number
# where any text fits.
_NUM_WORDS, _LETTERS, _DENSITY, _WORDS_A_SECOND = 5, ("A", "O", "E", "I"), 0.8, 50


class Objective(ABC):
    """A value whose fields are its configuration. ``aim`` fixes what depends on the clean audio, once for each utterance.

    Attributes:
        targeted: whether the objective serves a targeted goal too; False for one that can only lead away from a text.
    """

    targeted: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """The objective in an attack's name: ``margin``; "" for the recogniser's own loss, as in the papers."""

    @abstractmethod
    def aim(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, goal: Goal, *, seeds: Tensor) -> Aim:
        """What the objective needs to know of each utterance. The recogniser is frozen, ``targets`` are those of the goal's texts.

        Shape: seeds (B,) int64.
        Errors: ValueError for a recogniser that the objective cannot serve.
        """

    def passes_to_aim(self, recognizer: Recognizer) -> int:
        """The passes of each utterance through the recogniser in ``aim``."""
        return 0


@dataclass(frozen=True)
class Loss(Objective):
    """The recogniser's loss of the goal's text, as in the five papers: raised away from the reference, lowered to a target."""

    targeted: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return ""

    def aim(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, goal: Goal, *, seeds: Tensor) -> Aim:
        # Two texts are an aim already (``climbing``).
        return targets if isinstance(targets, Aim) else LossOf(targets, goal.sign)


@dataclass(frozen=True)
class FrameMargin(Objective):
    """A hinge margin over the labels that the clean audio has frame by frame, summed over the frames.

    At a frame whose best label is y on the clean audio, the margin is the largest score of another label minus the score of y;
    it counts up to one nat, so a frame that is lost pulls no more and leaves the budget to the others (the hinge of Carlini &
    Wagner 2017, objective f6). The difference of two scores is that of their log-probabilities. Of a random recogniser, y has
    the largest mean log-probability over eight draws.
    """

    @property
    def name(self) -> str:
        return "margin"

    def aim(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, goal: Goal, *, seeds: Tensor) -> Aim:
        if not has_frames(recognizer):
            name = [type(layer).__name__ for layer in recognizer.layers if not hands_out_frames(layer)][-1]
            raise ValueError(
                f"objective: FrameMargin needs scores of labels in every frame, which {name} does not have: use Loss"
            )
        total, frame_lengths = 0, None
        with torch.no_grad():
            for draw in range(self.passes_to_aim(recognizer)):
                keyed = derive(seeds, step=Key.CLEAN_LABELS, draw=draw)
                emissions = recognizer.emissions(batch.waveforms, batch.lengths, seeds=keyed)
                total, frame_lengths = total + emissions.log_probs, emissions.frame_lengths
        return Margins(total.argmax(-1), frame_lengths)

    def passes_to_aim(self, recognizer: Recognizer) -> int:
        return _LABEL_DRAWS if recognizer.stochastic else 1


@dataclass(frozen=True)
class TokenMargin(Objective):
    """A hinge margin over the tokens that the recogniser writes on the clean audio, summed over them and the end of the text.

    At each token the decoder reads those before it (teacher forcing). A transducer's tokens are those of the text's most
    probable alignment, blanks included. The margin is the largest score of another token that the search may write there, minus
    the token's own; it counts up to one nat, as in ``FrameMargin``. Tokens are those of the recogniser's own transcript in its
    spelling, or of the reference where its loss does not take that (``own_texts``). Where the recogniser writes nothing, the
    margin is that of the end of the text, so that it comes to write something.
    """

    @property
    def name(self) -> str:
        return "token margin"

    def aim(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, goal: Goal, *, seeds: Tensor) -> Aim:
        if not has_tokens(recognizer):
            name = type(recognizer.innermost).__name__
            raise ValueError(
                f"objective: TokenMargin needs a decoder that scores the tokens of a text, which {name} does not hand out: "
                "use Loss, or FrameMargin for a recogniser with frames"
            )
        pairs = zip(own_texts(recognizer, batch, seeds=seeds), batch.texts, strict=True)
        return TokenMargins(recognizer.targets([given if own is None else own for own, given in pairs]))

    def passes_to_aim(self, recognizer: Recognizer) -> int:
        return recognizer.forwards_per_transcript


@dataclass(frozen=True)
class Insertions(Objective):
    """Towards a text of many short words: each word of it that the recogniser writes is an insertion or a substitution.

    The text repeats the shortest words of the search's lexicon, or, without a lexicon, single letters of many sounds. It has as
    many words as fit into four fifths of the audio: a text that fills the audio leaves no choice of frames. Where not even one
    word fits, it is the empty text.

    Errors: ValueError for a recogniser that can write none of the words, and for one that writes token by token: any text fits
        into its audio, so nothing says how many words an attack could make it write.
    """

    @property
    def name(self) -> str:
        return "insertions"

    def aim(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, goal: Goal, *, seeds: Tensor) -> Aim:
        if isinstance(recognizer.innermost, TokenSynchronous):
            name = type(recognizer.innermost).__name__
            raise ValueError(
                f"objective: Insertions fills the frames of the audio with words; {name} writes tokens, of which any number fits: "
                "use Loss or TokenMargin"
            )
        words = _short_words(recognizer)
        if not words:
            raise ValueError(
                "objective: Insertions needs words, and the recogniser can write neither its lexicon's nor letters"
            )
        # On the host, which would wait for every answer of a device.
        lengths = (_DENSITY * batch.lengths.cpu()).long()
        texts = [self._text(recognizer, lengths[row : row + 1], words) for row in range(len(batch))]
        return LossOf(recognizer.targets(texts), -1)

    def _text(self, recognizer: Recognizer, length: Tensor, words: Sequence[str]) -> str:
        """The longest text that fits into the audio, by bisection of its number of words. Shape: length (1,) samples."""

        def text(count: int) -> str:
            return " ".join(words[place % len(words)] for place in range(count))

        def fits(count: int) -> bool:
            return bool(recognizer.feasible(length, recognizer.targets([text(count)])).all())

        least, most = 0, 1 + _WORDS_A_SECOND * int(length) // recognizer.sample_rate
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (middle, most) if fits(middle) else (least, middle)
        return text(least)


@dataclass(frozen=True)
class Mixture(Objective):
    """The sum of several objectives, in one pass through the recogniser where it has an encoder, else in one for each.

    Errors: ValueError for parts that are no objectives, or no part.
    """

    parts: Sequence[Objective]

    def __post_init__(self) -> None:
        if not self.parts or not all(isinstance(part, Objective) for part in self.parts):
            raise ValueError(f"objective: Mixture needs objectives such as Loss and FrameMargin, found {self.parts!r}")
        # A list, which configurations give, has no hash.
        object.__setattr__(self, "parts", tuple(self.parts))

    @property
    def name(self) -> str:
        return "+".join(part.name or "loss" for part in self.parts)

    def aim(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, goal: Goal, *, seeds: Tensor) -> Aim:
        return Sum(tuple(part.aim(recognizer, batch, targets, goal, seeds=seeds) for part in self.parts))

    def passes_to_aim(self, recognizer: Recognizer) -> int:
        return sum(part.passes_to_aim(recognizer) for part in self.parts)


LOSS_AND_FRAMES = Mixture((Loss(), FrameMargin()))
LOSS_AND_TOKENS = Mixture((Loss(), TokenMargin()))


@dataclass(frozen=True)
class Usual(Objective):
    """The loss and the margin of what the recogniser decides: of every frame or, without frames, of every token that it writes.

    A recogniser that hands out neither is attacked on its loss alone. Descriptions name the mixture for recognisers with frames,
    as those of rows from before this class; no recogniser serves both, so two attacks of one description never differ.
    """

    described_as: ClassVar[Objective] = LOSS_AND_FRAMES

    @property
    def name(self) -> str:
        return LOSS_AND_FRAMES.name

    def aim(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, goal: Goal, *, seeds: Tensor) -> Aim:
        return self.of(recognizer).aim(recognizer, batch, targets, goal, seeds=seeds)

    def passes_to_aim(self, recognizer: Recognizer) -> int:
        return self.of(recognizer).passes_to_aim(recognizer)

    def of(self, recognizer: Recognizer) -> Objective:
        """The objective that serves a recogniser."""
        if has_frames(recognizer):
            return LOSS_AND_FRAMES
        return LOSS_AND_TOKENS if has_tokens(recognizer) else Loss()


def _short_words(recognizer: Recognizer) -> list[str]:
    """The shortest words of the search's lexicon; single letters where the search writes any word. Only what can be written."""
    tokenizer = getattr(recognizer.innermost, "tokenizer", None)
    known = recognizer.search.words(tokenizer) if recognizer.search is not None and tokenizer is not None else []
    shortest = sorted(set(known), key=lambda word: (len(word), word))[:_NUM_WORDS] or _LETTERS
    return [word for word in shortest if not recognizer.unwritable(word)]


def strongest(recognizer: Recognizer, goal: Goal) -> list[Objective]:
    """The objectives of which, for some utterance and recogniser, each is the strongest (benchmarks.objectives, climbed_text)."""
    if goal.targeted:
        return [Loss()]
    if has_tokens(recognizer):
        return [Loss(), LOSS_AND_TOKENS]
    found: list[Objective] = [Loss()]
    if not isinstance(recognizer.innermost, TokenSynchronous) and _short_words(recognizer):
        found.append(Insertions())
    if has_frames(recognizer):
        # Without an encoder the two parts of a mixture would cost two passes.
        found.append(LOSS_AND_FRAMES if has_encoder(recognizer) else FrameMargin())
    return found
