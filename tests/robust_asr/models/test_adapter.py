from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchaudio.models import wav2vec2_model

from robust_asr import checkpoint
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.gradients import frozen_for_attack, input_gradient
from robust_asr.masking import length_mask
from robust_asr.models.adapter import CTCAdapter, LabelTokenizer
from robust_asr.models.base import Recognizer
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.text import CharacterTokenizer
from robust_asr.types import TokenTargets

LABELS = ["<unk>", *"abc'", "|", "<blank>"]
TOKENIZER = LabelTokenizer(LABELS, blank=6)
LENGTHS = torch.tensor([4000, 2500, 300])
TEXTS = ("AB CAB", "A B", "C")


class Yours(nn.Module):
    """What a user brings: knows nothing of this project. Frames of 200 samples every 100."""

    def __init__(self, num_labels: int, num_units: int = 8) -> None:
        super().__init__()
        self.num_labels, self.num_units = num_labels, num_units
        self.conv = nn.Conv1d(1, num_units, 200, stride=100)
        self.norm = nn.BatchNorm1d(num_units)
        self.head = nn.Linear(num_units, num_labels)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        features = self.norm(self.conv(waveforms[:, None])).tanh()
        return self.head(features.transpose(1, 2)), (lengths - 200) // 100 + 1


def yours(**changes: object) -> CTCAdapter:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"tokenizer": TOKENIZER, "hop": 100, "receptive_field": 200, "padding_invariant": True}
        return CTCAdapter(Yours(len(LABELS)), **{**settings, **changes}).eval()


def audio(size: int = 4000) -> Tensor:
    values = torch.rand(3, size, generator=torch.Generator().manual_seed(0)) - 0.5
    return values * length_mask(LENGTHS, size)


def test_loss_is_that_of_ctc_on_the_module() -> None:
    recognizer = yours()
    targets = recognizer.targets(TEXTS)
    losses = recognizer.loss(audio(), LENGTHS, targets)
    scores, frame_lengths = recognizer.module(audio(), LENGTHS)
    ids = {" ": 5, "A": 1, "B": 2, "C": 3}
    for row, text in enumerate(TEXTS):
        tokens = torch.tensor([[ids[character] for character in text]])
        log_probs = scores[row : row + 1, : frame_lengths[row]].log_softmax(-1).transpose(0, 1)
        sizes = frame_lengths[row : row + 1], torch.tensor([len(text)])
        expected = nn.functional.ctc_loss(log_probs, tokens, *sizes, blank=6, reduction="none")
        torch.testing.assert_close(losses[row], expected[0])
    assert recognizer.feasible(LENGTHS, targets).all() and recognizer.frame_shift == 100 / 16_000


def test_what_is_heard() -> None:
    recognizer = yours()
    frames = ["a", "a", "<blank>", "a", "|", "<unk>", "b", "|", "<blank>", "'"]

    class Speaks(nn.Module):
        def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            labels = torch.tensor([LABELS.index(frame) for frame in frames]).expand(len(waveforms), -1)
            return 9.0 * nn.functional.one_hot(labels, len(LABELS)), (lengths - 200) // 100 + 1

    recognizer.module = Speaks()
    (transcript,) = recognizer.transcribe(torch.zeros(1, 1100), torch.tensor([1100]))
    assert transcript.text == "AA B '" and [word.text for word in transcript.words] == ["AA", "B", "'"]
    assert transcript.words[0].end == pytest.approx(4 * 100 / 16_000)


def test_an_attack_needs_nothing_more() -> None:
    recognizer = Defended(GaussianNoise(0.01), yours().train())
    targets, seeds = recognizer.targets(TEXTS), torch.arange(3)
    before = {name: value.clone() for name, value in recognizer.state_dict().items()}

    def loss(values: Tensor) -> Tensor:
        return recognizer.loss(values, LENGTHS, targets, seeds=seeds)

    with frozen_for_attack(recognizer):
        losses, gradient = input_gradient(loss, audio(4100))
        higher = loss(audio(4100) + 0.01 * gradient.sign())
    assert bool((higher > losses).all()) and bool((gradient == 0)[~length_mask(LENGTHS, 4100)].all())
    assert recognizer.recognizer.module.training
    assert all(torch.equal(value, before[name]) for name, value in recognizer.state_dict().items())


