"""The contract of ``Recognizer``, as one battery. A new recogniser joins by one line in ``RECOGNIZERS``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import Tensor, nn

from robust_asr import checkpoint
from robust_asr.defenses.base import Chain, Defended
from robust_asr.gradients import frozen_for_attack, input_gradient
from robust_asr.lfmmi.lexicon import Lexicon
from robust_asr.models.base import FrameSynchronous, Recognizer
from robust_asr.models.compact import CompactCTC
from robust_asr.models.conformer import ConformerCTC, ConformerEncoder
from robust_asr.models.conformer_lfmmi import ConformerLFMMI
from robust_asr.models.deepspeech import DeepSpeech
from robust_asr.models.deepspeech2 import DeepSpeech2
from robust_asr.models.rnnt import RNNT, LSTMEncoder
from robust_asr.models.transformer import Transformer, TransformerEncoder
from robust_asr.models.wav2vec2 import Wav2Vec2
from robust_asr.search.base import FrameSearch
from robust_asr.search.decoder_beam import DecoderBeam
from robust_asr.search.greedy import GreedySearch
from robust_asr.search.transducer import TransducerBeam
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from tests.hf_ctc_folder import tiny_ctc
from tests.robust_asr.defenses.parts import Bend, Gain
from tests.toys import ToyAttention, ToyCTC, ToyTransducer
from tests.whisper_folder import tiny_whisper

SMALL_CONFORMER = {
    "num_mels": 40,
    "subsampling_channels": 8,
    "width": 16,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_width": 32,
    "kernel_size": 7,
}
SMALL_WAV2VEC2 = {
    "convolutions": [[8, 10, 5], [8, 8, 4], [12, 4, 4], [12, 2, 2]],
    "width": 16,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_width": 32,
    "position_kernel": 8,
    "position_groups": 4,
}


def conformer_lfmmi() -> Recognizer:
    recognizer = ConformerLFMMI(ConformerEncoder(**SMALL_CONFORMER), lexicon=Lexicon(stress=False))
    recognizer.estimate_language(["HELLO YOU", "A BE", "I", "ALL SEEN"])
    return recognizer


def rnnt() -> Recognizer:
    encoder = LSTMEncoder(num_mels=20, width=12, num_layers=2)
    return RNNT(encoder, embedding_width=6, predictor_width=8, joint_width=10)


def whisper() -> Recognizer:
    with TemporaryDirectory() as folder:
        # With smaller weights what it writes hardly depends on what it hears.
        return tiny_whisper(Path(folder), init_std=0.2)


def hf_ctc() -> Recognizer:
    with TemporaryDirectory() as folder:
        return tiny_ctc(Path(folder))


def transformer() -> Recognizer:
    encoder = TransformerEncoder(
        num_mels=20, subsampling_channels=8, width=16, num_layers=2, num_heads=2, feed_forward_width=32
    )
    return Transformer(encoder, num_layers=2, num_heads=2, feed_forward_width=32, ctc_weight=0.3)


RECOGNIZERS: dict[str, Callable[[], Recognizer]] = {
    "toy_ctc": ToyCTC,
    "toy_attention": ToyAttention,
    "toy_transducer": ToyTransducer,
    "deepspeech": lambda: DeepSpeech(num_hidden=16),
    "deepspeech2": lambda: DeepSpeech2(conv_channels=4, rnn_hidden=16, rnn_layers=2),
    "compact": lambda: CompactCTC(num_mels=40, stem_channels=8, width=16, num_blocks=2, gru_width=12),
    "conformer_ctc": lambda: ConformerCTC(ConformerEncoder(**SMALL_CONFORMER)),
    "conformer_lfmmi": conformer_lfmmi,
    "rnnt": rnnt,
    "wav2vec2": lambda: Wav2Vec2(**SMALL_WAV2VEC2),
    "wav2vec2_layer_norm": lambda: Wav2Vec2(
        norm="layer_norm", norm_first=True, normalize_waveform=True, convolution_bias=True, **SMALL_WAV2VEC2
    ),
    "transformer": transformer,
    "whisper": whisper,
    "hf_ctc": hf_ctc,
    "defended": lambda: Defended(Chain([Bend(0.5), Gain()]), ToyCTC()),
}
# torchaudio's transducer loss knows float32 only, so its finite differences are coarse.
FLOAT32_ONLY = {"toy_transducer", "rnnt"}
BOUND = 1e-4

LENGTHS = torch.tensor([8000, 4800, 700])
TEXTS = ("HELLO YOU", "A BE", "I")


def audio(lengths: Tensor, *, size: int | None = None, seed: int = 0) -> Tensor:
    """Tones with a little noise, zero in the padding, each utterance by its own seed."""
    rows = torch.zeros(len(lengths), size or int(lengths.max()))
    for row, length in enumerate(lengths.tolist()):
        generator = torch.Generator().manual_seed(seed + row)
        time = torch.arange(length) / 16_000
        pitch = 200 + 900 * torch.rand(1, generator=generator)
        glide = torch.sin(6.28 * pitch * time * (1 + 3 * time)) * torch.sin(40 * time)
        rows[row, :length] = 0.3 * glide + 0.02 * torch.randn(length, generator=generator)
    return rows


def trained(name: str) -> Recognizer:
    """A few steps, so that no running statistic and no weight is that of a fresh model; it hears something in anything."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        recognizer = RECOGNIZERS[name]().train()
        targets = recognizer.targets(TEXTS)
        optimizer = torch.optim.Adam(recognizer.parameters(), lr=0.01)
        for _ in range(6):
            loss = recognizer.loss(audio(LENGTHS), LENGTHS, targets).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(recognizer.parameters(), 5.0)
            optimizer.step()
    head = getattr(recognizer.innermost, "head", None)
    if head is not None and head.bias is not None:
        # What six steps teach first is silence, to some seeds and roundings more than to others.
        nn.init.constant_(head.bias.data[0], -5.0)
    return recognizer.eval()


