import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from robust_asr import checkpoint
from robust_asr.models.hf_files import INLINE
from robust_asr.models.whisper import Whisper
from robust_asr.models.whisper_files import unpack
from robust_asr.storage.describe import describe
from robust_asr.storage.trial import trial_build
from tests.hf_folders import check_hub_names, lacks, pickled, with_fields
from tests.whisper_folder import WINDOW, tiny_whisper, write_whisper

pytest.importorskip("transformers", reason="needs the extra [hf]")


def losses_of(recognizer: Whisper) -> torch.Tensor:
    noise = 0.1 * torch.randn(2, WINDOW, generator=torch.Generator().manual_seed(0))
    return recognizer.loss(noise, torch.tensor([WINDOW, 9_000]), recognizer.targets(["Hello you.", "A BE"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Large weights, so that what is written depends on what is heard.
    return write_whisper(tmp_path_factory.mktemp("whisper"), init_std=0.4)


@pytest.fixture(scope="module")
def recognizer(folder: Path) -> Whisper:
    return Whisper(str(folder))


def test_a_checkpoint_needs_the_folder_no_more(tmp_path: Path) -> None:
    recognizer = tiny_whisper(tmp_path / "source")
    with torch.no_grad():
        for parameter in recognizer.parameters():
            parameter.add_(0.01)
    checkpoint.save(recognizer, tmp_path / "tuned.ckpt")
    shutil.rmtree(tmp_path / "source")
    loaded = checkpoint.load(str(tmp_path / "tuned.ckpt"))
    assert torch.equal(losses_of(loaded), losses_of(recognizer))
    assert loaded.model == recognizer.model


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"_attn_implementation": "a/kernel"}, "_attn_implementation is 'a/kernel'"),
        ({"d_model": 0}, "d_model is 0"),
        ({"d_model": 15}, "no Whisper can be built from its sizes"),
        ({"encoder_layers": True}, "encoder_layers is True"),
    ],
)
def test_a_strangers_description_is_checked(recognizer: Whisper, sizes: dict, message: str) -> None:
    content = unpack(recognizer.model)
    object.__setattr__(content, "sizes", {**content.sizes, **sizes})
    with pytest.raises(ValueError, match=message):
        Whisper(content.pack())


def test_a_checkpoint_names_no_folder_and_no_hub_model(recognizer: Whisper, folder: Path) -> None:
    description = {**describe(recognizer), "init_args": {"model": str(folder)}}
    with pytest.raises(ValueError, match="a checkpoint holds the description of its model itself"):
        trial_build(description, recognizer.state_dict(), expected=Whisper, field="file")


@pytest.mark.parametrize("text", [INLINE, INLINE + "!", INLINE + "eJwDAAAAAAE="])
def test_a_broken_description_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no description of a Whisper"):
        Whisper(text)


def _untied(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"] + 1
    save_file(tensors, folder / "model.safetensors")


def _cut(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])


@pytest.mark.parametrize(
    "change, message",
    [
        (lacks("config.json"), "lacks config.json"),
        (lacks("generation_config.json"), "lacks generation_config.json"),
        (lacks("tokenizer.json"), "lacks its tokenizer"),
        (lacks("model.safetensors"), "lacks model.safetensors"),
        (pickled, r"weights as a pickle \(pytorch_model.bin\)"),
        (_cut, "cannot be read as safetensors"),
        (with_fields("config.json", model_type="wav2vec2"), "of type 'wav2vec2', not 'whisper'"),
        (with_fields("config.json", auto_map={"AutoModel": "code.Model"}), "names code of its own"),
        (with_fields("config.json", activation_function="relu"), "another activation than gelu"),
        (with_fields("config.json", d_model=8), "by config.json"),
        (with_fields("config.json", encoder_layers=1), "by config.json"),
        (
            with_fields("generation_config.json", no_timestamps_token_id=None),
            "must hold the number no_timestamps_token_id",
        ),
        (with_fields("generation_config.json", suppress_tokens=[9_999]), r"suppressed holds the ids \[9999\]"),
        (with_fields("generation_config.json", suppress_tokens=5), "must hold a list suppress_tokens, found 5"),
        (with_fields("generation_config.json", suppress_tokens=["a"]), "generation must hold ids of tokens"),
        (_untied, "an output layer that differs from the embedding"),
        (with_fields("generation_config.json", eos_token_id=9_999), r"end holds the ids \[9999\]"),
        (with_fields("preprocessor_config.json", sampling_rate=8_000), "sampling_rate 8000, accepted is 16000"),
        (with_fields("tokenizer.json", model=1), "holds no tokenizer"),
    ],
)
def test_a_folder_that_is_no_whisper_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    change(copy)
    with pytest.raises(ValueError, match=message):
        Whisper(str(copy))


def test_a_hub_name_is_looked_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_hub_names(Whisper, folder, monkeypatch, example="openai/whisper-tiny.en")


def test_without_the_extra_one_sentence_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'robust-asr\[hf\]'"):
        Whisper(str(folder))


@pytest.mark.shared_data
def test_files_of_the_slow_tokenizer_will_do(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "whisper_tiny_en"
    if not source.is_dir():
        pytest.skip(f"no Whisper in {source}")
    for path in source.iterdir():
        if path.name != "tokenizer.json":
            (tmp_path / path.name).symlink_to(path)
    slow, fast = Whisper(str(tmp_path)), Whisper(str(source))
    texts = ["HE COULD WAIT", "Mr. Quilter's manner \u2014 is 3,000 na\u00efve."]
    assert torch.equal(slow.targets(texts).tokens, fast.targets(texts).tokens)
