from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_asr.attacks.cw import CarliniWagner
from robust_asr.attacks.goals import Targeted
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.phrases import PhraseList
from robust_asr.models.subsampling import NormedSubsampling
from robust_asr.models.transformer import Transformer, TransformerEncoder
from robust_asr.models.transformer_decoder import positions
from robust_asr.search.decoder_beam import DecoderBeam
from robust_asr.search.greedy import GreedySearch
from robust_asr.text.bpe import train_bpe
from robust_asr.threat import Linf
from robust_asr.types import AudioBatch

SMALL = {"num_mels": 20, "subsampling_channels": 4, "width": 12, "num_layers": 2, "num_heads": 2}
SMALL |= {"feed_forward_width": 24}
LENGTHS = torch.tensor([16_000, 9_000, 321, 12_345])
TEXTS = ["ONE TWO", "A", "", "YES"]


def _encoder(**options: object) -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(**{**SMALL, **options})


def _recognizer(**options: object) -> Transformer:
    sizes = {"num_layers": 2, "num_heads": 2, "feed_forward_width": 24, **options}
    recognizer = Transformer(_with_statistics(_encoder()), **sizes).eval()
    # Far enough from even probabilities that what is written depends on what is heard.
    recognizer.head.weight.data *= 4
    return recognizer


def _waveforms(lengths: Tensor, *, padding: float = 0.0) -> Tensor:
    waveforms = 0.1 * torch.randn(len(lengths), int(lengths.max()), generator=torch.Generator().manual_seed(1))
    return waveforms.masked_fill(torch.arange(waveforms.shape[1]) >= lengths[:, None], padding)


def _with_statistics(encoder: TransformerEncoder) -> TransformerEncoder:
    """In evaluation mode, with running statistics that are not those of a fresh model."""
    for _ in range(3):
        encoder.train()(_waveforms(LENGTHS), LENGTHS)
    return encoder.eval()


def test_neither_padding_nor_neighbours_are_heard():
    encoder = _with_statistics(_encoder())
    together, frame_lengths = encoder(functional.pad(_waveforms(LENGTHS, padding=torch.nan), (0, 3_333)), LENGTHS)
    assert torch.equal(frame_lengths, encoder.num_frames(LENGTHS))
    for row, length in enumerate(LENGTHS.tolist()):
        alone, _ = encoder(_waveforms(LENGTHS)[row : row + 1, :length], LENGTHS[row : row + 1])
        num_frames = int(frame_lengths[row])
        assert alone.shape[1] == num_frames
        torch.testing.assert_close(together[row, :num_frames], alone[0], rtol=0, atol=1e-5)
        assert not together[row, num_frames:].any()


def test_training_does_not_hear_the_padding_either():
    results = []
    for extra in (0, 5_000):
        encoder = _encoder(dropout=0.0).train()
        hidden, frame_lengths = encoder(functional.pad(_waveforms(LENGTHS), (0, extra), value=3.0), LENGTHS)
        hidden.square().sum().backward()
        gradient = encoder.subsample.convs[0].weight.grad
        results.append((hidden[:, : int(frame_lengths.max())], encoder.feature_norm.running_var, gradient))
    for short, long in zip(*results, strict=True):
        torch.testing.assert_close(short, long, rtol=1e-3, atol=1e-3)


def test_the_encoder_is_that_of_torch():
    """Padded, against plain layers on each utterance alone."""
    encoder = _with_statistics(_encoder())
    found, frame_lengths = encoder(_waveforms(LENGTHS), LENGTHS)
    plain = nn.TransformerEncoder(encoder.layers[0], 2, encoder.norm, enable_nested_tensor=False).eval()
    plain.layers = encoder.layers
    for row, length in enumerate(LENGTHS.tolist()):
        features, lengths = encoder.front_end(_waveforms(LENGTHS)[row : row + 1, :length], LENGTHS[row : row + 1])
        norm = encoder.feature_norm
        features = functional.batch_norm(
            features.transpose(1, 2), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        ).transpose(1, 2)
        values, _ = encoder.subsample(features, lengths)
        expected = plain(values + positions(values.shape[1], 12, like=values))
        torch.testing.assert_close(found[row, : frame_lengths[row]], expected[0], rtol=0, atol=1e-5)


