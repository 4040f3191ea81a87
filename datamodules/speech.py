"""Prepared speech, as batches for Lightning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch
from lhotse.cut import MonoCut
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.collate import Utterances
from datamodules.fixed_batches import Batching, FixedBatches
from datamodules.manifest import SUFFIX, Manifest, is_manifest, part_name
from datamodules.ranks import rank_and_world_size
from datamodules.sampling import TrainingSampler, expected_padding
from datamodules.streaming import ShardStream
from datamodules.subsets import EvalSubset, sample, select_subset, subset_ids
from datamodules.training_set import Selection, TrainingSet
from robust_asr.types import AudioBatch

SPEEDS = (1.0, 0.9, 1.1)


class Speech(LightningDataModule):
    """Manifests written by ``python -m datamodules.prepare`` as batches, ``robust_asr.types.AudioBatch``.

    The trainer must run with ``use_distributed_sampler=False``: ranks share the work here.

    Args:
        manifests: folder of ``<part>.jsonl.gz`` and ``corpus.json``.
        train, validate, test, predict: parts by name, or by the path of a manifest of another corpus. The parts to
            train on are mixed; each of the others is an evaluation set of its own. ``predict`` is ``test`` if not
            given.
        root: folder of the audio, if it is no longer where ``corpus.json`` says.
        shar: train from the shards beside the manifests, for data larger than memory or on a slow disk; the trainer
            must give ``limit_train_batches`` as the number of batches of an epoch.
        sample_rate: in hertz; audio of another rate is resampled.
        window_seconds: an utterance counts for at least so many seconds of a batch: a recogniser that fills audio up to a fixed
            window pays for the window. The command line takes it from the model.
        max_duration: seconds of audio a batch (evaluation counts the padding too).
        num_buckets: at most; more buckets, less padding.
        speed_perturb: train on every utterance at speeds 0.9, 1 and 1.1.
        min_seconds, max_seconds: shorter and longer utterances are not trained on. Evaluation leaves nothing out.
        eval_subset: evaluate only the hundred utterances of the papers' "first 100 of test-clean" (``tfds100``, see
            ``datamodules.subsets``), or the first hundred by id (``sorted100``), of every part in ``test`` and ``predict``.
        eval_utterances: evaluate only so many utterances of every part in ``test`` and ``predict``, chosen by a hash of their
            ids: for attacks that cost hours. A larger number adds to a smaller one.
        eval_hours: evaluate, or attack, only so many hours of every part in ``test`` and ``predict``, in the same order: the first
            utterance that exceeds them and all later ones are left out. With both limits the first that is reached counts.
        evaluation_batching: ``similar`` lengths together, only ``equal`` ones, or each utterance ``alone``.
        num_workers: processes that read audio; 0 reads in the main process.
        cache_gigabytes: of decoded audio kept in memory when ``num_workers`` is 0.
        seed: of the order of training.

    Errors: ValueError names the manifest, the utterance and the field.
    """

    sampler_class: ClassVar[type[TrainingSampler]] = TrainingSampler

    def __init__(
        self,
        manifests: str,
        train: list[str] | None = None,
        validate: list[str] | None = None,
        test: list[str] | None = None,
        predict: list[str] | None = None,
        *,
        root: str | None = None,
        shar: bool = False,
        sample_rate: int = 16_000,
        window_seconds: float = 0.0,
        max_duration: float = 100.0,
        num_buckets: int = 30,
        speed_perturb: bool = False,
        min_seconds: float = 0.1,
        max_seconds: float = 35.0,
        eval_subset: EvalSubset | None = None,
        eval_utterances: int | None = None,
        eval_hours: float | None = None,
        evaluation_batching: Batching = "similar",
        num_workers: int = 0,
        cache_gigabytes: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_range("sample_rate", sample_rate, at_least=1)
        _check_range("window_seconds", window_seconds, at_least=0)
        _check_range("max_duration", max_duration, at_least=0.01)
        _check_range("num_buckets", num_buckets, at_least=1)
        _check_range("num_workers", num_workers, at_least=0)
        _check_range("cache_gigabytes", cache_gigabytes, at_least=0)
        if evaluation_batching not in get_args(Batching):
            accepted = ", ".join(get_args(Batching))
            raise ValueError(f"evaluation_batching must be one of {accepted}, found {evaluation_batching!r}")
        self.manifests, self.root, self.shar = manifests, root, shar
        self.parts = {
            "train": list(train or ()),
            "validate": list(validate or ()),
            "test": list(test or ()),
            "predict": list(predict if predict is not None else test or ()),
        }
        self.sample_rate, self.max_duration, self.num_buckets = sample_rate, max_duration, num_buckets
        self.window_seconds = window_seconds
        if eval_subset is not None:
            subset_ids(eval_subset)
        if eval_utterances is not None:
            _check_range("eval_utterances", eval_utterances, at_least=1)
        if eval_hours is not None and not 0 < eval_hours < float("inf"):
            raise ValueError(f"eval_hours must be a positive number of hours or null, found {eval_hours}")
        self.eval_subset, self.eval_utterances, self.eval_hours = eval_subset, eval_utterances, eval_hours
        self.evaluation_batching: Batching = evaluation_batching
        self.num_workers, self.seed = num_workers, seed
        self._selection = Selection(min_seconds, max_seconds, SPEEDS if speed_perturb else (1.0,))
        self._utterances = Utterances(sample_rate=sample_rate, cache_bytes=int(cache_gigabytes * 2**30))
        self._training_audio: Dataset = self._utterances
        self._evaluation: dict[str, list[MonoCut]] = {}
        self._training: TrainingSet | ShardStream | None = None
        self._fingerprint: str | None = None
        self._resume: dict[str, Any] | None = None
        self._stretches: list[dict[str, Any]] = []

    def dataloader_names(self, stage: str) -> list[str]:
        """Names of the evaluation sets of ``validate``, ``test`` or ``predict``, in the order of their loaders."""
        subset = f"-{self.eval_subset}" if self._is_subset(stage) else ""
        return [part_name(part) + subset for part in self.parts[stage]]

    def training_texts(self) -> Iterator[str]:
        """Every text to train on, once: for a recogniser that estimates a language model from them."""
        for part in self.parts["train"]:
            yield from (cut.supervisions[0].text for cut in self._manifest(part))

    def texts(self, stage: str) -> Iterator[tuple[str, str, str]]:
        """Part, id and text of every utterance of a stage, after ``setup``; of ``fit`` also those of ``test`` that can be read."""
        if isinstance(self._training, ShardStream) and stage == "fit":
            yield from self._training.texts()
        elif stage == "fit":
            for part in self.parts["train"]:
                selected = (cut for cut in self._manifest(part) if self._selection.holds(cut.duration))
                yield from ((part, cut.id, cut.supervisions[0].text) for cut in selected)
        for stage_of_part in ("validate", "test") if stage == "fit" else (stage,):
            for part in self.parts[stage_of_part]:
                cuts = self._cuts(part, stage_of_part) if part in self._evaluation else self._not_set_up(part)
                yield from ((part, cut.id, cut.supervisions[0].text) for cut in cuts)

    def _not_set_up(self, part: str) -> list[MonoCut]:
        """What a part to test on holds while another stage runs; what is wrong with it, ``setup`` of its own stage says."""
        try:
            return self._selected(list(self._manifest(part)), part, "test")
        except ValueError:
            return []

    def num_utterances(self, stage: str) -> list[int]:
        """Sizes of the evaluation sets, in the order of ``dataloader_names``; after ``setup``."""
        return [len(self._cuts(part, stage)) for part in self.parts[stage]]

    def num_batches(self, epoch: int) -> int | None:
        """How many batches an epoch of training brings to each rank, after ``setup``; None for shards, which never end."""
        if isinstance(self._training, ShardStream):
            return None
        return self.sampler_class(self._training, **self._batching()).num_batches(epoch)

    def _is_subset(self, stage: str) -> bool:
        return self.eval_subset is not None and stage in ("test", "predict")

    def _cuts(self, part: str, stage: str) -> list[MonoCut]:
        return self._selected(self._evaluation[part], part, stage)

    def _selected(self, cuts: list[MonoCut], part: str, stage: str) -> list[MonoCut]:
        if stage not in ("test", "predict"):
            return cuts
        if self.eval_subset is not None:
            cuts = select_subset(cuts, self.eval_subset, part)
        if self.eval_utterances is None and self.eval_hours is None:
            return cuts
        kept = sample(cuts, self.eval_utterances, hours=self.eval_hours)
        if cuts and not kept:
            raise ValueError(
                f"eval_hours is {self.eval_hours:g}, less than the first utterance to take of part {part!r}"
            )
        return kept

    def setup(self, stage: str) -> None:
        """Reads and checks the manifests of a stage: every line, and that every file is there and inside its corpus."""
        if stage == "fit" and self._training is None:
            self._training = self._training_stream() if self.shar else self._training_set()
            rank_zero_info(self._summary())
        for part in self.parts[{"fit": "validate"}.get(stage, stage)]:
            if part not in self._evaluation:
                self._evaluation[part] = list(self._manifest(part).verified())

    def train_dataloader(self) -> DataLoader:
        if isinstance(self._training, ShardStream):
            self._begin(self._training)
            loader = self._loader(self._training)
            # Lightning tells the epoch to samplers, and not to data sets.
            loader.sampler.set_epoch = self._training.set_epoch
            return loader
        sampler = self.sampler_class(self._training, **self._batching())
        self._begin(sampler)
        return self._loader(self._training_audio, sampler)

    def _batching(self) -> dict[str, Any]:
        """How this rank makes batches to train on."""
        rank, world_size = rank_and_world_size()
        return {
            "max_duration": self.max_duration,
            "window_seconds": self.window_seconds,
            "num_buckets": self.num_buckets,
            "seed": self.seed,
            "rank": rank,
            "world_size": world_size,
        }

    def val_dataloader(self) -> list[DataLoader]:
        return self._evaluation_loaders("validate")

    def test_dataloader(self) -> list[DataLoader]:
        return self._evaluation_loaders("test")

    def predict_dataloader(self) -> list[DataLoader]:
        return self._evaluation_loaders("predict")

    def transfer_batch_to_device(self, batch: AudioBatch, device: torch.device, dataloader_idx: int) -> AudioBatch:
        return batch.to(device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """The epoch of training, how many of its batches this rank has trained on, and how those were made."""
        loop = self.trainer.fit_loop
        epoch, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress
        under_way = epoch.started > epoch.processed
        # Lightning's own callbacks save at the end of a batch. Where it was the last of an epoch, Lightning 2.6 resumes with the
        # next epoch.
        over = batches.is_last_batch and batches.current.completed < batches.current.processed
        if under_way and over:
            return {"epoch": epoch.processed + 1, "batches": 0}
        num_done = batches.current.processed if under_way else 0
        state = {"epoch": epoch.processed, "batches": num_done}
        return state | {"stretches": self._stretches_of(epoch.processed, num_done)} if num_done else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume = dict(state_dict)

    def restart_epoch(self) -> None:
        """The epoch in which the checkpoint was written begins anew: every utterance comes, also those that came before it."""
        if self._resume is not None:
            self._resume = {"epoch": self._resume["epoch"], "batches": 0}

    def _stretches_of(self, epoch: int, num_done: int) -> list[dict[str, Any]]:
        """How the batches done of an epoch were made: a stretch ends where a run went on with other settings."""
        earlier = [stretch for stretch in self._stretches if stretch["epoch"] == epoch]
        present = {"epoch": epoch, "batches": num_done - sum(stretch["batches"] for stretch in earlier)}
        return [*earlier, present | self._order]

    @property
    def _order(self) -> dict[str, Any]:
        """All that the batches of an epoch follow from."""
        if self._fingerprint is None:
            self._fingerprint = self._training.fingerprint
        order = {name: value for name, value in self._batching().items() if name != "rank"} | {
            "corpus": self._fingerprint
        }
        # A worker reads shards of its own.
        return order | {"num_workers": self.num_workers} if self.shar else order

    def _begin(self, training: TrainingSampler | ShardStream) -> None:
        """Set the training data to the trainer's epoch, or to the batch that the checkpoint names."""
        training.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed if self.trainer is not None else 0)
        if self._resume is None:
            return
        epoch, num_done = self._resume["epoch"], self._resume["batches"]
        if num_done:
            num_done = self._go_on(training, epoch, self._resume.get("stretches"))
        training.resume_at(epoch=epoch, num_batches=num_done)
        self._resume = None

    def _go_on(
        self, training: TrainingSampler | ShardStream, epoch: int, stretches: list[dict[str, Any]] | None
    ) -> int:
        """Go on in the middle of an epoch; how many of the batches made as at present are done.

        Other settings make other batches. The utterances of those done are known then, and left out of those to come. ValueError
        where they are not known.
        """
        anew = "--resume_epoch restart begins the epoch anew"
        present = self._order
        if not stretches or any(present.keys() - stretch.keys() for stretch in stretches):
            raise ValueError(
                f"the checkpoint does not say how the batches of epoch {epoch}, in which it was written, were made; {anew}"
            )
        changed = sorted({name for stretch in stretches for name in present if stretch[name] != present[name]})
        if "corpus" in changed or (changed and self.shar):
            reasons = ", ".join(_change(name, stretches[-1][name], present[name]) for name in changed)
            raise ValueError(
                f"the checkpoint was written in the middle of epoch {epoch}, and since then {reasons}: which are left of "
                f"the epoch is not known; {anew}"
            )
        last = stretches[-1]
        going_on = all(last[name] == present[name] for name in present)
        self._stretches = stretches[:-1] if going_on else stretches
        if self._stretches:
            training.leave_out(self._ids_of(self._stretches), epoch=epoch)
        if not going_on:
            reasons = ", ".join(_change(name, last[name], present[name]) for name in changed)
            rank_zero_info(
                f"{reasons}: the rest of epoch {epoch} is made into batches anew, of the utterances not yet trained on"
            )
        return last["batches"] if going_on else 0

    def _ids_of(self, stretches: list[dict[str, Any]]) -> frozenset[str]:
        ids: frozenset[str] = frozenset()
        for stretch in stretches:
            batching = {name: stretch[name] for name in self._batching() if name != "rank"}
            sampler = self.sampler_class(self._training, rank=0, **batching)
            sampler.leave_out(ids, epoch=stretch["epoch"])
            ids |= sampler.ids_of(epoch=stretch["epoch"], num_batches=stretch["batches"])
        return ids

    def _training_set(self) -> TrainingSet:
        if not self.parts["train"]:
            raise ValueError("train: names no part, so there is nothing to fit on")
        return TrainingSet([self._manifest(part) for part in self.parts["train"]], self._selection)

    def _training_stream(self) -> ShardStream:
        if self.trainer is not None and not isinstance(self.trainer.limit_train_batches, int):
            raise ValueError("limit_train_batches must be a number of batches: with shar the training data never end")
        folders = [self._shard_folder(part) for part in self.parts["train"]]
        return ShardStream(folders, self._utterances, self._selection, **self._batching())

    def _summary(self) -> str:
        return (
            f"training on {', '.join(self.parts['train'])}: {self._training.inventory}; at most {self.num_buckets} buckets, "
            f"{self._batches_in_words()}"
        )

    def _batches_in_words(self) -> str:
        padding, num_batches = expected_padding(
            self._training.durations,
            num_buckets=self.num_buckets,
            max_duration=self.max_duration,
            window_seconds=self.window_seconds,
        )
        return f"about {num_batches} batches, {padding:.1%} padding"

    def _shard_folder(self, part: str) -> Path:
        return Path(part) if "/" in part else Path(self.manifests) / f"{part}-shar"

    def _manifest(self, part: str) -> Manifest:
        if is_manifest(part):
            return Manifest(part)
        return Manifest(Path(self.manifests) / f"{part}{SUFFIX}", root=self.root)

    def _evaluation_loaders(self, stage: str) -> list[DataLoader]:
        rank, world_size = rank_and_world_size()
        return [
            self._loader(
                self._utterances,
                FixedBatches(
                    self._cuts(part, stage),
                    max_duration=self.max_duration,
                    batching=self.evaluation_batching,
                    window_seconds=self.window_seconds,
                    rank=rank,
                    world_size=world_size,
                ),
            )
            for part in self.parts[stage]
        ]

    def _loader(self, dataset: Dataset, sampler: Sampler | None = None) -> DataLoader:
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )


def _change(name: str, before: Any, now: Any) -> str:
    if name == "corpus":
        return "the training utterances have changed"
    return f"{'the number of processes' if name == 'world_size' else name} changed from {before} to {now}"


def _check_range(name: str, value: float, *, at_least: float) -> None:
    if not at_least <= value < float("inf"):
        raise ValueError(f"{name} must be a number of at least {at_least:g}, found {value}")
