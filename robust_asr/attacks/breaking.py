"""The breaking point: for each utterance, the smallest budget at which an attack breaks it.

Legend: B utterances, T samples, K budgets, n utterances that are tried together.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.bracket import Bracket
from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.expectation import Expectation, room_of
from robust_asr.attacks.goals import Goal, WordsWrong
from robust_asr.attacks.settings import require_counts
from robust_asr.models.base import Knowledge, Recognizer
from robust_asr.randomness import Key
from robust_asr.storage.partial import NOWHERE, Partial
from robust_asr.threat import L2, SNR, Ball, Linf
from robust_asr.threat.norms import decibels, euclidean, scaled_to
from robust_asr.threat.shares import OwnShare
from robust_asr.types import AudioBatch, Targets


@dataclass(frozen=True)
class BreakingPoint(Attack):
    """The smallest budget at which an attack makes a share of the words wrong, or reaches its target: by bisection in decibels.

    Each utterance has a bracket of its own, and all are attacked in one batch, each at its own budget. A budget begins with what
    its neighbours left: the perturbation that failed at the next smaller one, scaled up into the ball, and the one that
    succeeded at the next larger one, scaled down into it. If one of the two succeeds, the budget costs no attack; else the attack
    goes on from the better one, if it can. A success at a budget stands for all larger ones.

    Success means enough damage on average over ``comparison_draws`` draws that only this search uses; the verdict of an
    evaluation has other draws, so that it may see an utterance hold by a hair's breadth.

    **The result is an upper bound** on the true breaking point: of the attack, since a failed budget may hide a success below it,
    and of the utterance, since a stronger attack may break it earlier.

    Each row gets ``breaking`` (``Broken``: within the range, or censored at either of its ends), ``breaking_amplitude`` and
    ``breaking_snr_db``: the level of a perturbation that fills the ball, which is eps in the maximum norm and the root mean
    square in the Euclidean norm, and the SNR at this level, the least that the ball allows. So two threat models can be compared.
    Where the utterance is censored, the two are those of the end of the range: the smallest budget, or the largest.
    ``budgets_tried`` is at most log2(K) + 1, rounded up.

    Attributes:
        attack: the attack that is repeated, ``Standard``, ``PGD`` or ``MatchedNoise``, with the largest budget as threat model.
        smallest: the smallest budget, in the unit of the threat model: a small amplitude, or a high SNR.
        resolution_db: the most by which two neighbouring budgets differ.
        share: the share of the words that an untargeted attack makes wrong; ``WordsWrong`` becomes its goal.
        comparison_draws: the draws of a random recogniser on which success is judged.

    Errors: ValueError for an attack without a radius to search, for a range that is none, and what ``attack`` raises.
    """

    attack: Attack
    smallest: float
    _: KW_ONLY
    resolution_db: float = 1.0
    share: float = 0.5
    comparison_draws: int = 8

    def __post_init__(self) -> None:
        _require_radius(self.attack)
        # Checks the share.
        WordsWrong(self.share)
        require_counts(self, "comparison_draws")
        if not 0 < self.smallest < math.inf or self.range_db <= 0:
            kind = "a higher SNR" if isinstance(self.threat, SNR) else "a positive amplitude below it"
            raise ValueError(f"smallest: must be {kind} than {self.threat}, the largest budget, found {self.smallest}")
        if not 0 < self.resolution_db <= self.range_db / 2:
            raise ValueError(
                f"resolution_db must lie in (0, {self.range_db / 2:g}], half of the range from {self.smallest:g} to "
                f"{self.threat}, found {self.resolution_db}"
            )

    @property
    def threat(self) -> Ball:
        return self.attack.threat

    @property
    def goal(self) -> Goal:
        given = self.attack.goal
        return given if given.targeted else WordsWrong(self.share, away_from=getattr(given, "away_from", None))

    @property
    def core(self) -> Attack:
        """The attack at the largest budget."""
        return self.attack.core

    def require(self, recognizer: Recognizer, batch: AudioBatch, *, seeds: Tensor) -> None:
        self.attack.require(recognizer, batch, seeds=seeds)

    @property
    def knowledge(self) -> Knowledge:
        return self.attack.knowledge

    @property
    def needs_targets(self) -> bool:
        return self.attack.needs_targets

    @property
    def has_goal(self) -> bool:
        """Also of noise: it is repeated until the words are wrong."""
        return True

    @property
    def range_db(self) -> float:
        """From the smallest budget to the largest. Units: dB."""
        if isinstance(self.threat, SNR):
            return self.smallest - self.threat.snr_db
        return 20 * math.log10(self.threat.eps / self.smallest)

    @property
    def num_budgets(self) -> int:
        # A range such as 20 log10(1000), 60 dB up to its last bit, has 61 budgets at 1 dB.
        return 1 + math.ceil(self.range_db / self.resolution_db - 1e-9)

    @property
    def name(self) -> str:
        return f"breaking point ({self._broken}): {self.attack.name}"

    def columns(self) -> dict[str, Any]:
        """Those of the attack over the whole range; ``breaking`` says what counts as broken, and marks these rows in tables."""
        given = self.attack.columns()
        span = f"{self.smallest:g} to {given['strength']:g}"
        return {**given, "attack": self.name, "strength": span, "breaking": self._broken}

    @property
    def _broken(self) -> str:
        return "target reached" if self.goal.targeted else f"{100 * self.share:g} % of the words"

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial = NOWHERE
    ) -> Perturbation:
        search = _Search(self, recognizer, batch, targets, seeds)
        search.bracket.take_up(partial.load())
        if search.bracket.turn == 0:
            search.listen()
            partial.keep(search.bracket.state, now=True)
        while len(search.bracket.undecided()):
            search.try_budgets(partial.part(str(search.bracket.turn)))
            partial.keep(search.bracket.state, now=True)
        return search.bracket.perturbation(self._facts(batch, search.bracket))

    def shares(self, budgets: Tensor) -> Tensor:
        """Budgets as shares of the largest radius. Shape: numbers of budgets (n,) -> (n,) float64."""
        step = self.range_db / (self.num_budgets - 1)
        return 10 ** (-(self.num_budgets - 1 - budgets.double()) * step / 20)

    def _facts(self, batch: AudioBatch, bracket: Bracket) -> list[dict[str, Any]]:
        """The fields that only these rows have."""
        lengths = batch.lengths.clamp(min=1).double()
        levels = self.threat.radius(batch).double() * self.shares(bracket.budgets()).to(batch.waveforms.device)
        levels = levels if self.threat.norm == "linf" else levels / lengths.sqrt()
        ratios = decibels(euclidean(batch.waveforms.double()) / lengths.sqrt(), levels)
        rows = zip(bracket.outcomes(), levels.tolist(), ratios.tolist(), bracket.tries.tolist(), strict=True)
        return [
            {
                "breaking": str(outcome),
                "breaking_amplitude": float(f"{level:.6g}"),
                # Silence has no SNR.
                "breaking_snr_db": round(ratio, 4) if math.isfinite(ratio) else None,
                "budgets_tried": tries,
            }
            for outcome, level, ratio, tries in rows
        ]


class _Search:
    """One bisection of a batch. ``ids`` are those of rows: a budget belongs to a row, and two rows may share an id."""

    def __init__(
        self, settings: BreakingPoint, recognizer: Recognizer, batch: AudioBatch, targets: Targets, seeds: Tensor
    ) -> None:
        self.settings, self.recognizer, self.targets, self.seeds = settings, recognizer, targets, seeds
        self.batch = replace(batch, ids=tuple(map(str, range(len(batch)))))
        self.texts = settings.goal.compared(recognizer, batch, seeds=seeds)
        self.bracket = Bracket(batch, settings.num_budgets)

    def listen(self) -> None:
        """Which utterances are broken as they are."""
        everyone = torch.arange(len(self.batch))
        self.bracket.unperturbed(self._reached(everyone, self.batch.waveforms)[1])
        self.bracket.turn += 1

    def try_budgets(self, partial: Partial) -> None:
        """One budget for each utterance that is not decided."""
        rows = self.bracket.undecided()
        threat = self._threat(rows)
        starts, reached = self._from_neighbours(rows, threat)
        self.bracket.enter(rows[reached], starts[reached.to(starts.device)], reached[reached])
        rows, starts = rows[~reached], starts[~reached.to(starts.device)]
        if len(rows):
            found = self._attacked(rows, threat, starts, partial)
            self.bracket.enter(rows, found, self._reached(rows, found)[1])
        self.bracket.turn += 1

    def _attacked(self, rows: Tensor, threat: OwnShare, starts: Tensor, partial: Partial) -> Tensor:
        """The result of the attack at the present budgets, verified. Shape: rows (n,), starts (n, T) -> (n, t)."""
        attack, part = self._attack(threat), self.batch.select(rows)
        size = part.waveforms.shape[1]
        begun = {"start": starts[:, :size] - part.waveforms} if attack.takes_start else {}
        targets = None if self.targets is None else self.targets.select(rows)
        made = attack.perturb(self.recognizer, part, targets, seeds=self.seeds[rows], partial=partial, **begun)
        attack.verify(made.waveforms.to(part.waveforms), part)
        self.bracket.account(rows, made)
        return made.waveforms.detach().to(part.waveforms)

    def _from_neighbours(self, rows: Tensor, threat: OwnShare) -> tuple[Tensor, Tensor]:
        """The better of the neighbours' perturbations for each utterance, and whether it succeeds at the present budget.

        Shape: rows (n,) -> audio (n, T), the audio itself where there is no neighbour; (n,) bool.
        """
        best = self.batch.waveforms[rows.to(self.batch.waveforms.device)]
        damage, reached = torch.full((len(rows),), -torch.inf, dtype=torch.float64), torch.zeros(len(rows)).bool()
        if not self.settings.attack.takes_start:
            # Noise at another budget is the same noise: it is its own neighbour.
            return best, reached
        for there, audio in self.bracket.neighbours(rows):
            # Where the smaller neighbour has succeeded, the larger one is not listened to.
            chosen = (there & ~reached).nonzero()[:, 0]
            if not len(chosen):
                continue
            part = self.batch.select(rows[chosen])
            size = part.waveforms.shape[1]
            delta = audio[chosen.to(audio.device), :size] - part.waveforms
            scaled = part.waveforms + threat.project(scaled_to(delta, threat.radius(part), norm=threat.norm), part)
            found, enough = self._reached(rows[chosen], scaled)
            better = found > damage[chosen]
            best[chosen[better].to(best.device), :size] = scaled[better.to(scaled.device)]
            damage[chosen[better]], reached[chosen] = found[better], enough
        return best, reached

    def _reached(self, rows: Tensor, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """The mean damage to the transcripts, and whether it is enough. Shape: rows (n,), (n, t) -> (n,) float64, (n,) bool."""
        goal, part = self.settings.goal, self.batch.select(rows)
        texts = [self.texts[row] for row in rows.tolist()]
        work = Workload.whole(part, self.targets and self.targets.select(rows), texts, seeds=self.seeds[rows])
        measure = Expectation(
            self.recognizer,
            work,
            num_draws=self.settings.comparison_draws,
            max_samples=room_of(self.recognizer, part),
        )
        draws = measure.transcripts(waveforms, step=Key.BREAKING)
        self.bracket.forwards[rows] += measure.num_draws
        counts = [[goal.damage(*pair) for pair in zip(texts, heard, strict=True)] for heard in draws]
        damage = torch.tensor(counts, dtype=torch.float64).mean(0)
        enough = torch.tensor([goal.most_damage(text) for text in texts], dtype=torch.float64)
        return damage, damage >= enough

    def _threat(self, rows: Tensor) -> OwnShare:
        shares = self.settings.shares(self.bracket.middle(rows))
        return OwnShare(self.settings.threat, dict(zip(map(str, rows.tolist()), shares.tolist(), strict=True)))

    def _attack(self, threat: OwnShare) -> Attack:
        """The attack at the present budgets. Noise has no goal that could be set."""
        attack = self.settings.attack
        aims = any(field.name == "goal" for field in fields(attack))
        return replace(attack, threat=threat, **({"goal": self.settings.goal} if aims else {}))


def _require_radius(attack: object) -> None:
    """An attack whose radius can be searched, by an attacker who knows the whole system."""
    if not isinstance(attack, Attack):
        raise ValueError(f"attack must be an attack such as {{Standard: {{Linf: 0.1}}}}, found {attack!r}")
    named = is_dataclass(attack) and any(field.name == "threat" for field in fields(attack))
    threat = attack.threat
    if not named or not isinstance(threat, Linf | L2 | SNR) or getattr(threat, "eps", 1.0) <= 0:
        raise ValueError(
            f"attack: its threat model must be Linf, L2 or SNR with a radius to search, found {threat} of {attack.name}"
        )
    try:
        replace(attack, threat=OwnShare(threat, {}))
    except ValueError as error:
        raise ValueError(
            f"attack: {attack.name} takes no budget of its own for each utterance: use Standard, PGD or MatchedNoise"
        ) from error
    if attack.knowledge != "exact":
        raise ValueError(
            f"attack: its knowledge must be exact, found {attack.knowledge}: a point where another system breaks says "
            "nothing of this one"
        )
