"""The loggers of a run: the record in its folder, and the view on W&B."""

from lightning_modules.loggers.csv_logger import RunCSVLogger
from lightning_modules.loggers.metrics_file import read_metrics
from lightning_modules.loggers.wandb_logger import RunWandbLogger, check_run_id, wandb_run_id

__all__ = ["RunCSVLogger", "RunWandbLogger", "check_run_id", "read_metrics", "wandb_run_id"]
