"""Live checks: they run a system and an attack on a few utterances before the evaluation, to find faults that falsify results.

``system`` puts the checks together: ``probes`` tests the gradient, ``draws`` the randomness, ``passage`` the defences, the
padding and the rounding of saved audio, ``states`` whether an attack changes the model. ``evaluation`` runs them for every
system and condition of an evaluation and saves the verdicts in the run folder. Checks of finished rows are in ``checks.rows``.
"""
