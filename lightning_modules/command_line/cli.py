"""The command line: ``python train.py fit | validate | test | predict``."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentError, Namespace
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import nn

from lightning_modules.callbacks.checkpoint_io import SafeCheckpointIO, clean_leftovers, find_resumable
from lightning_modules.callbacks.checkpoints import Checkpoints
from lightning_modules.callbacks.first_epoch import FirstEpoch
from lightning_modules.callbacks.plateau import PlateauSteps
from lightning_modules.callbacks.preemption import Preemption, StoppedEvaluation
from lightning_modules.callbacks.progress import RunProgress
from lightning_modules.callbacks.rank_watch import RankWatch
from lightning_modules.callbacks.resumed_settings import ResumedSettings
from lightning_modules.callbacks.rewind import RewindLoggers
from lightning_modules.callbacks.training_state import check_training_state
from lightning_modules.command_line.config_guard import check_arguments, guarded_imports
from lightning_modules.command_line.expansion import at_home, expand
from lightning_modules.command_line.machine import check_machine
from lightning_modules.command_line.messages import in_one_sentence, silence
from lightning_modules.command_line.reach import check_reach
from lightning_modules.command_line.run_folder import CHECKPOINTS, RunConfig, is_first_process, refuse_used
from lightning_modules.command_line.run_lock import run_lock
from lightning_modules.command_line.sweep import in_sweep
from lightning_modules.command_line.written import without_tilde
from lightning_modules.evaluation import Evaluation
from lightning_modules.loggers import RunCSVLogger, RunWandbLogger, wandb_run_id
from lightning_modules.recognition import Recognition
from lightning_modules.trainer_internals import is_restoring
from robust_asr.checkpoint import load_weights
from robust_asr.models.base import Recognizer
from robust_asr.text.mistakes import leave
from robust_asr.text.terminal import guard_terminal, say


class RobustCLI(LightningCLI):
    """LightningCLI with a run folder, safe checkpoints and class paths that pass the allowlist.

    No checkpoint changes the configuration. ``--ckpt_path last`` goes on with the run of ``--run_dir``; ``auto`` too,
    and starts it where it has no checkpoint yet.
    """

    _start_over = False

    def __init__(self, args: list[str] | None = None) -> None:
        # The constructor runs the subcommand: what is held here is held as long as it runs.
        with ExitStack() as self._held:
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
            "--resume_epoch",
            type=Literal["exact", "restart"],
            default="exact",
            help="Where a checkpoint is of the middle of an epoch: go on there, or begin the epoch anew.",
        )
        parser.add_argument(
            "--allow_module", nargs="+", type=str, default=[], help="Packages of your own that configurations may name."
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(Checkpoints, "checkpoint")
        parser.link_arguments("run_dir", "trainer.default_root_dir")
        for argument, computed in (("sample_rate", sample_rate), ("window_seconds", window_seconds)):
            parser.link_arguments("model", f"data.init_args.{argument}", compute_fn=computed, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = _without_tilde(parser.parse_args(args))
        self._share_seed()
        # A package is opened on the command line only, and the resolved configuration will be a file.
        self.settings.allow_module = []

    def _share_seed(self) -> None:
        """One seed for the model and the data. (jsonargparse cannot link into a model whose recogniser is loaded by a function.)"""
        seed = self.settings.seed_everything
        if seed < 0:
            raise ValueError(f"seed_everything must be 0 or more, found {seed}")
        for name in ("model", "data"):
            arguments = self.settings[name].get("init_args") or {}
            if "seed" in arguments:
                if arguments["seed"] not in (0, seed):
                    raise ValueError(
                        f"{name}.init_args.seed is {arguments['seed']}; set seed_everything, it seeds both"
                    )
                arguments["seed"] = seed

    def _parse_ckpt_path(self) -> None:
        """Lightning takes settings and class names from the checkpoint here; this project takes none."""

    def before_instantiate_classes(self) -> None:
        check_reach(self.settings.trainer, run_dir=self.run_dir)
        check_machine(self.settings.trainer, data=self.settings.data.class_path)
        writes = self.subcommand in ("fit", "test", "predict") and not self.settings.trainer.fast_dev_run
        if writes and is_first_process():
            self._held.enter_context(run_lock(self.run_dir))
        if self.subcommand == "fit":
            self._prepare_run_folder()

    def _prepare_run_folder(self) -> None:
        if self.settings.ckpt_path == "auto":
            # Where all checkpoints are damaged find_resumable says so: no run is started over without being asked to.
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

    def before_fit(self) -> None:
        """A module that steps its optimisers itself is not given settings that would do nothing; a resume has a state to go on."""
        if self.settings.ckpt_path is not None:
            check_training_state(str(self.settings.ckpt_path), self.trainer.fit_loop.state_dict())
        trainer = self.settings.trainer
        automatic = {
            "optimizer": self.settings.get("optimizer"),
            "lr_scheduler": self.settings.get("lr_scheduler"),
            "trainer.gradient_clip_val": trainer.gradient_clip_val,
            "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
        }
        given = [name for name, value in automatic.items() if value]
        if given and not self.model.automatic_optimization:
            raise ValueError(
                f"{given[0]}: {type(self.model).__name__} steps its optimisers itself and takes its settings as arguments of its "
                "own; leave it out"
            )

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
            if not is_restoring(self.trainer) or str(self.settings.ckpt_path) in str(error):
                raise
            raise ValueError(
                f"{self.settings.ckpt_path}: its training state cannot be restored ({type(error).__name__}: {error})"
            ) from error

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
        """The user's trainer, and what every run has besides: the run folder's logger, callbacks and safe checkpoints."""
        settings = self._get(self.config_init, "trainer")
        callbacks = _as_list(settings.get("callbacks"))
        watch = RankWatch()
        try:
            trainer = super().instantiate_trainer(
                # The first to hear of an exception.
                callbacks=[watch, *callbacks, *self._progress(settings, callbacks), *self._own_callbacks()],
                logger=self._loggers(settings.get("logger")),
                plugins=[*_as_list(settings.get("plugins")), SafeCheckpointIO()],
                **{"enable_checkpointing": True} if self.subcommand == "fit" else {},
                **kwargs,
            )
        except TypeError as error:
            # Lightning's word for a number of devices that the accelerator does not take.
            raise ValueError(f"trainer: {error}") from error
        watch.attach(trainer)
        return trainer

    def _own_callbacks(self) -> list[Callback]:
        """Those that any module needs; what only a module with a recogniser needs, it asks for in ``configure_callbacks``.

        Lightning adds ``RunConfig`` at the end, and moves those that save behind all others, in this order.
        """
        if self.subcommand != "fit":
            return [StoppedEvaluation()]
        return [
            ResumedSettings(restart_epoch=self.settings.resume_epoch == "restart"),
            FirstEpoch(),
            RewindLoggers(),
            LearningRateMonitor("step"),
            Preemption(),
            PlateauSteps(),
            *self.config_init.fit.checkpoint.callbacks(self.run_dir / CHECKPOINTS),
        ]

    def _progress(self, settings: Any, callbacks: list[Callback]) -> list[Callback]:
        asked = settings.get("enable_progress_bar") is not False
        return [RunProgress()] if asked and not any(isinstance(own, ProgressBar) for own in callbacks) else []

    def _loggers(self, configured: Any) -> list[Logger]:
        """The record in the run folder, and whatever view was configured beside it."""
        views = [view for view in _as_list(configured) if isinstance(view, Logger)]
        disabled = [view for view in views if isinstance(view, RunWandbLogger) and view.mode == "disabled"]
        loggers = [view for view in views if not isinstance(view, RunCSVLogger) and view not in disabled]
        for logger in loggers:
            if isinstance(logger, RunWandbLogger):
                logger.attach(self.run_dir, wandb_run_id(self.run_dir))
        return [RunCSVLogger(str(self.run_dir)), *loggers] if self.subcommand == "fit" else loggers

    @staticmethod
    def configure_optimizers(
        lightning_module: pl.LightningModule, optimizer: torch.optim.Optimizer, lr_scheduler: Any = None
    ) -> Any:
        configured = LightningCLI.configure_optimizers(lightning_module, optimizer, lr_scheduler)
        rates = getattr(lightning_module, "rates", [])
        if rates and lr_scheduler is not None:
            raise ValueError("lr_scheduler: scales the one rate of the optimizer; leave it out, or model.denoiser_lr")
        for module, rate in rates:
            use_rate(optimizer, module, rate)
        if isinstance(configured, tuple):
            interval = getattr(lightning_module, "lr_interval", "epoch")
            configured = {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler, "interval": interval}}
        return configured


def use_rate(optimizer: torch.optim.Optimizer, module: nn.Module, rate: float) -> None:
    """Give the parameters of a module, which the optimiser holds, a group with a learning rate of its own."""
    own = {id(parameter) for parameter in module.parameters()}
    taken = []
    for group in optimizer.param_groups:
        taken += [parameter for parameter in group["params"] if id(parameter) in own]
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
    optimizer.add_param_group({"params": taken, "lr": rate})


def sample_rate(model: pl.LightningModule) -> int:
    """What a module wants its data resampled to. ValueError where it does not say."""
    if not hasattr(model, "sample_rate"):
        raise ValueError(
            f"model: {type(model).__name__} has no attribute sample_rate, to which its data would be resampled"
        )
    return model.sample_rate


def window_seconds(model: pl.LightningModule) -> float:
    """What the shortest utterance costs the recognisers of a module in memory: the longest of their windows."""
    one_sample = torch.ones(1, dtype=torch.long)
    recognizers = [layer for layer in model.modules() if isinstance(layer, Recognizer)]
    return max((float(layer.window(one_sample)) / layer.sample_rate for layer in recognizers), default=0.0)


def _without_tilde(setting: Any) -> Any:
    """Settings whose paths begin with a folder and no ``~``."""
    if isinstance(setting, str):
        return without_tilde(setting)
    if isinstance(setting, list | tuple):
        return type(setting)(map(_without_tilde, setting))
    if isinstance(setting, dict | Namespace):
        for name, value in list(vars(setting).items() if isinstance(setting, Namespace) else setting.items()):
            setting[name] = _without_tilde(value)
    return setting


def _as_list(setting: Any) -> list[Any]:
    """One, several or none, as a trainer takes callbacks, loggers and plugins."""
    if setting is None:
        return []
    return list(setting) if isinstance(setting, list | tuple) else [setting]


def main(args: list[str] | None = None) -> None:
    """Run the command line. A user's mistake ends with one sentence and exit code 2."""
    arguments = sys.argv[1:] if args is None else args
    guard_terminal()
    silence()
    try:
        # The files as they are, then what they become: expand looks at that itself.
        arguments = list(map(at_home, arguments))
        check_arguments(arguments)
        arguments = in_sweep(expand(arguments))
        with guarded_imports():
            RobustCLI(arguments)
    except SIGTERMException:
        # A SystemExit with code 0, by which Lightning ends a validation.
        say("stopped by SIGTERM", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        say("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (ArgumentError, ValueError, OSError, FloatingPointError, MisconfigurationException) as error:
        if os.environ.get("ROBUST_ASR_TRACEBACK"):
            raise
        leave(error if isinstance(error, OSError) else in_one_sentence(str(error)))