def test_subsampling_of_a_whole_batch_is_that_of_plain_layers():
    torch.manual_seed(0)
    module = NormedSubsampling(10, channels=4, width=6).train()
    features = torch.randn(2, 17, 10)
    found, step_lengths = module(features, torch.tensor([17, 17]))
    values = features[:, None]
    for conv in module.convs:
        values = functional.batch_norm(conv(values), None, None, training=True).relu()
    torch.testing.assert_close(found, module.project(values.transpose(1, 2).flatten(2)))
    assert step_lengths.tolist() == [found.shape[1]] * 2 == [5, 5]
    assert [conv.stride for conv in module.convs] == [(1, 1), (2, 2), (1, 1), (2, 2)]


@pytest.mark.parametrize("length", [1, 79, 80, 559, 560, 880, 16_001])
def test_num_frames_is_what_encode_returns(length: int):
    encoder = _encoder().eval()
    lengths = torch.tensor([length])
    hidden, frame_lengths = encoder(torch.zeros(1, length), lengths)
    assert hidden.shape[1] == frame_lengths.item() == encoder.num_frames(lengths).item()


def test_the_size_of_espresso():
    with torch.device("meta"):
        recognizer = Transformer(TransformerEncoder())
    found = [
        sum(parameter.numel() for parameter in part.parameters()) / 1e6 for part in (recognizer.encoder, recognizer)
    ]
    assert found == pytest.approx([39.40, 64.66], abs=0.01)


def test_loss_is_the_sum_over_the_text_and_its_end():
    recognizer = _recognizer().double()
    hidden, frame_lengths = recognizer.encode(_waveforms(LENGTHS).double(), LENGTHS)
    losses = recognizer.loss_from_hidden(hidden, frame_lengths, recognizer.targets(TEXTS))
    for row, text in enumerate(TEXTS):
        one, total, tokens = slice(row, row + 1), 0.0, [0]
        for token in [*recognizer.tokenizer.encode(text), 0]:
            states = recognizer.decoder(torch.tensor([tokens]), hidden[one, : frame_lengths[row]], frame_lengths[one])
            total -= float(recognizer.head(states[0, -1]).detach().log_softmax(-1)[token])
            tokens.append(token)
        assert float(losses[row]) == pytest.approx(total)


def test_training_adds_label_smoothing_and_ctc():
    """Label smoothing as ZE21 has it: (1 - e) (-log p of the token) + e mean over v of (-log p of v), for every token."""
    recognizer = _recognizer(dropout=0.0, label_smoothing=0.2, ctc_weight=0.3).double()
    hidden, frame_lengths = recognizer.encode(_waveforms(LENGTHS).double(), LENGTHS)
    targets = recognizer.targets(TEXTS)
    found = recognizer.train().loss_from_hidden(hidden, frame_lengths, targets)
    ctc = recognizer.ctc_head(hidden).log_softmax(-1)
    for row, text in enumerate(TEXTS):
        tokens = recognizer.tokenizer.encode(text)
        one = slice(row, row + 1)
        states = recognizer.decoder(torch.tensor([[0, *tokens]]), hidden[one], frame_lengths[one])[0]
        costs = -recognizer.head(states).log_softmax(-1)
        smoothed = sum(0.8 * cost[token] + 0.2 * cost.mean() for cost, token in zip(costs, [*tokens, 0], strict=True))
        frames = ctc[row, : frame_lengths[row], None]
        expected = functional.ctc_loss(
            frames, torch.tensor([tokens]), frame_lengths[one], torch.tensor([len(tokens)]), reduction="sum"
        )
        torch.testing.assert_close(found[row], 0.7 * smoothed + 0.3 * expected)


