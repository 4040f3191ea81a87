"""Training checkpoints as sealed files: written whole or not at all, every byte checked when read, no pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from robust_asr.checkpoint import KEY, finish
from robust_asr.storage import sealed
from robust_asr.storage.files import clean_leftovers
from robust_asr.storage.parts import not_finite
from robust_asr.text.mistakes import sentence
from robust_asr.text.terminal import say

__all__ = ["SafeCheckpointIO", "clean_leftovers", "find_resumable", "read_metadata"]


class SafeCheckpointIO(CheckpointIO):
    """The plugin through which the Trainer and every strategy save, load and remove checkpoints."""

    def __init__(self) -> None:
        self._folders: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        if storage_options is not None:
            raise ValueError(f"{path}: storage_options are not accepted; a checkpoint is one local file")
        sealed.write(finish(checkpoint), path)
        self._folders.add(Path(path).resolve().parent)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if weights_only is False:
            raise ValueError(f"{path}: weights_only=False would execute what the file names; it is refused")
        # Tensors stay on the CPU whatever map_location says, as in Lightning's own plugin: modules and optimisers copy them to
        # their own device.
        content = sealed.materialize(sealed.read(path))
        for entry in ("state_dict", "current_model_state"):
            broken = not_finite(content.get(entry) or {}, ())
            if broken is not None:
                raise ValueError(f"{path}: its weights {broken} are not finite; no run goes on from them")
        return content

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        path = sealed.local_path(path)
        # ModelCheckpoint reads the names of the files that it removes from the resumed checkpoint, which may be a stranger's.
        if path.resolve().parent not in self._folders or path.is_dir():
            raise ValueError(f"{path}: is not removed; only files in a folder that this run has saved to are")
        path.unlink(missing_ok=True)


def find_resumable(run_dir: str | os.PathLike[str]) -> Path:
    """The most advanced complete checkpoint of a run folder. A line is printed for each damaged one that is passed over.

    Errors: ValueError where there is none.
    """
    folder = sealed.local_path(run_dir) / "checkpoints"
    for path in _most_advanced_first(folder):
        try:
            sealed.verify(path)
        except (OSError, ValueError) as error:
            _passed_over(error)
        else:
            return path
    raise ValueError(f"{folder} holds no complete checkpoint to go on from")


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The plain text and numbers of a checkpoint: to be shown and compared, never to be instantiated.

    Texts, numbers and the entry "robust_asr"; no tensors, no state.
    """
    sealed.verify(path)
    content = sealed.read(path, sealed=False)
    texts = {key: value for key, value in content.items() if isinstance(value, str | int | float)}
    return texts | {key: value for key, value in content.items() if key == KEY}


def _most_advanced_first(folder: Path) -> list[Path]:
    ranked = []
    for path in folder.glob("*.ckpt"):
        try:
            # Ranked by the steps made, not by the time of the file: a copied run folder has new times.
            step = sealed.read(path, sealed=False).get("global_step")
            step = step if isinstance(step, int) else -1
            # Of two checkpoints of one step last.ckpt was written later, and holds the average and the schedule of the epoch.
            ranked.append((step, path.name == "last.ckpt", path.stat().st_mtime_ns, path))
        except (OSError, ValueError) as error:
            _passed_over(error)
    return [path for *_, path in sorted(ranked, reverse=True)]


@rank_zero_only
def _passed_over(error: Exception) -> None:
    say(f"passed over: {sentence(error)}")
