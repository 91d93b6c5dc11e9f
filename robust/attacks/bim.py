"""BIM: PGD that starts at the image itself."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust.attacks.pgd import PGD


class BIM(PGD):
    """Basic iterative method (I-FGSM): iterated FGSM steps from the image itself, clipped to the ball.

    Kurakin et al. 2017, arXiv 1607.02533, eq. 2. It is `pgd` without a random start: deterministic, and blind where
    the gradient at the image vanishes, so it can only be an upper bound on what `pgd` leaves standing.
    """

    name: ClassVar[str] = "bim"
    family: ClassVar[str] = "fixed budget"
    source: ClassVar[str] = "Kurakin et al. 2017, arXiv 1607.02533"

    steps: int = Field(default=10, ge=1, description="gradient steps")
    random_start: bool = Field(default=False, description="start at a uniform point of the ball, not at the image")