def test_evaluation_has_the_ctc_of_the_search():
    recognizer = _recognizer(ctc_weight=0.3, label_smoothing=0.0, dropout=0.0)
    hidden, frame_lengths = recognizer.encode(_waveforms(LENGTHS), LENGTHS)
    given = hidden, frame_lengths, recognizer.targets(TEXTS)
    by_decoder, by_ctc = recognizer.loss_from_hidden(*given), recognizer._ctc_loss(*given)
    recognizer.use_search(DecoderBeam(2, ctc_weight=0.6))
    torch.testing.assert_close(recognizer.loss_from_hidden(*given), 0.4 * by_decoder + 0.6 * by_ctc)
    torch.testing.assert_close(recognizer.train().loss_from_hidden(*given), 0.7 * by_decoder + 0.3 * by_ctc)


def test_evaluation_has_no_label_smoothing_and_without_such_a_search_no_ctc():
    smoothed, plain = (_recognizer(label_smoothing=value, ctc_weight=0.3) for value in (0.5, 0.0))
    targets = plain.targets(TEXTS)
    losses = [model.loss(_waveforms(LENGTHS), LENGTHS, targets) for model in (smoothed, plain)]
    assert torch.equal(*losses)


@pytest.mark.parametrize(
    ("ctc_weight", "text", "feasible"), [(0.0, "AAA", True), (0.0, "AAAA", False), (0.3, "AAA", False)]
)
def test_a_text_is_feasible_that_fits_into_the_steps(ctc_weight: float, text: str, feasible: bool):
    recognizer = _recognizer(ctc_weight=ctc_weight)
    lengths = torch.tensor([1_300])
    targets = recognizer.targets([text])
    assert recognizer.encoder.num_frames(lengths).tolist() == [3]
    assert recognizer.feasible(lengths, targets).tolist() == [feasible]
    for model in (recognizer, recognizer.train()):
        assert bool(model.loss(_waveforms(lengths), lengths, targets).isfinite()) is feasible


@pytest.mark.parametrize("search", [DecoderBeam(1), DecoderBeam(4), DecoderBeam(3, ctc_weight=0.3)])
def test_transcripts_do_not_depend_on_padding_or_neighbours(search: DecoderBeam):
    recognizer = _recognizer(ctc_weight=0.3)
    recognizer.use_search(search)
    together = recognizer.transcribe(functional.pad(_waveforms(LENGTHS), (0, 4_000), value=2.0), LENGTHS)
    assert len({transcript.text for transcript in together}) > 2
    for row, length in enumerate(LENGTHS.tolist()):
        (alone,) = recognizer.transcribe(_waveforms(LENGTHS)[row : row + 1, :length], LENGTHS[row : row + 1])
        assert alone.text == together[row].text
        for one, other in zip(alone.words, together[row].words, strict=True):
            assert (one.text, one.start, one.end) == (other.text, other.start, other.end)
            assert one.confidence == pytest.approx(other.confidence, abs=1e-4)


def test_words_lie_inside_the_utterance_in_order():
    recognizer = _recognizer()
    recognizer.head.bias.data[0] = -20.0
    lengths = torch.tensor([16_000, 9_001, 8_960, 641, 1])
    for transcript, length in zip(recognizer.transcribe(_waveforms(lengths), lengths), lengths.tolist(), strict=True):
        assert transcript.text == " ".join(word.text for word in transcript.words)
        times = [time for word in transcript.words for time in (word.start, word.end)]
        assert times == sorted(times) and all(0 <= time <= length / 16_000 for time in times)
        assert all(0 < word.confidence <= 1 for word in transcript.words)


def test_confidence_is_the_probability_of_the_tokens():
    recognizer = _recognizer().double()
    recognizer.use_search(DecoderBeam(3))
    waveforms = _waveforms(LENGTHS[:1]).double()
    (transcript,) = recognizer.transcribe(waveforms, LENGTHS[:1])
    hidden, frame_lengths = recognizer.encode(waveforms, LENGTHS[:1])
    state = recognizer.decoder.start(hidden, frame_lengths)
    (tokens,) = recognizer.search(recognizer._step, state, frame_lengths, recognizer.tokenizer)
    states = recognizer.decoder(torch.tensor([[0, *tokens]]), hidden, frame_lengths)[0, :-1]
    scores = recognizer.head(states).log_softmax(-1)[range(len(tokens)), tokens].tolist()
    first = transcript.words[0]
    spelled = recognizer.tokenizer.decode(tokens)
    start = len(spelled) - len(spelled.lstrip())
    expected = torch.tensor(scores[start : start + len(first.text)]).mean().exp()
    assert first.confidence == pytest.approx(float(expected))


