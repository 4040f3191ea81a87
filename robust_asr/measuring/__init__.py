"""What an evaluation measures: systems and conditions as plain data, rows of utterances, the audio worth keeping."""
