"""How far loggers, callbacks and profilers of a configuration reach: they write into the run folder, and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from robust_asr.storage import trust

# The arguments of Lightning's classes that may differ from their defaults. None: all. What is missing here takes functions, or
# is handed on to a library that this project does not know.
_ACCEPTED: dict[str, str | None] = {
    "AdvancedProfiler": "dirpath filename line_count_restriction dump_stats",
    "CSVLogger": "save_dir name version prefix flush_logs_every_n_steps",
    "DeviceStatsMonitor": None,
    "EMAWeightAveraging": "device use_buffers decay update_every_n_steps update_starting_at_step update_starting_at_epoch",
    "EarlyStopping": None,
    "GradientAccumulationScheduler": None,
    "LearningRateMonitor": None,
    "ModelCheckpoint": None,
    "ModelSummary": "max_depth",
    "PassThroughProfiler": "dirpath filename",
    "PyTorchProfiler": "dirpath filename group_by_input_shapes emit_nvtx export_to_chrome row_limit sort_by_key "
    "record_module_names",
    "RichModelSummary": "max_depth",
    "RichProgressBar": "refresh_rate leave theme",
    "RichProgressBarTheme": None,
    "SimpleProfiler": "dirpath filename extended",
    "StochasticWeightAveraging": "swa_lrs swa_epoch_start annealing_epochs annealing_strategy device",
    "TQDMProgressBar": None,
    "TensorBoardLogger": "save_dir name version log_graph default_hp_metric prefix sub_dir",
    "Timer": None,
    "WeightAveraging": "device use_buffers",
}
# Callbacks of this project that a configuration names; the others are part of every run and take its files as arguments.
_OURS = ("LastEpochsAveraging", "CatastrophicOverfitting", "RunProgress", "DashboardSamples", "Throughput")
_FOLDERS = ("dirpath", "save_dir")
_NAMES = ("filename", "name", "version", "sub_dir")


def check_reach(trainer: Any, *, run_dir: Path) -> None:
    """ValueError names the class or the argument of ``trainer.logger``, ``callbacks`` or ``profiler`` that is refused.

    Classes of packages that ``--allow_module`` opened are the user's own and may do what they want.

    Args:
        trainer: the parsed settings of the trainer, before their objects are built.
    """
    for field, given in _objects(trainer):
        name = given.class_path
        trust.check_name(name, field=f"{field}.class_path")
        kind = trust.resolve(name, field=f"{field}.class_path")
        defined = f"{kind.__module__}.{kind.__qualname__}"
        arguments = {**_plain(given.get("init_args")), **_plain(given.get("dict_kwargs"))}
        if defined in trust.LIGHTNING:
            _check_arguments(kind, arguments, field=field, run_dir=run_dir)
        elif defined.startswith("lightning_modules.callbacks.") and kind.__name__ not in _OURS:
            raise ValueError(
                f"{field}: {name} is part of every run and not named in a configuration; accepted are {', '.join(_OURS)}"
            )


def _objects(trainer: Any) -> Iterator[tuple[str, Any]]:
    for name in ("logger", "callbacks", "profiler"):
        setting = trainer.get(name)
        several = isinstance(setting, list | tuple)
        for index, given in enumerate(setting if several else [setting]):
            if hasattr(given, "class_path"):
                yield f"trainer.{name}[{index}]" if several else f"trainer.{name}", given


def _plain(arguments: Any) -> dict[str, Any]:
    return dict(vars(arguments)) if hasattr(arguments, "__dict__") else dict(arguments or {})


def _check_arguments(kind: type, arguments: dict[str, Any], *, field: str, run_dir: Path) -> None:
    accepted = _ACCEPTED[kind.__name__]
    defaults = {name: one.default for name, one in inspect.signature(kind).parameters.items()}
    for name, value in arguments.items():
        if value is None or (name in defaults and value == defaults[name] and name not in _FOLDERS):
            continue
        if accepted is not None and name not in accepted.split():
            raise ValueError(
                f"{field}.{name}: is no argument that a configuration may give to {kind.__name__}; accepted are "
                f"{', '.join(accepted.split())}"
            )
        if name in _FOLDERS and not _inside(Path(str(value)), run_dir):
            raise ValueError(
                f"{field}.{name}: {value} lies outside the run folder {run_dir}; {kind.__name__} may write below it"
            )
        if name in _NAMES and not _stays(str(value)):
            raise ValueError(f"{field}.{name}: {value} must be a name, without '..' and no absolute path")
    if kind.__name__ == "CSVLogger" and not arguments.get("name") and arguments.get("version") == "":
        raise ValueError(
            f"{field}: CSVLogger without name and version would write over metrics.csv of the run; give it a name"
        )


def _inside(path: Path, run_dir: Path) -> bool:
    return "://" not in str(path) and path.resolve().is_relative_to(run_dir.resolve())


def _stays(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
