"""A step of each recogniser beside the same layers of torchaudio, torch or Hugging Face without our contract.

``python -m benchmarks.architectures [--seconds S] [--repeats N] [--only NAME]``. Both sides take turns in one process, at the
published sizes, on two utterances of equal length, so that no mask is needed: the loss and its gradient for all weights. Ours
begins with the waveform. Theirs gets what the front end makes of it, where its layers begin with features. Hugging Face's
modules need the extra ``[hf]``; without it they are left out, and the output says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.functional import rnnt_loss
from torchaudio.models import DeepSpeech as TorchaudioDeepSpeech
from torchaudio.models import wav2vec2_base

from benchmarks.corpus import hardware
from benchmarks.turns import median_ratio, print_seconds, seconds_of
from robust_asr.models.base import Recognizer
from robust_asr.models.deepspeech import DeepSpeech
from robust_asr.models.rnnt import RNNT, LSTMEncoder
from robust_asr.models.transformer import Transformer, TransformerEncoder
from robust_asr.models.wav2vec2 import Wav2Vec2

# At the reading speed of LibriSpeech this text takes about six seconds.
TEXT = "MISTER QUILTER IS THE APOSTLE OF THE MIDDLE CLASSES AND WE ARE GLAD TO WELCOME HIS GOSPEL"
BATCH = 2
Step = Callable[[], None]
# The module that theirs trains, and its loss of hidden units or features.
Contender = tuple[Recognizer, nn.Module, Callable[[Tensor], Tensor], Tensor]


def ours(recognizer: Recognizer, waveforms: Tensor) -> Step:
    lengths = torch.full((len(waveforms),), waveforms.shape[1])

    def step() -> None:
        recognizer.zero_grad()
        recognizer.loss(waveforms, lengths, recognizer.targets([TEXT] * len(waveforms))).sum().backward()

    return step


def theirs(module: nn.Module, loss: Callable[[Tensor], Tensor], given: Tensor) -> Step:
    def step() -> None:
        module.zero_grad()
        loss(given).backward()

    return step


def ctc(recognizer: Recognizer, scores: Tensor) -> Tensor:
    """Shape: (B, F, V) -> ()."""
    targets = recognizer.targets([TEXT] * len(scores))
    frame_lengths = torch.full((len(scores),), scores.shape[1])
    log_probs = scores.log_softmax(-1).transpose(0, 1)
    return functional.ctc_loss(log_probs, targets.tokens, frame_lengths, targets.token_lengths, reduction="sum")


def deepspeech(waveforms: Tensor) -> Contender:
    recognizer = DeepSpeech()
    lengths = torch.full((len(waveforms),), waveforms.shape[1])
    features = recognizer.front_end(waveforms, lengths)[0].detach()
    module = TorchaudioDeepSpeech(features.shape[2], n_class=recognizer.tokenizer.size, dropout=0.05)
    return recognizer, module, lambda given: ctc(recognizer, module(given[:, None])), features


def wav2vec2(waveforms: Tensor) -> Contender:
    recognizer = Wav2Vec2(width=768, num_layers=12, num_heads=12, feed_forward_width=3072)
    module = wav2vec2_base(encoder_layer_drop=0.0, aux_num_out=recognizer.tokenizer.size)
    return recognizer, module, lambda given: ctc(recognizer, module(given)[0]), waveforms


class BareTransducer(nn.Module):
    """torch's layers of the sizes of YA22 with torchaudio's loss of the whole joint tensor."""

    def __init__(self, num_inputs: int, size: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(num_inputs, 1024, 5, batch_first=True)
        self.embedding = nn.Embedding(size, 512)
        self.predictor = nn.LSTM(512, 1024, 2, batch_first=True)
        self.from_frames, self.from_tokens = nn.Linear(1024, 640), nn.Linear(1024, 640, bias=False)
        self.head = nn.Linear(640, size)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Shape: (B, S, D), (B, U) -> (B, S, U + 1, V)."""
        predicted = self.predictor(self.embedding(functional.pad(tokens, (1, 0))))[0]
        frames = self.from_frames(self.encoder(features)[0])
        return self.head((frames[:, :, None] + self.from_tokens(predicted)[:, None]).tanh())


