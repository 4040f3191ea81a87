"""How robust is the model that I use: one command, from a model and audio with texts to rows and a page.

``audit`` measures clean audio, noise of the attacks' size, untargeted PGD around the budget at which this model breaks, and a
phrase that it shall hear, each with and without smoothing noise before the model. ``model`` loads what is named, ``search`` finds
the budget, ``conditions`` and ``scales`` say what is measured and how much of it, ``duration`` how long it will take, ``loop``
reads audio and runs the evaluation. Rows, checks and page are those of every evaluation.

This package is a command like ``train.py``: it stands on Lightning and the data modules, and nothing imports it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robust_asr.audit import loop
from robust_asr.audit.conditions import conditions_around, neat, search_for
from robust_asr.audit.duration import Pace, in_words, of_evaluation
from robust_asr.audit.model import load_model, title_of
from robust_asr.audit.scales import FULL, QUICK, Scale
from robust_asr.audit.search import find_budget
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.measuring.systems import describe_system
from robust_asr.models.base import Recognizer
from robust_asr.report import PAGE, report
from robust_asr.results import digest
from robust_asr.storage import strict_json
from robust_asr.storage.files import written_whole
from robust_asr.text.terminal import say
from robust_asr.types import AudioBatch, Broken

PHRASE = "open the door"
_PLAN = "audit.json"


@dataclass(frozen=True)
class Audit:
    """What is measured of a recogniser.

    Attributes:
        name: of the recogniser in tables.
        phrase: what it shall be made to hear.
        sigma: the smoothing noise of the defended system, full-scale amplitude.
    """

    recognizer: Recognizer
    name: str
    scale: Scale
    phrase: str = PHRASE
    sigma: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        # Of a defence that cannot be, the sentence comes before anything is read.
        GaussianNoise(self.sigma)

    @property
    def systems(self) -> dict[str, Recognizer]:
        defended = Defended(GaussianNoise(self.sigma), self.recognizer)
        return {self.name: self.recognizer, f"{self.name} + RS {self.sigma:g}": defended}

    def identity(self, utterances: Iterable[str]) -> dict[str, Any]:
        """What a folder's audit was made of, so that no other one goes on in it. ValueError for a model that has no description."""
        try:
            system = describe_system(self.recognizer)["hash"]
        except TypeError as error:
            raise ValueError(f"model: {error}, so its rows could not be told from another's") from error
        settings = {"phrase": self.phrase, "sigma": self.sigma, "seed": self.seed, **asdict(self.scale)}
        return {"model": system, "settings": digest(settings), "audio": digest(sorted(utterances))}


def audit(
    model: str,
    audio: str | Path,
    out: str | Path,
    *,
    quick: bool = False,
    utterances: int | None = None,
    phrase: str = PHRASE,
    sigma: float = 0.01,
    language: str | None = None,
    seed: int = 0,
) -> Path:
    """Measure how robust a model is on this audio. An audit that was killed goes on when it is called again. Returns the page.

    Args:
        model: what ``robust_asr.audit.model.load_model`` takes.
        audio: what ``datamodules.preparing.any_audio.read_any`` takes: LibriSpeech's layout, audio files with ``.txt`` beside
            them, or a table of path and text.
        out: folder for rows, summary and page.
        quick: a few minutes on a laptop, with attacks of few iterations: an upper bound on robustness, and not a tight one.
        utterances: how many are measured, by default 10 in a quick audit, else 30.
        phrase: what the model shall be made to hear.
        sigma: the noise of the defended system, full-scale amplitude.
        language: of a multilingual Whisper.

    Errors: ValueError says what is wrong with model, audio or settings; nothing is written then. ValueError for a folder that
        holds the audit of something else.
    """
    out = Path(out)
    scale = QUICK if quick else FULL
    if utterances is not None:
        if utterances < 1:
            raise ValueError(f"utterances must be at least 1, found {utterances}")
        scale = replace(scale, utterances=utterances)
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: {out} is a file; name a folder for the audit")
    recognizer = load_model(str(model), language=language)
    if unknown := recognizer.unwritable(phrase):
        raise ValueError(f"phrase: {phrase!r} has {unknown}, which the model cannot write")
    settings = Audit(recognizer, title_of(str(model)), scale, phrase, sigma, seed)
    part = loop.read_audio(Path(audio), recognizer, utterances=scale.utterances)
    identity = settings.identity(part.texts)
    with loop.locked(out):
        plan = _read_plan(out, identity)
        loop.write_audio(part, out / loop.DATA)
        return _run(settings, out, identity, plan)


