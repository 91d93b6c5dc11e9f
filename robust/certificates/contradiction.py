"""Contradictions: an attack that succeeded inside a certificate. One of the two is wrong, and no number stands."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from robust.threat import ThreatModel

# a ball of one norm lies inside the ball of equal radius of every norm further left
_WIDEST_FIRST = ("linf", "l2", "l1")
_PLACE = ["model", "seed", "sample"]


class Contradiction(RuntimeError):  # noqa: N818 - a finding, not a malfunction
    """An attack succeeded inside a certificate: one of the two is wrong, and no number can be believed."""


def contradictions(rows: pd.DataFrame, threats: Mapping[str, ThreatModel]) -> pd.DataFrame:
    """Every pair of a proof and a misclassified image inside it.

    Args:
        rows: ledger rows (model, seed, evaluation, sample, distance, certificate, radius); a proof is a row with the
            certificate `verified`, a misclassified image one with a finite distance.
        threats: evaluation or certificate label -> threat model, which says the norm of distance and radius.

    Returns:
        Columns model, seed, sample, certifier, norm, radius, attack, attack_norm, distance; one row a pair. A ball of
        radius r in l1 or l2 lies in the linf ball of radius r: an l2 attack can contradict an linf certificate, but
        not the other way round.
    """
    known = rows[rows["evaluation"].isin(threats)]
    norm = known["evaluation"].map({label: threat.norm for label, threat in threats.items()})
    known = known.assign(norm=norm)
    proofs = known[(known["certificate"] == "verified") & known["radius"].notna()]
    fallen = known[known["distance"].notna() & (known["distance"] < float("inf"))]
    pairs = proofs[[*_PLACE, "evaluation", "norm", "radius"]].merge(
        fallen[[*_PLACE, "evaluation", "norm", "distance"]], on=_PLACE, suffixes=("", "_attack")
    )
    inside = pairs["norm"].map(_WIDEST_FIRST.index) <= pairs["norm_attack"].map(_WIDEST_FIRST.index)
    pairs = pairs[inside & (pairs["distance"] <= pairs["radius"])]
    pairs = pairs.rename(
        columns={"evaluation": "certifier", "evaluation_attack": "attack", "norm_attack": "attack_norm"}
    )
    return pairs.sort_values([*_PLACE, "certifier", "attack"]).reset_index(drop=True)


def refuse(rows: pd.DataFrame, threats: Mapping[str, ThreatModel]) -> None:
    """Nothing, if no attack succeeded inside a certificate.

    Raises:
        Contradiction: naming the first pair and how many there are.
    """
    found = contradictions(rows, threats)
    if found.empty:
        return
    first = found.iloc[0]
    raise Contradiction(
        f"{first.attack} found a misclassified image of sample {first['sample']} of {first.model} at "
        f"{first.attack_norm} distance {first.distance:.4g}, inside the radius {first.radius:.4g} ({first.norm}) that "
        f"{first.certifier} certifies; {len(found)} such pairs. The certificate, or the check behind the attack, is "
        "wrong: no number can be believed"
    )
