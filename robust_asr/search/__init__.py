"""From emissions to words."""