def test_an_utterance_does_not_depend_on_its_batch() -> None:
    recognizer = yours()
    targets = recognizer.targets(TEXTS)
    together = recognizer.loss(audio(5000) + torch.where(length_mask(LENGTHS, 5000), 0, torch.nan), LENGTHS, targets)
    for row, length in enumerate(LENGTHS.tolist()):
        one = torch.tensor([row])
        alone = recognizer.loss(audio(5000)[one, :length], LENGTHS[one], targets.select(one))
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-4)


def test_nothing_enters_or_leaves_by_the_padding() -> None:
    heard = []

    class Listens(Yours):
        def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            heard.append(waveforms)
            return super().forward(waveforms, lengths)

    recognizer = yours()
    recognizer.module = Listens(len(LABELS))
    dirty = audio() + torch.where(length_mask(LENGTHS, 4000), 0, torch.nan)
    scores, frame_lengths = recognizer.encode(dirty, LENGTHS)
    assert torch.equal(heard[0], audio())
    assert frame_lengths.tolist() == FRAMES.tolist() and not scores[~length_mask(FRAMES, 39)].any()


@pytest.mark.parametrize("length", [1, 199, 200, 299, 300])
def test_audio_shorter_than_the_receptive_field_is_one_frame(length: int) -> None:
    recognizer, lengths = yours(), torch.tensor([length])
    emissions = recognizer.emissions(torch.ones(1, length), lengths)
    expected = 1 if length < 300 else 2
    assert (
        emissions.log_probs.shape[1] == expected == int(emissions.frame_lengths) == int(recognizer.num_frames(lengths))
    )
    assert recognizer.loss(torch.ones(1, length), lengths, recognizer.targets(["A"])).isfinite().all()


def test_padding_is_not_trusted_unless_said() -> None:
    module = Yours(len(LABELS))
    assert not CTCAdapter(module, tokenizer=TOKENIZER, hop=100, receptive_field=200).padding_invariant
    assert CTCAdapter(module, tokenizer=TOKENIZER, hop=100, receptive_field=200, sample_rate=8000).sample_rate == 8000


