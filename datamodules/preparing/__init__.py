"""From folders of audio to manifests: what ``python -m datamodules.prepare`` is made of."""
