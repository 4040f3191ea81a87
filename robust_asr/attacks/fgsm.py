"""Fast gradient sign method (Goodfellow et al. 2015)."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

from torch import Tensor

from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.expectation import Precision
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.attacks.steps import Constant
from robust_asr.models.base import Knowledge, Recognizer
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import Linf
from robust_asr.types import AudioBatch, Targets


@dataclass(frozen=True)
class FGSM(Attack):
    """x + sign * eps * sign(gradient), within [-1, 1]: PGD with a single step as long as the radius (Joshi et al. 2022).

    Attributes: as in ``PGD``.
    """

    threat: Linf
    _: KW_ONLY
    goal: Goal = field(default_factory=Untargeted)
    num_draws: int = 1
    max_samples: int | None = None
    precision: Precision = "32-true"
    knowledge: Knowledge = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.threat, Linf):
            raise ValueError(f"threat must be Linf, found {self.threat}")
        self._pgd()

    @property
    def name(self) -> str:
        return self._pgd().name.replace("PGD-1", "FGSM", 1)

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        return self._pgd().perturb(recognizer, batch, targets, seeds=seeds, partial=partial)

    def _pgd(self) -> PaperPGD:
        return PaperPGD(
            self.threat,
            goal=self.goal,
            num_iterations=1,
            steps=Constant(1.0),
            num_draws=self.num_draws,
            max_samples=self.max_samples,
            precision=self.precision,
            knowledge=self.knowledge,
        )
