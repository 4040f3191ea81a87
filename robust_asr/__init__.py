"""Speech recognisers that survive adversarial attacks: models, attacks, defences, and honest evaluation.

This package needs torch, but never Lightning, lhotse or wandb: loops over data are in ``lightning_modules``, data sets in
``datamodules``. README.md in this folder says what each subpackage holds.
"""
