"""Attacks: values that take a recogniser and a batch and return waveforms that are checked against their threat model."""
