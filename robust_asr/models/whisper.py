"""Whisper, OpenAI's encoder-decoder (Radford et al. 2022), from files in Hugging Face's layout.

Legend: B utterances, T samples, F frames of 20 ms, D hidden units, P tokens of the prompt, U tokens of a text, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.masking import masked
from robust_asr.models.base import Encoded
from robust_asr.models.hf_files import INLINE, load_tensors, named_folder, require_library
from robust_asr.models.whisper_features import HOP, SAMPLE_RATE, WhisperLogMel
from robust_asr.models.whisper_files import WhisperContent, read_content, read_weights, unpack
from robust_asr.models.whisper_text import WhisperText, words_of
from robust_asr.types import TokenTargets, Transcript, check_audio

# The encoder's second convolution has stride 2.
_SAMPLES_A_FRAME = 2 * HOP


class Whisper(Encoded):
    """Whisper with its own prompt, teacher-forced loss and greedy search; transformers' network, in evaluation mode when built.

    The encoder hears a fixed window, 30 s for the published models: each utterance is followed by silence, which is added inside
    the recogniser, so no attack can change it. The loss of a text is the sum over its tokens and the end of text, without
    suppressed tokens. Transcripts equal those of transformers' ``generate`` without timestamps, sampling or beams.

    Texts are encoded in the spelling in which they are given; LibriSpeech's capitals are not what Whisper writes. A transcript's
    ``text`` is the words of what Whisper wrote, without punctuation, so that texts without punctuation can be compared with it;
    ``written`` is what Whisper wrote. A goal's text with punctuation therefore never equals a transcript.

    The attribute ``model`` describes the architecture, the prompt and the tokenizer, not the weights. It becomes part of a
    checkpoint, which can then be loaded without the original files.

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
        self.front_end = WhisperLogMel(
            num_mels=self.network.config.num_mel_bins,
            window=self.network.config.max_source_positions * _SAMPLES_A_FRAME,
        )
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

    def feasible(self, lengths: Tensor, targets: TokenTargets) -> Tensor:
        fits = targets.token_lengths <= self._most_tokens - len(self.prompt)
        return fits.to(lengths.device, non_blocking=True) & self.hears(lengths)

    def hears(self, lengths: Tensor) -> Tensor:
        return lengths <= self.front_end.window

    def window(self, lengths: Tensor) -> Tensor:
        return lengths.clamp(min=self.front_end.window)

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_audio(waveforms, lengths)
        features = self.front_end(waveforms, lengths)
        hidden = self.network.encoder(features).last_hidden_state
        # The decoder attends to the whole window, the silence after an utterance included. No frame stands for audio that is cut.
        return hidden, self.hears(lengths) * hidden.shape[1]

    def loss_from_hidden(self, hidden: Tensor, frame_lengths: Tensor, targets: TokenTargets) -> Tensor:
        room = self._most_tokens - len(self.prompt)
        tokens = targets.tokens[:, :room].to(hidden.device, non_blocking=True)
        token_lengths = targets.token_lengths.to(hidden.device, non_blocking=True)
        inputs = torch.cat([self.prompt.expand(len(tokens), -1), tokens], 1)
        states = self.network.decoder(inputs, encoder_hidden_states=hidden, use_cache=False).last_hidden_state
        scores = self._scores(states[:, len(self.prompt) - 1 :])
        wanted = functional.pad(tokens, (0, 1)).scatter(1, token_lengths.clamp(max=room)[:, None], self._end)
        losses = functional.cross_entropy(scores.transpose(1, 2), wanted, reduction="none")
        return (
            masked(losses, token_lengths + 1)
            .sum(1)
            .masked_fill((token_lengths > room) | (frame_lengths == 0), torch.inf)
        )

    def transcribe_hidden(self, hidden: Tensor, frame_lengths: Tensor) -> list[Transcript]:
        if bool((frame_lengths == 0).any()):
            rows = (frame_lengths == 0).nonzero()[:, 0].tolist()
            raise ValueError(
                f"Whisper hears {self.front_end.window / SAMPLE_RATE:g} s, the utterances at {rows} of the batch are longer: "
                "leave them out or cut them"
            )
        written = [self._text.decode(tokens) for tokens in self._search(hidden)]
        return [Transcript(words_of(text), written=text) for text in written]

    def _search(self, hidden: Tensor) -> list[list[int]]:
        """The most likely next token, until the end of text or the longest transcript. Shape: hidden (B, F, D) -> B lists."""
        inputs, cache = self.prompt.expand(len(hidden), -1), None
        ended = torch.zeros(len(hidden), dtype=torch.bool, device=hidden.device)
        chosen: list[Tensor] = []
        while len(self.prompt) + len(chosen) < self._most_written and not bool(ended.all()):
            step = self.network.decoder(inputs, encoder_hidden_states=hidden, past_key_values=cache, use_cache=True)
            cache = step.past_key_values
            scores = self._scores(step.last_hidden_state[:, -1])
            scores[:, self.suppressed if chosen else self.suppressed_first] = -torch.inf
            best = scores.argmax(-1).masked_fill(ended, self._end)
            ended = ended | (best == self._end)
            chosen.append(best)
            inputs = best[:, None]
        return torch.stack(chosen, 1).tolist() if chosen else [[] for _ in hidden]

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
