"""Defences: transformations of the audio before a recogniser, which with them is a recogniser again."""
