"""What a point of accuracy costs in passes through the network."""

from __future__ import annotations

from pydantic import Field

from robust.claims.accuracy_gap import beyond
from robust.claims.bounds import mean_of
from robust.claims.claim import Evidence, Judgement, Verdict
from robust.claims.evidence import Absent, Evaluation, Evaluations, Group, attack_words, paired, passes, right
from robust.claims.quantity import Quantity
from robust.claims.weighed import Compared, tempered
from robust.claims.words import between_points, counted, number, points
from robust.seeds import Difference, difference


class Cost(Compared):
    """A group of networks buys accuracy at no more than so many passes per sample for each point.

    The effect is (passes of `group` - passes of `than`) / (points of accuracy gained under `under`), passes being
    forward and backward passes per sample under `paid_under` (clean: what a prediction costs), or the quantity
    `passes`, if a diagnostic measured it. Fails without a gain, or above `at_most`; holds if the gain exceeds 0 beyond
    both variations; partly otherwise. Its interval is that of the gain, turned round.
    """

    name = "cost"
    family = "cost"
    source = "Efron 1979, Annals of Statistics 7(1); Welch 1947, Biometrika 34"

    group: Group = Field(description="the group that costs more")
    than: Group = Field(description="the group that it is compared with")
    under: Evaluations = Field(description="where accuracy is gained; of several evaluations, their worst case")
    paid_under: Evaluation = Field(default="clean", description="the evaluation whose passes are the price")
    passes: Quantity | None = Field(default=None, description="a measured price instead, such as passes per step")
    at_most: float = Field(gt=0, description="passes per sample that a point may cost")

    def weigh(self, evidence: Evidence) -> Judgement:
        """Passes per sample and point gained."""
        groups = (self.group, self.than)
        self.gate(evidence, groups)
        tables = [right(evidence, group, self.under) for group in groups]
        gain = difference(*paired(*tables))
        prices = [self._price(evidence, group) for group in groups]
        extra, effect = prices[0] - prices[1], 100 * gain.effect
        price = extra / effect if effect > 0 else None
        verdict = self._verdict(gain, price)
        each = f"{number(price)} passes a point" if price is not None else "no price, for nothing was gained"
        reason = (
            f"{self.group} needs {number(prices[0])} passes a sample and {self.than} {number(prices[1])}, and changes "
            f"accuracy by {points(gain.effect)} (over samples {between_points(gain.samples)}, over seeds "
            f"{between_points(gain.seeds)}): {each}, against the {self.at_most:g} claimed."
        )
        judgement = Judgement(
            verdict=verdict,
            reason=reason,
            effect=price,
            low=extra / (100 * gain.samples.high) if price is not None and extra >= 0 else None,
            high=extra / (100 * gain.samples.low) if gain.samples.low > 0 and extra >= 0 else None,
            unit="passes a point",
            attack=attack_words(evidence, self.under),
            seeds=min(len(table) for table in tables),
            cost=passes(evidence, groups, self.under),
            rows=[
                {"group": group, "passes": cost, "accuracy": float(table.to_numpy().mean()),
                 "seeds": counted(len(table), "seed")}
                for group, cost, table in zip(groups, prices, tables)
            ],
        )  # fmt: skip
        return tempered(judgement, evidence, groups, self.under)

    def _price(self, evidence: Evidence, group: str) -> float:
        if self.passes is not None:
            return mean_of(self.passes.values(evidence, group).tolist()).estimate
        right(evidence, group, [self.paid_under])  # says so where it is absent
        found = passes(evidence, [group], [self.paid_under])
        if found <= 0:
            raise Absent(f"no passes were counted for {group} under {self.paid_under}")
        return found

    def _verdict(self, gain: Difference, price: float | None) -> Verdict:
        if price is None or price > self.at_most:
            return "fails"
        return beyond(gain.effect, gain.samples.low, gain.seeds.low if gain.seeds else None, 0.0)
