"""A question that the study does not answer, with the reason."""

from __future__ import annotations

from pydantic import Field

from robust.claims.claim import Claim, Evidence, Judgement


class Untested(Claim):
    """A question that is asked but not answered here: out of scope, or its data are absent."""

    name = "untested"
    family = "scope"
    source = "the questions of the founding documents"

    reason: str = Field(min_length=1, max_length=400, description="why, in one sentence")

    def judge(self, evidence: Evidence) -> Judgement:
        """Always untested."""
        return Judgement("untested", self.reason)
