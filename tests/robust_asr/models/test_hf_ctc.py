import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.gradients import input_gradient
from robust_asr.models.hf_ctc import CasedTokenizer, HuggingFaceCTC
from robust_asr.models.hf_ctc_files import NETWORKS
from robust_asr.text import normalize
from tests.hf_ctc_folder import UPPER, tiny_ctc, write_ctc

transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")

LENGTHS = torch.tensor([9_000, 6_100, 700])
TEXTS = ("HELLO YOU", "A BE", "I")
LOWER = [label.lower() for label in UPPER]
CASED = ["[UNK]", "|", *"aBbeHhIiloUuY'", "[PAD]"]
# What transformers' own code is given, and ours: wav2vec 2.0 in the shapes of its BASE and LARGE models, and every other type.
MODELS = {
    "base": ("wav2vec2", {"feat_extract_norm": "group", "do_stable_layer_norm": False}),
    "large": ("wav2vec2", {}),
    "plain audio": ("wav2vec2", {"normalise": False}),
    "lower": ("wav2vec2", {"labels": LOWER}),
    "cased": ("wav2vec2", {"labels": CASED}),
    **{kind: (kind, {}) for kind in NETWORKS if kind != "wav2vec2"},
}


def audio(lengths: Tensor = LENGTHS, *, size: int | None = None) -> Tensor:
    """Noise whose level and mean change, zero in the padding, each utterance by its own seed."""
    rows = torch.zeros(len(lengths), size or int(lengths.max()))
    for row, length in enumerate(lengths.tolist()):
        noise = torch.randn(length, generator=torch.Generator().manual_seed(row))
        rows[row, :length] = 0.1 * noise * torch.linspace(0, 12, length).sin() ** 4 + 0.05
    return rows


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, changes = MODELS[name]
    return write_ctc(tmp_path_factory.mktemp("ctc"), kind, **changes)


@pytest.fixture(scope="module")
def recognizer(folder: Path) -> HuggingFaceCTC:
    return HuggingFaceCTC(str(folder))


@pytest.fixture(scope="module")
def reference(folder: Path):
    return transformers.AutoModelForCTC.from_pretrained(folder).eval()


def extracted(folder: Path, lengths: Tensor) -> dict[str, Tensor]:
    """What transformers' feature extractor makes of the audio; without a mask for one utterance alone."""
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    rows = [row[:length].numpy() for row, length in zip(audio(lengths), lengths.tolist(), strict=True)]
    several = len(rows) > 1
    return extractor(rows, sampling_rate=16_000, padding=several, return_attention_mask=several, return_tensors="pt")


def test_scores_are_those_of_transformers(name: str, recognizer: HuggingFaceCTC, reference, folder: Path) -> None:
    # Without a mask the extractor normalises over the padding too, so BASE is compared on one utterance.
    lengths = LENGTHS[:1] if name == "base" else LENGTHS
    with torch.no_grad():
        expected = reference(**extracted(folder, lengths)).logits.log_softmax(-1)
    emissions = recognizer.emissions(audio(lengths), lengths)
    assert emissions.frame_lengths.tolist() == reference._get_feat_extract_output_lengths(lengths).tolist()
    for row, frames in enumerate(emissions.frame_lengths.tolist()):
        torch.testing.assert_close(emissions.log_probs[row, :frames], expected[row, :frames], rtol=1e-4, atol=1e-4)


def test_loss_is_that_of_transformers(recognizer: HuggingFaceCTC, reference, folder: Path) -> None:
    losses = recognizer.loss(audio()[:1], LENGTHS[:1], recognizer.targets(TEXTS[:1]))
    reference.config.ctc_loss_reduction = "sum"
    labels = recognizer.targets(TEXTS[:1]).tokens
    with torch.no_grad():
        expected = reference(**extracted(folder, LENGTHS[:1]), labels=labels).loss
    torch.testing.assert_close(losses[0], expected, rtol=1e-5, atol=1e-4)