def test_pgd_raises_the_loss():
    recognizer = _recognizer()
    lengths = LENGTHS[:2]
    batch = AudioBatch(_waveforms(lengths), lengths, ("ONE TWO", "A"), ("a", "b"))
    attack = PaperPGD(threat=Linf(0.01), num_iterations=5)
    result = attack(recognizer, batch, seeds=torch.arange(2))
    targets = recognizer.targets(batch.texts)
    before, after = (recognizer.loss(values, lengths, targets) for values in (batch.waveforms, result.batch.waveforms))
    assert bool((after > before + 0.01).all())


@pytest.fixture(scope="module")
def learned() -> tuple[Transformer, AudioBatch]:
    """A recogniser that has learned two utterances by heart."""
    recognizer = _recognizer(dropout=0.0, label_smoothing=0.0, ctc_weight=0.3).train()
    lengths, texts = torch.tensor([5_000, 3_000]), ("ONE", "A")
    waveforms = _waveforms(lengths)
    optimizer = torch.optim.Adam(recognizer.parameters(), lr=0.01)
    for _ in range(40):
        loss = recognizer.loss(waveforms, lengths, recognizer.targets(texts)).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(recognizer.parameters(), 1.0)
        optimizer.step()
    return recognizer.eval(), AudioBatch(waveforms, lengths, texts, ("a", "b"))


def test_learns_two_utterances(learned: tuple[Transformer, AudioBatch]):
    recognizer, batch = learned
    assert tuple(heard.text for heard in recognizer.transcribe(batch.waveforms, batch.lengths)) == batch.texts


def test_carlini_wagner_makes_it_hear_another_text(learned: tuple[Transformer, AudioBatch]):
    recognizer, batch = learned
    for row, text in ((0, "A"), (1, "ONE")):
        one = batch.select([row])
        attack = CarliniWagner(Targeted(PhraseList([text])), bound=0.2, learning_rate=0.01, num_iterations=60)
        result = attack(recognizer, one, seeds=torch.zeros(1, dtype=torch.long))
        assert result.success.all() and result.hypotheses == (text,)


def test_pieces_of_words():
    tokenizer = train_bpe(["ONE TWO ONE YES TWO ONE A"] * 3, size=14)
    recognizer = _recognizer(tokenizer=tokenizer)
    assert recognizer.loss(_waveforms(LENGTHS), LENGTHS, recognizer.targets(TEXTS)).isfinite().all()
    for transcript in recognizer.transcribe(_waveforms(LENGTHS), LENGTHS):
        assert transcript.text == " ".join(word.text for word in transcript.words)


def test_mixed_precision_is_near():
    recognizer = _recognizer()
    targets = recognizer.targets(TEXTS)
    exact = recognizer.loss(_waveforms(LENGTHS), LENGTHS, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rough = recognizer.loss(_waveforms(LENGTHS), LENGTHS, targets)
        recognizer.transcribe(_waveforms(LENGTHS), LENGTHS)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.5)


def test_a_search_over_frames_is_refused():
    with pytest.raises(ValueError, match="search: Transformer writes token by token, which GreedySearch cannot search"):
        _recognizer().use_search(GreedySearch())


def test_ctc_is_searched_where_it_was_learned():
    with pytest.raises(ValueError, match=r"search: ctc_weight is 0.3, the recogniser was trained without CTC: take 0"):
        _recognizer().use_search(DecoderBeam(4, ctc_weight=0.3))


@pytest.mark.parametrize(
    "wrong", [{"num_heads": 5}, {"dropout": 1.0}, {"num_layers": 0}, {"subsampling_channels": 1}, {"width": 0}]
)
def test_a_value_of_the_encoder_out_of_range_is_named(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        _encoder(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"num_heads": 5}, {"dropout": -0.1}, {"num_layers": 0}, {"label_smoothing": 1.0}, {"ctc_weight": 1.0}]
)
def test_a_value_of_the_decoder_out_of_range_is_named(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Transformer(_encoder(), **{"num_heads": 2, **wrong})