@pytest.fixture(scope="module", params=RECOGNIZERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def recognizer(name: str) -> Recognizer:
    return trained(name)


def attack_gradient(recognizer: Recognizer, waveforms: Tensor, lengths: Tensor, texts: tuple[str, ...]) -> tuple:
    targets = recognizer.targets(texts)
    with frozen_for_attack(recognizer):
        return input_gradient(lambda values: recognizer.loss(values, lengths, targets), waveforms)


def snapshot(model: nn.Module) -> dict[str, object]:
    """Everything that an attack could change: values, modes, gradients and who wants them."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {key: value.detach().clone() for key, value in tensors.items()},
        "modes": {key: module.training for key, module in model.named_modules()},
        "wanted": {key: value.requires_grad for key, value in model.named_parameters()},
        "grads": {key: None if value.grad is None else value.grad.clone() for key, value in model.named_parameters()},
        "dropout": {key: module.dropout for key, module in model.named_modules() if isinstance(module, nn.RNNBase)},
    }


def assert_unchanged(before: dict[str, object], model: nn.Module) -> None:
    after = snapshot(model)
    for kind in ("modes", "wanted", "dropout"):
        assert after[kind] == before[kind], kind
    for kind in ("values", "grads"):
        assert after[kind].keys() == before[kind].keys()
        for key, value in before[kind].items():
            found = after[kind][key]
            assert found is value is None or torch.equal(found, value), f"{kind} of {key}"


def test_loss_alone_is_loss_in_a_padded_batch(recognizer: Recognizer) -> None:
    targets = recognizer.targets(TEXTS)
    for size in (8000, 8321, 20_000):
        together = recognizer.loss(audio(LENGTHS, size=size), LENGTHS, targets)
        assert together.shape == (3,) and bool((together > 0).all() & together.isfinite().all())
        for row, length in enumerate(LENGTHS.tolist()):
            one = torch.tensor([row])
            alone = recognizer.loss(audio(LENGTHS)[one, :length], LENGTHS[one], targets.select(one))
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=BOUND)


def test_padding_cannot_speak(recognizer: Recognizer) -> None:
    targets = recognizer.targets(TEXTS)
    padded = audio(LENGTHS, size=9000)
    dirty = padded + torch.where(torch.arange(9000) < LENGTHS[:, None], 0.0, 1.0)
    assert torch.equal(recognizer.loss(dirty, LENGTHS, targets), recognizer.loss(padded, LENGTHS, targets))


def test_gradient_is_finite_and_not_zero(recognizer: Recognizer) -> None:
    losses, gradient = attack_gradient(recognizer, audio(LENGTHS), LENGTHS, TEXTS)
    assert not losses.requires_grad and gradient.isfinite().all()
    assert bool((gradient.abs().sum(1) > 0).all())


def test_gradient_is_zero_in_the_padding(recognizer: Recognizer) -> None:
    _, gradient = attack_gradient(recognizer, audio(LENGTHS, size=9000), LENGTHS, TEXTS)
    assert torch.equal(gradient, torch.where(torch.arange(9000) < LENGTHS[:, None], gradient, 0.0))


def test_gradient_does_not_depend_on_neighbours(recognizer: Recognizer) -> None:
    _, together = attack_gradient(recognizer, audio(LENGTHS), LENGTHS, TEXTS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = audio(LENGTHS)[row : row + 1, :length]
        _, gradient = attack_gradient(recognizer, alone, LENGTHS[row : row + 1], TEXTS[row : row + 1])
        torch.testing.assert_close(
            together[row, :length], gradient[0], rtol=1e-3, atol=1e-4 * float(gradient.abs().max())
        )


def test_gradient_equals_finite_differences(name: str) -> None:
    recognizer = trained(name)
    waveforms, step, tolerance = audio(LENGTHS), 1e-2, 5e-2
    if name not in FLOAT32_ONLY:
        recognizer, waveforms, step, tolerance = recognizer.double(), waveforms.double(), 1e-5, 1e-3
    targets = recognizer.targets(TEXTS)
    _, gradient = attack_gradient(recognizer, waveforms, LENGTHS, TEXTS)
    assert gradient.dtype == waveforms.dtype
    generator = torch.Generator().manual_seed(1)
    # Along part of the gradient: a random direction of 8,000 dimensions would see next to nothing of it.
    kept = torch.rand(gradient.shape, generator=generator) < 0.5
    direction = torch.where(kept, gradient, 0)
    slope = (direction * gradient).sum(1) / direction.norm(dim=1)
    shift = direction / direction.norm(dim=1, keepdim=True) * (step / slope)[:, None]
    with torch.no_grad():
        up, down = (recognizer.loss(waveforms + sign * shift, LENGTHS, targets) for sign in (1, -1))
    torch.testing.assert_close((up - down) / 2, torch.full_like(up, step), rtol=tolerance, atol=0)


def test_gradient_in_float32_is_that_in_float64(name: str) -> None:
    if name in FLOAT32_ONLY:
        pytest.skip("its loss knows float32 only")
    recognizer = trained(name)
    _, gradient = attack_gradient(recognizer, audio(LENGTHS), LENGTHS, TEXTS)
    _, exact = attack_gradient(recognizer.double(), audio(LENGTHS).double(), LENGTHS, TEXTS)
    difference = (gradient - exact).norm(dim=1) / exact.norm(dim=1)
    assert float(difference.max()) < 1e-3


def test_transcripts_do_not_depend_on_the_batch(recognizer: Recognizer) -> None:
    lengths = torch.tensor([8000, 7000, 4800, 6400, 3200, 700, 8000, 5000])
    waveforms = audio(lengths)
    together = recognizer.transcribe(waveforms, lengths)
    alone = [
        recognizer.transcribe(waveforms[row : row + 1, :length], lengths[row : row + 1])[0]
        for row, length in enumerate(lengths.tolist())
    ]
    assert [transcript.text for transcript in together] == [transcript.text for transcript in alone]
    assert [len(transcript.words) for transcript in together] == [len(transcript.words) for transcript in alone]
    assert any(transcript.text for transcript in alone), "a test of empty transcripts would prove nothing"


def test_attack_mode_leaves_no_trace(name: str) -> None:
    recognizer = trained(name).train()
    # A state that no default would restore: mixed modes, a frozen parameter, a gradient that is waiting.
    list(recognizer.modules())[-1].eval()
    parameters = list(recognizer.parameters())
    parameters[0].requires_grad_(False)
    parameters[-1].grad = torch.ones_like(parameters[-1])
    before = snapshot(recognizer)
    first, gradient = attack_gradient(recognizer, audio(LENGTHS), LENGTHS, TEXTS)
    assert_unchanged(before, recognizer)
    again, same = attack_gradient(recognizer, audio(LENGTHS), LENGTHS, TEXTS)
    assert torch.equal(first, again) and torch.equal(gradient, same), "dropout and SpecAugment are off"


def test_attack_mode_is_left_after_an_error(recognizer: Recognizer) -> None:
    recognizer.train()
    before = snapshot(recognizer)
    with pytest.raises(RuntimeError, match="inside"), frozen_for_attack(recognizer):
        assert not any(parameter.requires_grad for parameter in recognizer.parameters())
        raise RuntimeError("inside")
    assert_unchanged(before, recognizer)
    recognizer.eval()


def test_infeasible_target_is_infinite_and_harmless(recognizer: Recognizer) -> None:
    texts = (TEXTS[0], TEXTS[1], "A TEXT MUCH LONGER THAN SO LITTLE AUDIO CAN CARRY")
    waveforms = audio(LENGTHS)
    feasible = recognizer.feasible(LENGTHS, recognizer.targets(texts))
    losses, gradient = attack_gradient(recognizer, waveforms, LENGTHS, texts)
    usual, usual_gradient = attack_gradient(recognizer, waveforms, LENGTHS, TEXTS)
    assert feasible[:2].all()
    assert torch.equal(losses.isfinite(), feasible)
    assert bool((gradient[~feasible] == 0).all()) and bool((gradient[feasible].abs().sum(1) > 0).all())
    torch.testing.assert_close(losses[:2], usual[:2], rtol=0, atol=BOUND)
    torch.testing.assert_close(
        gradient[:2], usual_gradient[:2], rtol=1e-3, atol=1e-4 * float(usual_gradient.abs().max())
    )


def test_feasible_to_the_last_frame(recognizer: Recognizer) -> None:
    text = ("ALL SEEN",)
    lengths = torch.arange(1, 6000, 97)
    feasible = recognizer.feasible(lengths, recognizer.targets(text * len(lengths)))
    assert bool((feasible.int().diff() >= 0).all()), "more audio never hurts"
    losses = recognizer.loss(audio(lengths), lengths, recognizer.targets(text * len(lengths)))
    assert torch.equal(losses.isfinite(), feasible)


def test_silence_is_finite(recognizer: Recognizer) -> None:
    losses, gradient = attack_gradient(recognizer, torch.zeros(3, 8000), LENGTHS, TEXTS)
    assert losses.isfinite().all() and gradient.isfinite().all()
    assert len(recognizer.transcribe(torch.zeros(3, 8000), LENGTHS)) == 3


@pytest.mark.parametrize("length", [1, 320])
def test_a_blink_of_audio(recognizer: Recognizer, length: int) -> None:
    lengths = torch.tensor([length])
    losses, gradient = attack_gradient(recognizer, audio(lengths), lengths, ("I",))
    assert losses.isfinite().all() and gradient.isfinite().all()
    assert len(recognizer.transcribe(audio(lengths), lengths)) == 1


def test_empty_text(recognizer: Recognizer) -> None:
    mixed, _ = attack_gradient(recognizer, audio(LENGTHS), LENGTHS, ("", "A BE", ""))
    empty, gradient = attack_gradient(recognizer, audio(LENGTHS), LENGTHS, ("", "", ""))
    assert recognizer.feasible(LENGTHS, recognizer.targets(("", "", ""))).all()
    assert empty.isfinite().all() and bool((gradient.abs().sum(1) > 0).all())
    torch.testing.assert_close(mixed[[0, 2]], empty[[0, 2]], rtol=0, atol=BOUND)


def test_targets_are_selected_and_repeated(recognizer: Recognizer) -> None:
    targets = recognizer.targets(TEXTS)
    waveforms = audio(LENGTHS)
    losses = recognizer.loss(waveforms, LENGTHS, targets)
    order = torch.tensor([2, 0])
    picked = recognizer.loss(waveforms[order], LENGTHS[order], targets.select(order))
    twice = recognizer.loss(waveforms.repeat_interleave(2, 0), LENGTHS.repeat_interleave(2), targets.repeat(2))
    assert (len(targets), len(targets.select(order)), len(targets.repeat(2))) == (3, 2, 6)
    torch.testing.assert_close(picked, losses[order], rtol=0, atol=BOUND)
    torch.testing.assert_close(twice, losses.repeat_interleave(2), rtol=0, atol=BOUND)


def test_a_text_it_cannot_write_is_named(recognizer: Recognizer) -> None:
    with pytest.raises(ValueError, match="Ω"):
        recognizer.targets(["Ω"])


def test_emissions_agree_with_the_loss_frames(recognizer: Recognizer) -> None:
    if not isinstance(recognizer, FrameSynchronous):
        pytest.skip("answers no frames")
    emissions = recognizer.emissions(audio(LENGTHS), LENGTHS)
    assert emissions.log_probs.shape[:2] == (3, int(emissions.frame_lengths.max()))
    torch.testing.assert_close(emissions.log_probs.logsumexp(-1), torch.zeros(emissions.log_probs.shape[:2]))


def test_described_and_built_again(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_opened", {"tests"})
    description = describe(recognizer)
    rebuilt = trust.build(description, expected=Recognizer, field="recognizer")
    assert describe(rebuilt) == description
    rebuilt.load_state_dict(recognizer.state_dict())
    targets = recognizer.targets(TEXTS)
    losses = [model.eval().loss(audio(LENGTHS), LENGTHS, targets) for model in (recognizer, rebuilt)]
    assert torch.equal(*losses)


def test_saved_and_loaded(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trust, "_opened", {"tests"})
    path = str(tmp_path / "recognizer.ckpt")
    checkpoint.save(recognizer, path)
    loaded = checkpoint.load(path)
    assert describe(loaded) == describe(recognizer) and not loaded.training
    assert loaded.state_dict().keys() == recognizer.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in recognizer.state_dict().items())
    targets = recognizer.targets(TEXTS)
    assert torch.equal(loaded.loss(audio(LENGTHS), LENGTHS, targets), recognizer.loss(audio(LENGTHS), LENGTHS, targets))
    assert loaded.transcribe(audio(LENGTHS), LENGTHS) == recognizer.transcribe(audio(LENGTHS), LENGTHS)


def test_two_seeds_of_a_deterministic_recogniser_are_one(recognizer: Recognizer) -> None:
    """Sixteen draws of what never draws would cost sixteen times and change nothing."""
    targets = recognizer.targets(TEXTS)
    seeds = torch.arange(3), torch.arange(3) + 7
    first, second = (recognizer.loss(audio(LENGTHS), LENGTHS, targets, seeds=each) for each in seeds)
    assert torch.equal(first, second) is not recognizer.stochastic


def test_one_pass_gives_what_two_give(recognizer: Recognizer) -> None:
    given = audio(LENGTHS), LENGTHS
    targets = recognizer.targets(TEXTS)
    losses, transcripts = recognizer.loss_and_transcripts(*given, targets)
    torch.testing.assert_close(losses, recognizer.loss(*given, targets), rtol=0, atol=1e-5)
    assert [one.text for one in transcripts] == [one.text for one in recognizer.transcribe(*given)]
    assert recognizer.forwards_per_look >= 1


def test_one_pass_has_the_gradient_of_the_loss(recognizer: Recognizer) -> None:
    targets = recognizer.targets(TEXTS)
    _, gradient = attack_gradient(recognizer, audio(LENGTHS), LENGTHS, TEXTS)
    with frozen_for_attack(recognizer):
        _, same = input_gradient(
            lambda values: recognizer.loss_and_transcripts(values, LENGTHS, targets)[0], audio(LENGTHS)
        )
    torch.testing.assert_close(same, gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))


def test_views_answer_like_recognisers(recognizer: Recognizer) -> None:
    targets = recognizer.targets(TEXTS)
    expected = recognizer.loss(audio(LENGTHS), LENGTHS, targets)
    assert torch.equal(recognizer.view("exact").loss(audio(LENGTHS), LENGTHS, targets), expected)
    assert torch.equal(recognizer.view("straight_through").loss(audio(LENGTHS), LENGTHS, targets), expected)
    assert recognizer.view("unaware") is recognizer.innermost
    with pytest.raises(ValueError, match="knowledge must be one of exact, straight_through, unaware, found 'all'"):
        recognizer.view("all")


def test_what_stands_inside_is_told(recognizer: Recognizer) -> None:
    layers = list(recognizer.layers)
    assert layers[0] is recognizer and layers[-1] is recognizer.innermost and recognizer.innermost.inside is None
    recognisers_inside = [module for module in recognizer.modules() if isinstance(module, Recognizer)]
    assert set(map(id, layers)) == set(map(id, recognisers_inside)), "a wrapper that hides what it wraps"
    columns = recognizer.columns()
    assert set(columns) == {"model", "defense", "sigma"} and columns["model"] == type(recognizer.innermost).__name__


def test_a_search_is_used_and_told_or_refused(name: str) -> None:
    recognizer, refused = trained(name), DecoderBeam(2)
    if isinstance(recognizer.search, DecoderBeam):
        search, refused = refused, GreedySearch()
    elif isinstance(recognizer.search, TransducerBeam):
        search = TransducerBeam(2)
    elif isinstance(recognizer.search, FrameSearch):
        search = GreedySearch()
    else:
        search = None
    if search is not None:
        recognizer.use_search(search)
        assert recognizer.search is search and recognizer.innermost.search is search
    with pytest.raises(ValueError, match="search: "):
        recognizer.use_search(refused)


def test_a_pass_costs_at_least_its_audio(recognizer: Recognizer) -> None:
    window = recognizer.window(LENGTHS)
    assert window.shape == LENGTHS.shape and bool((window >= LENGTHS).all())


def test_preparing_again_changes_nothing(name: str) -> None:
    recognizer = trained(name)
    before = checkpoint.weights_hash(recognizer)
    recognizer.prepare(iter(["ANOTHER LANGUAGE"]))
    assert checkpoint.weights_hash(recognizer) == before
