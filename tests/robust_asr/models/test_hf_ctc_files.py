import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from robust_asr import checkpoint
from robust_asr.models.hf_ctc import HuggingFaceCTC
from robust_asr.models.hf_ctc_files import unpack
from robust_asr.models.hf_files import INLINE, pack
from robust_asr.storage.describe import describe
from robust_asr.storage.trial import trial_build
from tests.hf_ctc_folder import UPPER, tiny_ctc, write_ctc
from tests.hf_folders import check_hub_names, lacks, pickled, with_fields

pytest.importorskip("transformers", reason="needs the extra [hf]")


def losses_of(recognizer: HuggingFaceCTC) -> torch.Tensor:
    noise = 0.1 * torch.randn(2, 9_000, generator=torch.Generator().manual_seed(0))
    return recognizer.loss(noise, torch.tensor([9_000, 6_000]), recognizer.targets(["HELLO YOU", "A BE"])).detach()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ctc(tmp_path_factory.mktemp("ctc"))


@pytest.fixture(scope="module")
def recognizer(folder: Path) -> HuggingFaceCTC:
    return HuggingFaceCTC(str(folder))


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "data2vec-audio"])
def test_a_checkpoint_needs_the_folder_no_more(kind: str, tmp_path: Path) -> None:
    recognizer = tiny_ctc(tmp_path / "source", kind)
    with torch.no_grad():
        for parameter in recognizer.parameters():
            parameter.add_(0.01)
    checkpoint.save(recognizer, tmp_path / "tuned.ckpt")
    shutil.rmtree(tmp_path / "source")
    loaded = checkpoint.load(str(tmp_path / "tuned.ckpt"))
    assert torch.equal(losses_of(loaded), losses_of(recognizer))
    assert loaded.model == recognizer.model and loaded.tokenizer.labels == recognizer.tokenizer.labels


def test_a_checkpoint_names_no_folder_and_no_hub_model(recognizer: HuggingFaceCTC, folder: Path) -> None:
    description = {**describe(recognizer), "init_args": {"model": str(folder)}}
    with pytest.raises(ValueError, match="a checkpoint holds the description of its model itself"):
        trial_build(description, recognizer.state_dict(), expected=HuggingFaceCTC, field="file")


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("kind", "whisper", "model_type 'whisper' is none of"),
        ("sizes", {"attn_implementation": "a/kernel"}, "attn_implementation is 'a/kernel'"),
        ("sizes", {"hidden_size": 15}, "no CTC model can be built from its sizes"),
        ("sizes", {"conv_dim": [8, 8.5]}, r"conv_dim is \[8, 8.5\]"),
        ("sizes", {"conv_stride": [5, 2]}, "no CTC model can be built from its sizes"),
        ("sizes", {"hidden_act": "shout"}, "no CTC model can be built from its sizes"),
        ("labels", ["a", 1], "labels must be a list of texts"),
        ("blank", 99, "blank must be a position among the 32 labels"),
        ("normalise", 1, "normalise true or false"),
    ],
)
def test_a_strangers_description_is_checked(
    recognizer: HuggingFaceCTC, field: str, value: object, message: str
) -> None:
    fields = dict(vars(unpack(recognizer.model)))
    fields[field] = {**fields[field], **value} if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=message):
        HuggingFaceCTC(pack(fields))


@pytest.mark.parametrize("text", [INLINE, INLINE + "!", INLINE + "eJwDAAAAAAE="])
def test_a_broken_description_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no description of a CTC model"):
        HuggingFaceCTC(text)


def _renamed(names: Callable[[str], str | None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        save_file({new: value for name, value in tensors.items() if (new := names(name))}, folder / "model.safetensors")

    return change


def _old_name(name: str) -> str:
    return name.replace("parametrizations.weight.original0", "weight_g").replace(
        "parametrizations.weight.original1", "weight_v"
    )


@pytest.mark.parametrize(
    "names",
    [_old_name, lambda name: None if "masked_spec_embed" in name else name],
    ids=["before torch 2.1", "no mask"],
)
def test_files_of_other_times_load(
    folder: Path, recognizer: HuggingFaceCTC, tmp_path: Path, names: Callable[[str], str | None]
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = set(load_file(copy / "model.safetensors"))
    _renamed(names)(copy)
    assert set(load_file(copy / "model.safetensors")) != before
    assert torch.equal(losses_of(HuggingFaceCTC(str(copy))), losses_of(recognizer))


def test_added_tokens_beyond_the_outputs_write_nothing(
    folder: Path, recognizer: HuggingFaceCTC, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "added_tokens.json").write_text(json.dumps({"<more>": len(UPPER), "<less>": 7}))
    assert HuggingFaceCTC(str(copy)).tokenizer.size == len(UPPER)


@pytest.mark.parametrize(
    "change, message",
    [
        (lacks("config.json"), "lacks config.json, which a CTC model"),
        (lacks("preprocessor_config.json"), "lacks preprocessor_config.json"),
        (lacks("vocab.json"), "lacks its tokenizer: vocab.json"),
        (lacks("model.safetensors"), "lacks model.safetensors"),
        (pickled, r"weights as a pickle \(pytorch_model.bin\)"),
        (with_fields("config.json", model_type="wav2vec2-bert"), "of type 'wav2vec2-bert'; accepted are CTC models of"),
        (with_fields("config.json", auto_map={"AutoModel": "code.Model"}), "config.json names code of its own"),
        (
            with_fields("preprocessor_config.json", auto_map={"A": "code.A"}),
            "preprocessor_config.json names code of its own",
        ),
        (with_fields("tokenizer_config.json", auto_map={"A": "code.A"}), "tokenizer_config.json names code of its own"),
        (
            with_fields("config.json", architectures=["Wav2Vec2ForPreTraining"]),
            "its head is not CTC: config.json names",
        ),
        (_renamed(lambda name: name if "lm_head" not in name else None), "its head is not CTC: .* no lm_head.weight"),
        (with_fields("config.json", add_adapter=True), "asks for an adapter"),
        (with_fields("config.json", hidden_size=8), "by config.json; tensors that differ"),
        (with_fields("config.json", num_hidden_layers=1), "by config.json; tensors that differ"),
        (with_fields("config.json", vocab_size=20), "the network has 20 outputs"),
        (
            with_fields("config.json", pad_token_id=5),
            r"the blank is the padding token, which is '<pad>' \(0\) by the tokenizer and 5",
        ),
        (with_fields("preprocessor_config.json", sampling_rate=8_000), "has sampling_rate 8000, accepted is 16000"),
        (with_fields("preprocessor_config.json", feature_extractor_type="SeamlessM4T"), "names a SeamlessM4T"),
        (
            with_fields("tokenizer_config.json", tokenizer_class="Wav2Vec2PhonemeCTCTokenizer"),
            "Wav2Vec2PhonemeCTCTokenizer",
        ),
        (with_fields("vocab.json", sch=3), "tokens of several characters, such as 'sch'"),
        (with_fields("vocab.json", eng={"a": 0}), "the vocabularies of several languages"),
        (with_fields("vocab.json", A="7"), "must give each token a number"),
    ],
)
def test_a_folder_that_is_no_ctc_model_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    change(copy)
    with pytest.raises(ValueError, match=message):
        HuggingFaceCTC(str(copy))


def test_a_hub_name_is_looked_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_hub_names(HuggingFaceCTC, folder, monkeypatch, example="facebook/wav2vec2-base-960h")
