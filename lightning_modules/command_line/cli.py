"""The command line: ``python train.py fit | validate | test | predict``."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentError
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger

from lightning_modules.callbacks.checkpoint_io import SafeCheckpointIO, clean_leftovers, find_resumable
from lightning_modules.callbacks.checkpoints import Checkpoints
from lightning_modules.callbacks.preemption import Preemption
from lightning_modules.callbacks.rewind import RewindLoggers
from lightning_modules.callbacks.samples import DashboardSamples, Throughput
from lightning_modules.command_line.config_guard import check_arguments, guarded_imports
from lightning_modules.command_line.expansion import expand
from lightning_modules.command_line.run_folder import CHECKPOINTS, RunConfig, is_first_process, refuse_used
from lightning_modules.evaluation import Evaluation
from lightning_modules.loggers import RunCSVLogger, RunWandbLogger, wandb_run_id
from lightning_modules.recognition import Recognition
from robust_asr.checkpoint import load_weights


class RobustCLI(LightningCLI):
    """LightningCLI with a run folder, safe checkpoints and class paths that pass the allowlist.

    Nothing from a checkpoint enters the configuration. ``--ckpt_path last`` goes on with the run of ``--run_dir``; ``auto`` too,
    and starts it where it has no checkpoint yet.
    """

    _start_over = False

    def __init__(self, args: list[str] | None = None) -> None:
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunConfig,
            seed_everything_default=0,
            trainer_defaults={
                # Lightning would wrap lhotse's sampler, and forbid input gradients in evaluation (ecosystem: #14497).
                "use_distributed_sampler": False,
                "inference_mode": False,
                "num_sanity_val_steps": 0,
            },
            load_from_checkpoint_support=False,
            args=args,
        )

    @property
    def settings(self) -> Any:
        """The parsed settings of the subcommand."""
        return self.config[self.config.subcommand]

    @property
    def run_dir(self) -> Path:
        return Path(self.settings.run_dir)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        # An error is raised, not printed below three screens of usage; settings from PL_* variables would be in no run folder.
        return super().init_parser(exit_on_error=False, default_env=False, **kwargs)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.epilog = "--values FILE and --value NAME=VALUE go over the values of a recipe: recipes/README.md."
        parser.add_argument("--seed_everything", type=int, default=0, help="Keys every random draw of the run.")
        parser.add_argument("--run_dir", type=str, default="runs/default", help="Folder that the run writes into.")
        parser.add_argument(
            "--allow_module", nargs="+", type=str, default=[], help="Packages of your own that configurations may name."
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(Checkpoints, "checkpoint")
        parser.link_arguments("run_dir", "trainer.default_root_dir")
        parser.link_arguments(
            "model",
            "data.init_args.sample_rate",
            compute_fn=lambda model: model.sample_rate,
            apply_on="instantiate",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)
        self._share_seed()
        # Opened on the command line and nowhere else: a resolved configuration is a file too.
        self.settings.allow_module = []

    def _share_seed(self) -> None:
        """One seed for the model and the data. (jsonargparse cannot link into a model whose recogniser is loaded by a function.)"""
        seed = self.settings.seed_everything
        if seed < 0:
            raise ValueError(f"seed_everything must be 0 or more, got {seed}")
        for name in ("model", "data"):
            arguments = self.settings[name].get("init_args") or {}
            if "seed" in arguments:
                if arguments["seed"] not in (0, seed):
                    raise ValueError(
                        f"{name}.init_args.seed is {arguments['seed']}; set seed_everything, it seeds both"
                    )
                arguments["seed"] = seed

    def _parse_ckpt_path(self) -> None:
        """Lightning takes settings, and class names, from the checkpoint here. We take nothing."""

    def before_instantiate_classes(self) -> None:
        if self.subcommand == "fit":
            self._prepare_run_folder()

    def _prepare_run_folder(self) -> None:
        if self.settings.ckpt_path == "auto":
            # Where there are only damaged ones, find_resumable says so: a run is never started over by itself.
            under_way = any((self.run_dir / CHECKPOINTS).glob("*.ckpt"))
            self.settings.ckpt_path = "last" if under_way else None
            self._start_over = not under_way
        resume = self.settings.ckpt_path is not None
        if not (resume or self._start_over or self.settings.trainer.fast_dev_run) and is_first_process():
            refuse_used(self.run_dir)
        if self.settings.ckpt_path == "last":
            self.settings.ckpt_path = str(find_resumable(self.run_dir))
        if resume and is_first_process():
            clean_leftovers(self.run_dir / CHECKPOINTS)

    def before_test(self) -> None:
        """A training configuration is tested, too: its recogniser on clean audio, rows in ``<run_dir>/test``."""
        if not isinstance(self.model, Recognition):
            return
        if self.settings.ckpt_path is None:
            raise ValueError("ckpt_path: test of a training configuration needs the checkpoint that it shall test")
        path = self.settings.ckpt_path
        if path in ("last", "best"):
            path = str(self.run_dir / CHECKPOINTS / f"{path}.ckpt")
        recognizer = self.model.recognizer
        load_weights(recognizer, path)
        self.model = Evaluation({self.run_dir.name: recognizer}, seed=self.settings.seed_everything)
        self.model.folder = self.run_dir / "test"
        self.config_init[self.subcommand].ckpt_path = None

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        settings = self._get(self.config_init, "trainer")
        plugins = [*(settings.get("plugins") or []), SafeCheckpointIO()]
        return super().instantiate_trainer(plugins=plugins, logger=self._loggers(settings.get("logger")), **kwargs)

    def _loggers(self, configured: Any) -> list[Logger]:
        """The record in the run folder, and whatever view was configured beside it."""
        views = configured if isinstance(configured, list) else [configured]
        loggers = [view for view in views if isinstance(view, Logger) and not isinstance(view, RunCSVLogger)]
        for logger in loggers:
            if isinstance(logger, RunWandbLogger):
                logger.attach(self.run_dir, wandb_run_id(self.run_dir))
        return [RunCSVLogger(str(self.run_dir)), *loggers] if self.subcommand == "fit" else loggers

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[pl.Callback]) -> pl.Trainer:
        if self.subcommand == "fit":
            # Preemption comes after RewindLoggers: when it saves, the row of the step just made must be known to be missing.
            own = [RewindLoggers(), LearningRateMonitor("step"), Throughput(), DashboardSamples(), Preemption()]
            own += self.config_init.fit.checkpoint.callbacks(self.run_dir / CHECKPOINTS)
            config["enable_checkpointing"] = True
            callbacks = [*callbacks, *own]
        return super()._instantiate_trainer(config, callbacks)

    @staticmethod
    def configure_optimizers(
        lightning_module: pl.LightningModule, optimizer: torch.optim.Optimizer, lr_scheduler: Any = None
    ) -> Any:
        configured = LightningCLI.configure_optimizers(lightning_module, optimizer, lr_scheduler)
        if isinstance(configured, tuple):
            interval = getattr(lightning_module, "lr_interval", "epoch")
            configured = {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler, "interval": interval}}
        return configured


def main(args: list[str] | None = None) -> None:
    """Run the command line. A user's mistake ends with one sentence and exit code 2."""
    arguments = sys.argv[1:] if args is None else args
    _hush()
    try:
        # The files as they are, then what they become: expand looks at that itself.
        check_arguments(arguments)
        arguments = expand(arguments)
        with guarded_imports():
            RobustCLI(arguments)
    except (ArgumentError, ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("ROBUST_ASR_TRACEBACK"):
            raise
        print(f"error: {_sentence(str(error))}", file=sys.stderr)
        sys.exit(2)


def _hush() -> None:
    """Drop what Lightning says at every start or checkpoint, and nobody can act on."""
    said = ("litlogger", "`weights_only` was not set")
    for handler in logging.getLogger("pytorch_lightning").handlers:
        handler.addFilter(lambda record: not any(text in record.getMessage() for text in said))
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    # Predictions are on disk.
    warnings.filterwarnings("ignore", message="predict returned None.*")


def _sentence(message: str) -> str:
    """jsonargparse's list of all types that a value is not, without what says nothing."""
    noise = r"(Subtypes:|Errors:|Given value|- Expected a <class 'NoneType'>|Does not validate against any)"
    lines = [line.strip().removeprefix("- ") for line in message.splitlines() if not re.match(rf"\s*{noise}", line)]
    return " ".join(line for line in lines if line) or message
