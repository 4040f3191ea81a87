"""Attacks: frozen dataclasses whose fields are their whole configuration; the recogniser is an argument of the call.

``base`` holds the public calls: ``generate`` makes audio and checks it against the threat model, ``verdict`` lets a recogniser
judge that audio on random draws that the attack never saw. ``pgd``, ``fgsm``, ``cw``, ``imperceptible``, ``noise``, ``offline``
and ``saved`` each hold one attack. The other modules are parts that several attacks share: goals and phrases, averages over
random draws (``expectation``), early stopping (``compaction``), Adam on perturbations (``descent``), masking thresholds.
"""