def test_transcripts_are_those_of_batch_decode(recognizer: HuggingFaceCTC, reference, folder: Path) -> None:
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    heard = []
    for row, length in enumerate(LENGTHS.tolist()):
        one = audio()[row : row + 1, :length]
        (transcript,) = recognizer.transcribe(one, LENGTHS[row : row + 1])
        values = extractor(one[0].numpy(), sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            (written,) = tokenizer.batch_decode(reference(**values).logits.argmax(-1))
        # Special tokens, which batch_decode spells out, write nothing here.
        expected = re.sub(r"<s>|</s>|<unk>|\[UNK\]", "", written)
        assert normalize(transcript.text) == normalize(expected)
        heard.append(transcript.text)
    assert any(heard), "a model that hears nothing would prove nothing"


def test_gradient_equals_finite_differences(recognizer: HuggingFaceCTC, folder: Path) -> None:
    exact = HuggingFaceCTC(str(folder)).double()
    lengths = LENGTHS[:1] if not exact.padding_invariant else LENGTHS
    texts = TEXTS[: len(lengths)]
    waveforms, targets = audio(lengths).double(), exact.targets(texts)
    _, gradient = input_gradient(lambda values: exact.loss(values, lengths, targets), waveforms)
    step = 1e-6 * gradient / gradient.norm(dim=1, keepdim=True)
    with torch.no_grad():
        up, down = (exact.loss(waveforms + sign * step, lengths, targets) for sign in (1, -1))
    torch.testing.assert_close((up - down) / 2e-6, gradient.norm(dim=1), rtol=1e-3, atol=0)


def test_it_hears_its_padding_only_where_it_says_so(recognizer: HuggingFaceCTC, folder: Path) -> None:
    exact, targets = HuggingFaceCTC(str(folder)).double(), recognizer.targets(TEXTS)
    together = exact.loss(audio(size=12_000).double(), LENGTHS, targets)
    for row, length in enumerate(LENGTHS.tolist()):
        one = torch.tensor([row])
        alone = exact.loss(audio()[one, :length].double(), LENGTHS[one], targets.select(one))
        assert exact.padding_invariant == bool((together[row] - alone[0]).abs() < 1e-8)


@pytest.mark.parametrize("kind", ["base", "large"])
@pytest.mark.parametrize("length", [1, 399, 400, 719, 720])
def test_short_audio_has_a_frame(kind: str, length: int, tmp_path: Path) -> None:
    recognizer = tiny_ctc(tmp_path, **MODELS[kind][1])
    lengths = torch.tensor([length])
    targets = recognizer.targets(["I"])
    losses, gradient = input_gradient(lambda values: recognizer.loss(values, lengths, targets), audio(lengths))
    assert losses.isfinite().all() and gradient.isfinite().all()
    assert int(recognizer.num_frames(lengths)) == max((length - 400) // 320 + 1, 1)


def test_normalisation_is_over_the_utterances_own_length(tmp_path: Path) -> None:
    recognizer = tiny_ctc(tmp_path).double()
    dirty = audio(size=12_000).double()
    dirty[torch.arange(12_000) >= LENGTHS[:, None]] = torch.nan
    targets = recognizer.targets(TEXTS)
    expected = recognizer.loss(audio().double(), LENGTHS, targets)
    for changed in (dirty, 3 * dirty + 0.1):
        # Exact but for what is added to the variance.
        torch.testing.assert_close(recognizer.loss(changed, LENGTHS, targets), expected, rtol=1e-3, atol=1e-2)


def test_texts_are_read_and_written_in_capitals(tmp_path: Path) -> None:
    lower, upper = (tiny_ctc(tmp_path / labels[5], labels=labels) for labels in (LOWER, UPPER))
    for text in ("Isn't it so", "ISN\u2019T IT  SO"):
        assert torch.equal(lower.targets([text]).tokens, upper.targets([text]).tokens)
    assert lower.tokenizer.decode(lower.targets(["isn't it"]).tokens[0].tolist()) == "ISN'T IT"
    for recognizer in (lower, upper):
        assert recognizer.unwritable("NO. 5") == [".", "5"]
        with pytest.raises(ValueError, match=r"has \['\.', '5'\], which no label of the model writes"):
            recognizer.targets(["NO. 5"])


def test_a_vocabulary_of_both_cases_keeps_the_case() -> None:
    tokenizer = CasedTokenizer(CASED, blank=len(CASED) - 1)
    for text, written in (("Hello You", "Hello You"), ("LIBEL", "lIBel"), ("A B", "a B"), ("aU  bu", "aU bu")):
        assert tokenizer.decode(tokenizer.encode(text)) == written
    with pytest.raises(ValueError, match=r"text 'Hi\.' has \['\.'\]"):
        tokenizer.encode("Hi.")


def test_training_is_in_order(tmp_path: Path) -> None:
    recognizer = tiny_ctc(tmp_path, hidden_dropout=0.1, final_dropout=0.1).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = recognizer.loss(audio(), LENGTHS, recognizer.targets(TEXTS))
    losses.sum().backward()
    unused = {"network.masked_spec_embed"}
    parameters = dict(recognizer.named_parameters())
    assert {key for key, value in parameters.items() if value.grad is None} <= unused
    assert all(value.grad.isfinite().all() for value in parameters.values() if value.grad is not None)


def test_emissions_serve_any_search(tmp_path: Path) -> None:
    recognizer = tiny_ctc(tmp_path, labels=[*UPPER[1:], "<pad>"])
    assert recognizer.tokenizer.blank == len(UPPER) - 1
    emissions = recognizer.emissions(audio(), LENGTHS)
    loss = functional.ctc_loss(
        emissions.log_probs.transpose(0, 1),
        recognizer.targets(TEXTS).tokens,
        emissions.frame_lengths,
        recognizer.targets(TEXTS).token_lengths,
        blank=len(UPPER) - 1,
        reduction="none",
    )
    torch.testing.assert_close(recognizer.loss(audio(), LENGTHS, recognizer.targets(TEXTS)), loss)
