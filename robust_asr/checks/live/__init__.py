"""Checks that ask the system itself, on a few utterances, before its numbers are believed."""
