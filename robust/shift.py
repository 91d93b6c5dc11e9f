"""How much a shift costs: mean corruption error, effective robustness, flips, the worst corruption, hard examples.

Pure functions of accuracies, predictions and ledger rows. Errors and accuracies are fractions in [0,1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, log_softmax, logit

Array = npt.NDArray[np.float64]
Errors = Mapping[str, Sequence[float]]  # corruption -> error at each severity


class CorruptionError(NamedTuple):
    """The mean over corruptions, and each corruption's own ratio to the base; 1 = as bad as the base."""

    mean: float
    each: dict[str, float]


def corruption_error(errors: Errors, base: Errors) -> CorruptionError:
    """mCE (Hendrycks & Dietterich 2019, arXiv 1903.12261, section 4.1).

    CE_c = sum_s E[s,c] / sum_s E_base[s,c], and mCE is the mean over corruptions c. ImageNet-C declares AlexNet as the
    base; a table of mCE means nothing without its base.

    Args:
        errors: error of the model at each severity of each corruption.
        base: the same of the declared base.

    Raises:
        ValueError: if the two do not cover the same corruptions and severities, leave [0,1], or the base has no error.
    """
    return _ratios(_checked(errors, base), 0.0, 0.0)


def relative_corruption_error(errors: Errors, clean: float, base: Errors, base_clean: float) -> CorruptionError:
    """Relative mCE: CE_c = sum_s (E[s,c] - E_clean) / sum_s (E_base[s,c] - E_base_clean); how much is lost.

    Args and errors as in `corruption_error`, with the clean errors of both.
    """
    return _ratios(_checked(errors, base), clean, base_clean)


def _checked(errors: Errors, base: Errors) -> dict[str, tuple[Array, Array]]:
    if not errors or set(errors) != set(base):
        odd = sorted(set(errors) ^ set(base))
        raise ValueError(f"model and base must be judged under the same corruptions; only one of them has {odd}")
    pairs = {name: (np.asarray(errors[name], float), np.asarray(base[name], float)) for name in errors}
    for name, (own, other) in pairs.items():
        if own.shape != other.shape or own.size == 0:
            raise ValueError(f"{name}: the model has {own.size} severities and the base {other.size}; judge the same")
        if not all(((part >= 0) & (part <= 1)).all() for part in (own, other)):
            raise ValueError(f"{name}: errors are fractions in [0,1]")
    return pairs


def _ratios(pairs: dict[str, tuple[Array, Array]], clean: float, base_clean: float) -> CorruptionError:
    each = {}
    for name, (own, other) in pairs.items():
        scale = float((other - base_clean).sum())
        if scale <= 0:
            raise ValueError(f"{name}: the base loses nothing, so nothing can be measured by it; declare another base")
        each[name] = float((own - clean).sum()) / scale
    return CorruptionError(float(np.mean(list(each.values()))), each)


class Worst(NamedTuple):
    """The corruption with the lowest accuracy, averaged over its severities."""

    name: str
    accuracy: float


def worst_corruption(accuracies: Mapping[str, Sequence[float]]) -> Worst:
    """The corruption of lowest mean accuracy; of equals the first by name."""
    if not accuracies:
        raise ValueError("no corruption was judged; name at least one evaluation that is a corruption")
    means = {name: float(np.mean(values)) for name, values in accuracies.items()}
    name = min(sorted(means), key=means.__getitem__)
    return Worst(name, means[name])


class Baseline(NamedTuple):
    """The line that shifted accuracy follows as clean accuracy rises, over nets without special robustness."""

    slope: float
    intercept: float
    scale: Literal["logit", "linear"]

    def expected(self, clean: npt.ArrayLike) -> Array:
        """Shifted accuracy that the line expects at these clean accuracies."""
        value = np.asarray(clean, dtype=float)
        if self.scale == "linear":
            return np.asarray(self.slope * value + self.intercept)
        return np.asarray(expit(self.slope * logit(value) + self.intercept))


