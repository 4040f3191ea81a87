"""Recognisers: one architecture a file."""
