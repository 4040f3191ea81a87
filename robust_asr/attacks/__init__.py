"""Attacks: frozen dataclasses whose fields are their whole configuration; the recogniser is an argument of the call.

``base`` holds the public calls: ``generate`` makes audio and checks it against the threat model, ``verdict`` lets a recogniser
judge that audio on random draws that the attack never saw. ``standard`` holds the attack for those who do not want to tune
one, ``breaking`` the search for the smallest budget at which an attack breaks each utterance.
``pgd``, ``fgsm``, ``cw``, ``imperceptible``, ``square``, ``noise``, ``offline`` and ``saved`` each hold one attack.

The other modules are parts that several attacks share: goals and phrases; what is raised (``objectives``, and ``aims`` for given
utterances) and how far an iteration goes (``steps``); what their fields accept (``settings``); averages over random draws
(``expectation``), the comparison of perturbations on common draws (``comparison``), early stopping (``compaction``), Adam on
perturbations (``descent``), attacks that can be members of an ensemble (``scored``, ``members``) and their ranking (``contest``),
budgets that fail and succeed (``bracket``), masking thresholds.

What depends on the batch: an utterance is masked, seeded and attacked by itself, but sums in another shape are rounded otherwise,
and signs of gradients near zero amplify that. In two batches the same attack makes perturbations that differ by up to half of
their norm after 20 iterations, and does the same damage: the errors of 23 of 24 utterances were equal. In one batch every result
is exact and repeatable.
"""