def test_wav2vec2_of_torchaudio_needs_no_wrapper() -> None:
    labels = ("-", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
    layers = [(8, 10, 5), *[(8, 3, 2)] * 4, (8, 2, 2), (8, 2, 2)]
    sizes = {"encoder_embed_dim": 16, "encoder_num_heads": 2, "encoder_ff_interm_features": 16, "encoder_num_layers": 1}
    sizes |= {"encoder_pos_conv_kernel": 8, "encoder_pos_conv_groups": 2, "encoder_layer_norm_first": False}
    dropouts = ("projection_", "attention_", "ff_interm_", "")
    off = {f"encoder_{name}dropout": 0.0 for name in dropouts} | {"encoder_layer_drop": 0.0}
    module = wav2vec2_model("group_norm", layers, False, **sizes, **off, aux_num_out=len(labels))
    recognizer = CTCAdapter(module, tokenizer=LabelTokenizer(labels), hop=320, receptive_field=400).eval()
    for length in (1, 399, 400, 719, 720, 5000):
        lengths = torch.tensor([length])
        targets = recognizer.targets(["I"])
        losses, gradient = input_gradient(
            lambda values, lengths=lengths, targets=targets: recognizer.loss(values, lengths, targets),
            torch.rand(1, length) - 0.5,
        )
        assert losses.isfinite().all() and gradient.isfinite().all()
    assert recognizer.tokenizer.decode(recognizer.targets(["I'M HERE"]).tokens[0].tolist()) == "I'M HERE"


class Says(nn.Module):
    """Returns what it is told to."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def forward(self, waveforms: Tensor, lengths: Tensor) -> object:
        return self.result


FRAMES = torch.tensor([39, 24, 2])
SCORES = torch.randn(3, 39, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (SCORES, "two tensors; it returned Tensor"),
        ((SCORES, [39, 24, 2]), "two tensors; it returned Tensor, list"),
        (None, "two tensors; it returned NoneType"),
        ((SCORES[0], FRAMES), r"shape \(3 utterances, frames, 7 labels\), it returned \(39, 7\)"),
        ((SCORES.transpose(0, 1), FRAMES), r"it returned \(39, 3, 7\)"),
        ((SCORES[..., 1:], FRAMES), r"it returned \(3, 39, 6\)"),
        ((SCORES, FRAMES - torch.tensor([0, 0, 1])), "make 2 frames of 300 samples, the module says 1"),
        ((SCORES[:, 1:], FRAMES), "says 39 frames and returns scores of 38"),
        ((SCORES.softmax(-1), FRAMES), "returns probabilities: return its logits"),
    ],
)
def test_a_broken_contract_is_named(result: object, message: str) -> None:
    recognizer = yours()
    recognizer.module = Says(result)
    with pytest.raises(ValueError, match=message):
        recognizer.emissions(audio(), LENGTHS)


def test_log_probabilities_are_as_good_as_logits() -> None:
    recognizer, found = yours(), []
    for scores in (SCORES, SCORES.log_softmax(-1)):
        recognizer.module = Says((scores, FRAMES))
        found.append(recognizer.loss(audio(), LENGTHS, recognizer.targets(TEXTS)))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["hop", "sample_rate"])
def test_numbers_out_of_range_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, found 0"):
        yours(**{name: 0})


def test_described_built_saved_and_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(trust, "_opened", {"tests"})
    recognizer = yours(padding_invariant=False)
    rebuilt = trust.build(describe(recognizer), expected=Recognizer, field="recognizer")
    assert describe(rebuilt) == describe(recognizer) and not rebuilt.padding_invariant
    checkpoint.save(recognizer, tmp_path / "yours.ckpt")
    loaded = checkpoint.load(str(tmp_path / "yours.ckpt"))
    targets = recognizer.targets(TEXTS)
    assert torch.equal(loaded.loss(audio(), LENGTHS, targets), recognizer.loss(audio(), LENGTHS, targets))


@given(st.text(" ABC'", max_size=10))
def test_labels_write_and_read(text: str) -> None:
    tokens = TOKENIZER.encode(text)
    assert TOKENIZER.decode(tokens) == " ".join(text.split()) and not {0, 6} & set(tokens)
    targets = TOKENIZER.targets([text])
    assert isinstance(targets, TokenTargets) and targets.token_lengths.tolist() == [len(tokens)]


def test_labels_in_the_usual_order_are_the_character_tokenizer() -> None:
    usual = CharacterTokenizer("ABC |")
    labels = LabelTokenizer(["", *"abc ", "|"], word_boundary="")
    assert (
        labels.size == usual.size
        and labels.targets(["CAB A"]).tokens.tolist() == usual.targets(["CAB A"]).tokens.tolist()
    )


def test_the_space_may_have_a_long_name() -> None:
    labels = LabelTokenizer(["a", "[SPACE]", "<s>", "[PAD]"], blank=3, word_boundary="[SPACE]")
    assert labels.encode("A A") == [0, 1, 0] and labels.decode([2, 0, 1, 3, 0]) == "A A"


def test_what_labels_cannot_write_is_named() -> None:
    with pytest.raises(ValueError, match=r"text 'DAB' has \['D'\], which no label of the model writes"):
        TOKENIZER.encode("dab")
    with pytest.raises(ValueError, match=r"labels hold several for \['A'\]"):
        LabelTokenizer(["-", "a", "A"])
    with pytest.raises(ValueError, match="blank must be a position among the 2 labels, found 2"):
        LabelTokenizer(["a", "b"], blank=2)


def test_a_vocabulary_is_no_list_of_labels() -> None:
    vocabulary = {"<blank>": 0, "b": 2, "a": 1}
    with pytest.raises(ValueError, match=r"found a dict; .* sorted\(labels, key=labels.get\)"):
        LabelTokenizer(vocabulary)
    assert LabelTokenizer(sorted(vocabulary, key=vocabulary.get)).decode([1, 2]) == "AB"
    with pytest.raises(ValueError, match="labels must be a list of texts"):
        LabelTokenizer([0, 1, 2])


def test_another_precision_is_an_error_only_where_it_fails() -> None:
    recognizer = yours()
    with pytest.raises(ValueError, match="the module has parameters of float64 and was given float32 audio"):
        yours().double().transcribe(audio(), LENGTHS)

    class Converts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = yours().module.double()

        def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            scores, frame_lengths = self.module(waveforms.double(), lengths)
            return scores.float(), frame_lengths

    expected = [transcript.text for transcript in recognizer.transcribe(audio(), LENGTHS)]
    recognizer.module = Converts().eval()
    assert [transcript.text for transcript in recognizer.transcribe(audio(), LENGTHS)] == expected


def test_arrays_are_named() -> None:
    with pytest.raises(ValueError, match="waveforms must be a tensor, found ndarray"):
        yours().transcribe(audio().numpy(), LENGTHS)
