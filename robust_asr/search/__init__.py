"""Search: from what a recogniser computes to the text that it hears."""
