"""Attacks: frozen dataclasses whose fields are their whole configuration; the recogniser is an argument of the call.

``base`` holds the public calls: ``generate`` makes audio and checks it against the threat model, ``verdict`` lets a recogniser
judge that audio on random draws that the attack never saw. ``standard`` holds the attack for those who do not want to tune
one, ``breaking`` the search for the smallest budget at which an attack breaks each utterance.
``pgd``, ``fgsm``, ``cw``, ``imperceptible``, ``square``, ``noise``, ``offline`` and ``saved`` each hold one attack.

The other modules are parts that several attacks share: goals and phrases; what is raised (``objectives``) and how far an
iteration goes (``steps``); averages over random draws (``expectation``), the comparison of perturbations on common draws
(``comparison``), early stopping (``compaction``), Adam on perturbations (``descent``), the members of an ensemble (``contest``),
budgets that fail and succeed (``bracket``), masking thresholds.
"""
