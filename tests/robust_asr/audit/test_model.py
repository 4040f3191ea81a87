from __future__ import annotations

import sys
from pathlib import Path

import pytest

from robust_asr.audit.model import load_model, title_of
from robust_asr.models.compact import CompactCTC
from robust_asr.models.hf_ctc import HuggingFaceCTC
from robust_asr.models.whisper import Whisper
from robust_asr.storage import trust
from tests.hf_ctc_folder import write_ctc
from tests.whisper_folder import write_whisper

YOURS = """
from tests.toys import ToyCTC

made = ToyCTC
number = 5
"""


def test_a_checkpoint_and_the_run_folder_around_it(model: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(model.read_bytes())
    for name in (str(model), str(tmp_path / "run"), f"{tmp_path}/run/"):
        assert isinstance(load_model(name), CompactCTC)
    with pytest.raises(FileNotFoundError, match=r"nothing\.ckpt"):
        load_model(str(tmp_path / "nothing.ckpt"))


def test_config_json_tells_whisper_from_ctc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whisper, ctc = write_whisper(tmp_path / "whisper", multilingual=True), write_ctc(tmp_path / "ctc")
    assert load_model(str(whisper), language="de").language == "de"
    assert isinstance(load_model(str(ctc)), HuggingFaceCTC)
    with pytest.raises(ValueError, match="language must be the code of one of the model's 2 languages"):
        load_model(str(whisper))
    with pytest.raises(ValueError, match=r"language: only a multilingual Whisper takes one, .* is of type 'wav2vec2'"):
        load_model(str(ctc), language="en")
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(whisper))
    assert isinstance(load_model("someone/whisper", language="en"), Whisper)


def test_a_function_of_ones_own_needs_its_package_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yours_to_audit.py").write_text(YOURS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trust, "_opened", set())
    with pytest.raises(ValueError, match="--allow_module yours_to_audit opens a package of your own"):
        load_model("yours_to_audit:made")
    assert "yours_to_audit" not in sys.modules
    trust.allow_module("yours_to_audit")
    assert type(load_model("yours_to_audit:made")).__name__ == "ToyCTC"
    with pytest.raises(ValueError, match="gives a int, not a Recognizer"):
        load_model("yours_to_audit:number")
    with pytest.raises(ValueError, match="there is no 'yours_to_audit:nothing'"):
        load_model("yours_to_audit:nothing")


@pytest.mark.parametrize(
    "name, title",
    [
        ("openai/whisper-tiny.en", "whisper-tiny.en"),
        ("runs/an4/baseline/", "baseline"),
        ("some/last.ckpt", "last"),
        ("yours.models:best", "best"),
    ],
)
def test_titles(name: str, title: str) -> None:
    assert title_of(name) == title
