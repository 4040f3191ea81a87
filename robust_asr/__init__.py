"""Speech recognisers that survive adversarial attacks: models, attacks, defences, and honest evaluation.

This package imports torch and mathematics only. Training lives in ``lightning_modules``, data in ``datamodules``.
"""