def baseline(clean: npt.ArrayLike, shifted: npt.ArrayLike, scale: Literal["logit", "linear"] = "logit") -> Baseline:
    """The least-squares line through (clean, shifted) accuracies of standard nets, on the logit scale by default.

    Taori et al. 2020, arXiv 2007.00644, section 3.

    Raises:
        ValueError: with fewer than two distinct clean accuracies, or at 0 or 1 on the logit scale.
    """
    x, y = np.asarray(clean, dtype=float), np.asarray(shifted, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(np.unique(x)) < 2:
        raise ValueError("a baseline needs the clean and shifted accuracies of at least two nets that differ")
    if scale == "logit":
        if not (((x > 0) & (x < 1)).all() and ((y > 0) & (y < 1)).all()):
            raise ValueError("accuracies of exactly 0 or 1 have no logit; use scale='linear' or leave these nets out")
        x, y = logit(x), logit(y)
    slope, intercept = np.polyfit(x, y, 1)
    return Baseline(float(slope), float(intercept), scale)


def effective_robustness(clean: npt.ArrayLike, shifted: npt.ArrayLike, line: Baseline) -> Array:
    """Shifted accuracy beyond what the baseline expects at this clean accuracy: rho = shifted - line(clean)."""
    return np.asarray(np.asarray(shifted, dtype=float) - line.expected(clean))


def flip_probability(predictions: npt.ArrayLike, noise: bool = False) -> float:
    """Share of frames whose predicted class differs from the frame before, or for noise from the first frame.

    Hendrycks & Dietterich 2019, section 4.2: the mean of `flips`.
    """
    return float(flips(predictions, noise).mean())


def flips(predictions: npt.ArrayLike, noise: bool = False) -> Array:
    """Of each sequence the share of its frames that flip, [N].

    Args:
        predictions: classes [N,T] of N sequences of T >= 2 frames.
        noise: frames have no order, and each is compared with the clean frame 0.
    """
    classes = np.asarray(predictions)
    if classes.ndim != 2 or classes.shape[1] < 2 or not len(classes):
        raise ValueError(f"predictions must be [N,T] with at least two frames, got shape {classes.shape}")
    before = classes[:, :1] if noise else classes[:, :-1]
    return np.asarray((classes[:, 1:] != before).mean(axis=1))


def flip_rate(flips: Mapping[str, float], base: Mapping[str, float]) -> CorruptionError:
    """mFR: the mean over perturbations of flip probability over the base's; `mean(flips.values())` is mFP."""
    return corruption_error({name: [p] for name, p in flips.items()}, {name: [p] for name, p in base.items()})


def natural_adversarial(references: Sequence[pd.DataFrame]) -> list[int]:
    """Sample ids that every reference classifier gets wrong, sorted: adversarial filtration as for ImageNet-A.

    Hendrycks et al. 2021, arXiv 1907.07174. A net that did not take part in the filtration is then judged on what is
    left, since on the references themselves accuracy is 0 by construction.

    Args:
        references: ledger rows (`sample`, `correct`) of one evaluation, usually `clean`, a frame for each classifier.
    """
    correct = _aligned([frame.set_index("sample")["correct"].astype(bool) for frame in references])
    return sorted(int(sample) for sample in correct.index[~correct.any(axis=1)])


def overconfident(references: Sequence[pd.DataFrame], confidence: float = 0.5) -> list[int]:
    """Sample ids for which every reference classifier exceeds a confidence, sorted: filtration as for ImageNet-O.

    The rows are those of an out-of-distribution set: whatever the classifiers are sure of there is wrong.

    Args:
        references: ledger rows (`sample`, `logits`), a frame for each classifier.
        confidence: largest softmax probability above which a sample is kept, in [0,1).
    """
    if not 0 <= confidence < 1:
        raise ValueError(f"confidence is a probability below 1, got {confidence}")
    sure = _aligned(
        [
            pd.Series(
                np.exp(log_softmax(np.stack(frame["logits"].tolist()).astype(float), axis=1)).max(1) > confidence,
                index=frame["sample"].to_numpy(),
            )
            for frame in references
        ]
    )
    return sorted(int(sample) for sample in sure.index[sure.all(axis=1)])


def _aligned(columns: list[pd.Series]) -> pd.DataFrame:
    if not columns:
        raise ValueError("adversarial filtration needs the ledger rows of at least one reference classifier")
    ids = set(columns[0].index)
    if any(set(column.index) != ids or not column.index.is_unique for column in columns):
        raise ValueError(
            "the references must have judged the same samples, each once: one model and one evaluation each"
        )
    return pd.concat(columns, axis=1)