def rnnt(waveforms: Tensor) -> Contender:
    recognizer = RNNT(LSTMEncoder())
    encoder = recognizer.encoder
    lengths = torch.full((len(waveforms),), waveforms.shape[1])
    features = encoder.front_end(waveforms, lengths)[0].detach()
    features = functional.pad(features, (0, 0, 0, -features.shape[1] % encoder.stack))
    features = features.unflatten(1, (-1, encoder.stack)).flatten(2)
    targets = recognizer.targets([TEXT] * len(waveforms))
    module = BareTransducer(features.shape[2], recognizer.tokenizer.size)

    def loss(given: Tensor) -> Tensor:
        sizes = torch.full((len(given),), given.shape[1]).int(), targets.token_lengths.int()
        return rnnt_loss(module(given, targets.tokens), targets.tokens.int(), *sizes, blank=0, reduction="sum")

    return recognizer, module, loss, features


def transformer(waveforms: Tensor) -> Contender:
    from transformers import Speech2TextConfig, Speech2TextForConditionalGeneration

    recognizer = Transformer(TransformerEncoder(), label_smoothing=0.0)
    lengths = torch.full((len(waveforms),), waveforms.shape[1])
    features = recognizer.encoder.front_end(waveforms, lengths)[0].detach()
    heads = {"encoder_attention_heads": 8, "decoder_attention_heads": 8}
    config = Speech2TextConfig(
        vocab_size=recognizer.tokenizer.size, d_model=512, conv_channels=512, pad_token_id=0, **heads
    )
    module = Speech2TextForConditionalGeneration(config)
    tokens = functional.pad(recognizer.targets([TEXT] * len(waveforms)).tokens, (0, 1))
    return recognizer, module, lambda given: module(input_features=given, labels=tokens).loss, features


CONTENDERS: dict[str, tuple[str, Callable[[Tensor], Contender]]] = {
    "DeepSpeech": ("torchaudio's DeepSpeech", deepspeech),
    "wav2vec 2.0, BASE": ("torchaudio's wav2vec2_base", wav2vec2),
    "RNN-T, LSTM": ("torch's LSTMs, torchaudio's loss", rnnt),
    "Transformer": ("Hugging Face's Speech2Text", transformer),
}


def chosen(only: str | None) -> Iterator[str]:
    for name, (other, _) in CONTENDERS.items():
        if only is not None and only != name:
            continue
        if "Hugging Face" in other and find_spec("transformers") is None:
            print(f"{name}: not run, {other} needs the extra [hf]")
            continue
        yield name


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=CONTENDERS)
    options = parser.parse_args()
    # One thread, because CPU seconds add up over threads.
    torch.set_num_threads(1)
    print(f"{hardware()}; {BATCH} x {options.seconds} s, medians of {options.repeats}, CPU seconds")
    for name in chosen(options.only):
        torch.manual_seed(0)
        waveforms = 0.1 * torch.randn(BATCH, options.seconds * 16_000)
        other, build = CONTENDERS[name]
        recognizer, module, loss, given = build(waveforms)
        contenders = {"ours": ours(recognizer.train(), waveforms), "theirs": theirs(module.train(), loss, given)}
        seconds = seconds_of(contenders, repeats=options.repeats)
        sizes = f"{millions(recognizer):.1f} M parameters, theirs {millions(module):.1f} M"
        print(f"{name} beside {other}: {sizes}, ratio {median_ratio(seconds, 'ours', 'theirs'):.3f}", flush=True)
        print_seconds(seconds)


if __name__ == "__main__":
    main()
