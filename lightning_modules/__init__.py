"""Training and evaluation loops: one objective or loop a file."""
