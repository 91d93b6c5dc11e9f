"""A plain function as a module: torch or NumPy in, scores or labels out, with or without a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robust.foreign.loaded import ForeignError


class BlackBox(nn.Module):
    """A function of images [N,C,H,W] that returns scores [N,K] or labels [N].

    It gets a tensor; where it does not understand that, a NumPy array of float32, and no gradient flows.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function
        self.numpy: bool | None = None  # found by the first call

    def forward(self, images: Tensor) -> Tensor:
        """Scores [N,K] or labels [N] as a tensor."""
        if self.numpy is None:
            self.numpy = not self._takes_tensors(images[:1])
        found = self.function(images.detach().cpu().float().numpy()) if self.numpy else self.function(images)
        scores: Tensor = found if isinstance(found, Tensor) else torch.as_tensor(found)
        return scores.to(images.device)

    def _takes_tensors(self, images: Tensor) -> bool:
        try:
            found = self.function(images)
        except (TypeError, AttributeError, RuntimeError, ValueError):
            return False
        return isinstance(found, Tensor)


def plain(answer: Any) -> Tensor:
    """One tensor out of what a network returned.

    Raises:
        ForeignError: if there is none.
    """
    if not isinstance(answer, Tensor):
        answer = getattr(answer, "logits", answer)
    if isinstance(answer, dict):
        answer = answer.get("logits", next(iter(answer.values()), None))
    if isinstance(answer, (tuple, list)) and answer:
        answer = answer[0]
    if not isinstance(answer, Tensor):
        raise ForeignError(f"the model returned {type(answer).__name__}, where scores [N,K] or labels [N] are needed")
    return answer.flatten(1) if answer.dim() > 2 else answer
