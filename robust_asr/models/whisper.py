"""Whisper, OpenAI's encoder-decoder (Radford et al. 2022), from files in Hugging Face's layout.

Legend: B utterances, T samples, F frames of 20 ms, D hidden units, P tokens of the prompt, U tokens of a text, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.masking import masked
from robust_asr.models.hf_files import INLINE, load_tensors, named_folder, require_library
from robust_asr.models.token_synchronous import TokenScores, TokenSynchronous
from robust_asr.models.whisper_features import HOP, SAMPLE_RATE, WhisperLogMel
from robust_asr.models.whisper_files import WhisperContent, read_content, read_weights, unpack
from robust_asr.models.whisper_text import WhisperText, normalizer_of
from robust_asr.models.whisper_times import Gaze, words_of
from robust_asr.types import TokenTargets, Transcript, check_audio

# The encoder's second convolution has stride 2.
_SAMPLES_A_FRAME = 2 * HOP


class Whisper(TokenSynchronous):
    """Whisper with its own prompt, teacher-forced loss and greedy search; transformers' network, in evaluation mode when built.

    The encoder hears a fixed window, 30 s for the published models: each utterance is followed by silence, which is added inside
    the recogniser, so no attack can change it. The loss of a text is the sum over its tokens and the end of text, without
    suppressed tokens. Transcripts equal those of transformers' ``generate`` without timestamps, sampling or beams.

    Texts are encoded in the spelling in which they are given; LibriSpeech's capitals are not what Whisper writes. Texts are
    compared after Whisper's normaliser, the English one where it writes English, else the basic one. A transcript's
    ``written`` is what Whisper wrote, ``text`` is that after the normaliser, ``words`` are those of ``written`` with their times,
    where the model names alignment heads.

    The attribute ``model`` describes the architecture, the prompt, the tokenizer and spellings, not the weights. It becomes part
    of a checkpoint, which can then be loaded without the original files.

    Args:
        model: a local folder with ``config.json``, ``generation_config.json``, a tokenizer and ``model.safetensors``; the name of
            such a model on Hugging Face's hub; or a description as ``describe`` writes it, whose weights are random.
        language: the code of the spoken language, such as ``en``, for a multilingual model; None for an English-only model.
        task: ``transcribe``, or ``translate`` (to English) for a multilingual model.

    Errors: ValueError names what is missing or not accepted in the folder, the language or the task, or says what to install;
        ``transcribe`` raises one for audio that is longer than the window.
    """

    sample_rate = SAMPLE_RATE
    stochastic = False
    cased = True

    def __init__(self, model: str, *, language: str | None = None, task: str = "transcribe") -> None:
        super().__init__()
        folder = None if model.startswith(INLINE) else named_folder(model, example="openai/whisper-tiny.en")
        content = unpack(model) if folder is None else read_content(folder)
        self.model = content.pack()
        self.language = language
        self.task = task
        generation = content.generation
        prompt = [generation["start"], *_language_and_task(generation, language, task), generation["no_timestamps"]]
        self.network = _network(content)
        self._most_tokens = self.network.config.max_target_positions
        self._most_written = min(generation["max_length"] or self._most_tokens, self._most_tokens)
        if self._most_written <= len(prompt):
            raise ValueError(
                f"model: at most {self._most_written} tokens leave no room after a prompt of {len(prompt)}"
            )
        self._end = self._checked_ids("end", [generation["end"]])[0]
        self._text = WhisperText(content.tokenizer, first_special=self._end)
        self._normalizer = normalizer_of(
            english=language in (None, "en") or task == "translate", spelling=content.spelling
        )
        self.front_end = WhisperLogMel(
            num_mels=self.network.config.num_mel_bins,
            window=self.network.config.max_source_positions * _SAMPLES_A_FRAME,
        )
        self._heads = generation.get("alignment_heads", [])
        self._keep_ids("prompt", prompt)
        self._keep_ids("suppressed", generation["suppress"])
        self._keep_ids("suppressed_first", [*generation["suppress"], *generation["begin_suppress"]])
        if folder is not None:
            load_tensors(self.network, read_weights(folder), folder)
        self.eval()

    def targets(self, texts: Sequence[str]) -> TokenTargets:
        return self._text.targets(texts)

    def unwritable(self, text: str) -> list[str]:
        return self._text.unwritable(text)

    def compared(self, text: str) -> str:
        return self._normalizer(text).strip()

    def feasible(self, lengths: Tensor, targets: TokenTargets) -> Tensor:
        fits = targets.token_lengths <= self._room
        return fits.to(lengths.device, non_blocking=True) & self.hears(lengths)

    def hears(self, lengths: Tensor) -> Tensor:
        return lengths <= self.front_end.window

    def window(self, lengths: Tensor) -> Tensor:
        return lengths.clamp(min=self.front_end.window)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_audio(waveforms, lengths)
        features = self.front_end(waveforms, lengths)
        hidden = self.network.encoder(features).last_hidden_state
        # The frames that hold the utterance; the decoder attends to the whole window, the silence after it included. No frame
        # stands for audio that is cut.
        return hidden, self.hears(lengths) * (-(-lengths // _SAMPLES_A_FRAME)).clamp(min=1)

    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> Tensor:
        forced = self._forced(hidden, targets)
        losses = functional.cross_entropy(forced.scores.transpose(1, 2), forced.tokens, reduction="none")
        cut = targets.token_lengths.to(hidden.device, non_blocking=True) > self._room
        return masked(losses, forced.lengths).sum(1).masked_fill(cut | (frame_lengths == 0), torch.inf)

    def teacher_forced(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> TokenScores:
        """What does not fit into the decoder is cut off."""
        forced = self._forced(hidden, targets)
        first = forced.scores[:, :1].index_fill(-1, self.suppressed_first, -torch.inf)
        later = forced.scores[:, 1:].index_fill(-1, self.suppressed, -torch.inf)
        return replace(forced, scores=torch.cat([first, later], 1))

    def _forced(self, hidden: Tensor, targets: TokenTargets) -> TokenScores:
        """The scores of all tokens, of which the search suppresses some. Shape: hidden (B, F, D)."""
        tokens = targets.tokens[:, : self._room].to(hidden.device, non_blocking=True)
        lengths = targets.token_lengths.to(hidden.device, non_blocking=True).clamp(max=self._room)
        inputs = torch.cat([self.prompt.expand(len(tokens), -1), tokens], 1)
        states = self.network.decoder(inputs, encoder_hidden_states=hidden, use_cache=False).last_hidden_state
        wanted = functional.pad(tokens, (0, 1)).scatter(1, lengths[:, None], self._end)
        return TokenScores(self._scores(states[:, len(self.prompt) - 1 :]), wanted, lengths + 1)

    @property
    def _room(self) -> int:
        """The most tokens of a text."""
        return self._most_tokens - len(self.prompt)

    def transcribe_hidden(self, hidden: Tensor, frame_lengths: Tensor) -> list[Transcript]:
        if bool((frame_lengths == 0).any()):
            rows = (frame_lengths == 0).nonzero()[:, 0].tolist()
            raise ValueError(
                f"Whisper hears {self.front_end.window / SAMPLE_RATE:g} s, the utterances at {rows} of the batch are longer: "
                "leave them out or cut them"
            )
        found, gaze = self._search(hidden)
        transcripts = []
        for row, (tokens, frames) in enumerate(zip(found, frame_lengths.tolist(), strict=True)):
            text = [token for token in tokens if token != self._end]
            written = self._text.decode(text)
            words = words_of(self._text.words(text), gaze.starts(row, frames), frames, gaze.sure[row][: len(text)])
            transcripts.append(Transcript(self.compared(written), words, written=written))
        return transcripts

    def _search(self, hidden: Tensor) -> tuple[list[list[int]], Gaze]:
        """The most likely next token, until the end of text or the longest transcript, and where they are heard.

        An utterance that has ended leaves the batch.

        Shape: hidden (B, F, D) -> B lists.
        """
        with Gaze(self.network.decoder, self._heads, len(hidden)) as gaze:
            return self._written(hidden, gaze), gaze

    def _written(self, hidden: Tensor, gaze: Gaze) -> list[list[int]]:
        written: list[list[int]] = [[] for _ in hidden]
        rows, inputs, cache = list(range(len(hidden))), self.prompt.expand(len(hidden), -1), None
        for place in range(self._most_written - len(self.prompt) if rows else 0):
            step = self.network.decoder(inputs, encoder_hidden_states=hidden, past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            scores = self._scores(step.last_hidden_state[:, -1])
            scores[:, self.suppressed if place else self.suppressed_first] = -torch.inf
            best = scores.argmax(-1)
            gaze.follow(rows, scores, best, reads=place > 0)
            tokens = best.tolist()
            for row, token in zip(rows, tokens, strict=True):
                written[row].append(token)
            going = [index for index, token in enumerate(tokens) if token != self._end]
            if not going:
                break
            if len(going) < len(rows):
                left = torch.tensor(going, device=hidden.device)
                rows, hidden, best = [rows[index] for index in going], hidden[left], best[left]
                cache.batch_select_indices(left)
            inputs = best[:, None]
        return written

    def _scores(self, states: Tensor) -> Tensor:
        """Scores of all tokens, by the tied embedding. Shape: states (..., D) -> (..., V)."""
        scores = states @ self.network.decoder.embed_tokens.weight.T
        return scores if scores.dtype == torch.float64 else scores.float()

    def _keep_ids(self, name: str, ids: Sequence[int]) -> None:
        self.register_buffer(name, torch.tensor(self._checked_ids(name, ids), dtype=torch.long), persistent=False)

    def _checked_ids(self, name: str, ids: Sequence[int]) -> Sequence[int]:
        vocabulary = self.network.config.vocab_size
        outside = [token for token in ids if not 0 <= token < vocabulary]
        if outside:
            raise ValueError(f"model: {name} holds the ids {outside[:3]}, the vocabulary has {vocabulary}")
        return ids


def _language_and_task(generation: Mapping[str, Any], language: str | None, task: str) -> list[int]:
    languages, tasks = generation["languages"], generation["tasks"]
    if not languages:
        if language is not None or task != "transcribe":
            raise ValueError(
                f"language must be None and task 'transcribe' for an English-only Whisper, found {language!r} and {task!r}"
            )
        return []
    if language not in languages:
        raise ValueError(
            f"language must be the code of one of the model's {len(languages)} languages, such as 'en', found {language!r}"
        )
    if task not in tasks:
        raise ValueError(f"task must be one of {', '.join(sorted(tasks))}, found {task!r}")
    return [languages[language], tasks[task]]


def _network(content: WhisperContent) -> Any:
    """Transformers' encoder and decoder with random weights; the output layer is tied to the embedding of tokens."""
    library = require_library()
    try:
        # Named here, because a configuration may name an implementation that is downloaded.
        config = library.WhisperConfig(**content.sizes, attn_implementation="sdpa")
        return library.WhisperModel(config)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"model: no Whisper can be built from its sizes ({error})") from error