def _run(settings: Audit, out: Path, identity: dict[str, Any], plan: dict[str, Any] | None) -> Path:
    start = time.perf_counter()
    recognizer, scale = settings.recognizer, settings.scale
    recognizer.to("cuda" if torch.cuda.is_available() else "cpu")
    data = loop.batches_of(out / loop.DATA, recognizer, batch_seconds=scale.batch_seconds)
    alone = [batch.to(next(recognizer.parameters()).device) for batch in loop.each_alone(data)]
    heard = [batch for batch in alone if bool(recognizer.hears(batch.lengths).all())]
    if not heard:
        raise ValueError("audio: the model hears none of the utterances to the end: all are longer than its window")
    searched = _middle(heard, scale.searched)
    pace = _pace(settings, alone, searched[0])
    _say_how_long(
        settings, pace, alone, searched=0 if plan else len(searched), under_way=(out / "results.jsonl").exists()
    )
    if plan is None:
        found = find_budget(
            search_for(scale),
            recognizer,
            searched,
            seed=settings.seed,
            folder=out / "partial",
            identity=digest(identity),
        )
        plan = {**identity, **found}
        with written_whole(out / _PLAN) as path:
            path.write_text(json.dumps(plan, indent=1), encoding="utf-8")
        for state in (out / "partial").glob("search-*.ckpt"):
            state.unlink()
    breaks = _in_words(plan)
    say(breaks)
    conditions = conditions_around(plan["eps"], scale, phrase=settings.phrase)
    loop.evaluate(settings.systems, conditions, data, out, seed=settings.seed)
    report([out], out / "report", title=f"{settings.name}: {breaks}")
    say(f"the audit took {in_words(time.perf_counter() - start)}; the page is {out / 'report' / PAGE}")
    return out / "report" / PAGE


def _pace(settings: Audit, alone: list[AudioBatch], utterance: AudioBatch) -> Pace:
    windows = [float(settings.recognizer.window(batch.lengths)) for batch in alone]
    share = float(settings.recognizer.window(utterance.lengths)) * len(windows) / sum(windows)
    return Pace.of(settings.recognizer, utterance, share=share)


def _say_how_long(settings: Audit, pace: Pace, alone: list[AudioBatch], *, searched: int, under_way: bool) -> None:
    recognizer, scale = settings.recognizer, settings.scale
    # The budget does not change the work.
    conditions = conditions_around(0.001, scale, phrase=settings.phrase)
    systems = list(settings.systems.values())
    batch = 3 if scale.batch_seconds and recognizer.padding_invariant else 1
    seconds = of_evaluation(pace, systems, conditions, utterances=len(alone), batch=batch)
    seconds += searched * pace.of_search(search_for(scale), recognizer)
    less = ", less what is there already" if under_way else ""
    say(
        f"{len(alone)} utterances, {len(systems)} systems, {len(conditions)} conditions: about {in_words(seconds)}{less} "
        f"({pace.gradient:.2g} s an utterance and iteration of PGD, measured)"
    )


def _middle(utterances: list[AudioBatch], num: int) -> list[AudioBatch]:
    """As many utterances of the middle, where all are sorted by length."""
    first = max(len(utterances) - num, 0) // 2
    return utterances[first : first + num]


def _read_plan(out: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The budget that an earlier call found. ValueError if the folder is that of another audit."""
    path = out / _PLAN
    if not path.exists():
        return None
    try:
        plan = strict_json.loads(path.read_text(encoding="utf-8"))
        eps = plan["eps"]
        changed = [name for name, value in identity.items() if plan.get(name) != value]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); delete the folder to begin anew") from error
    if changed or not isinstance(eps, float):
        raise ValueError(
            f"out: {out} holds an audit with another {changed[0] if changed else 'budget'}; name another folder"
        )
    return plan


def _in_words(plan: dict[str, Any]) -> str:
    """Where the model breaks, which may be at an end of the range that was searched."""
    eps, num = neat(plan["eps"]), len(plan["searched"])
    outcomes = [Broken(entry["breaking"]) for entry in plan["searched"]]
    if 2 * outcomes.count(Broken.BEYOND) > num:
        where = f"less than half of the words are wrong up to eps {eps:g}, the largest that was searched"
    elif 2 * outcomes.count(Broken.UNPERTURBED) > num:
        where = "half of the words are wrong without an attack"
    else:
        below = " at the latest" if 2 * sum(outcome.below for outcome in outcomes) > num else ""
        where = f"half of the words are wrong from eps {eps:g} on{below}"
    return f"{where} (median of {num} utterances)"
