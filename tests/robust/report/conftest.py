"""A small real study for the report: logistic regressions on digits, attacked by exact linear steps."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from robust import ledger

GROUPS = {"standard": 100.0, "regularised": 0.01}
SIZES = ("1/16", "1/8", "1/4")


def describe(models, evaluations, name="digits-linear"):
    return {
        "name": name,
        "size": "smoke",
        "dataset": {"name": "digits", "digest": "d" * 64, "classes": [str(k) for k in range(10)]},
        "models": models,
        "evaluations": evaluations,
    }


def evaluation(label, name=None, norm=None, eps=None):
    return {"label": label, "name": name or label, "norm": norm, "eps": eps}


def judged(logits, labels, ids, **columns):
    prediction = logits.argmax(1)
    frame = pd.DataFrame({"sample": ids, "label": labels, "prediction": prediction, "correct": prediction == labels})
    frame["logits"] = list(logits.astype(np.float32))
    return frame.assign(forward=1, backward=0, queries=0).assign(**columns)


def attack(model, x, y, ids, eps, steps):
    """The best linf step against the runner-up class; exact for a linear model of two classes."""
    weights, logits = model.coef_, model.decision_function(x)
    others = np.where(np.arange(10) == y[:, None], -np.inf, logits).argmax(1)
    adversarial = np.clip(x + eps * np.sign(weights[others] - weights[y]) * (0.8 if steps == 1 else 1), 0, 1)
    wrong_before = logits.argmax(1) != y
    adversarial[wrong_before] = x[wrong_before]
    after = model.decision_function(adversarial)
    success = after.argmax(1) != y
    distance = np.where(success, np.abs(adversarial - x).max(1), np.inf)
    frame = judged(
        after, y, ids, success=success, quantised=success, distance=distance, forward=steps + 1, backward=steps
    )
    return frame.assign(correct=~success), adversarial


def minimal(model, x, y, ids):
    """DeepFool on a linear model: the smallest l2 distance to any other class, exact but for the box."""
    weights, logits = model.coef_, model.decision_function(x)
    gaps = logits[np.arange(len(y)), y][:, None] - logits
    norms = np.linalg.norm(weights[y][:, None] - weights[None], axis=2)
    with np.errstate(invalid="ignore"):
        distance = np.maximum(np.nanmin(np.where(norms > 0, gaps / norms, np.nan), axis=1), 0)
    frame = judged(logits, y, ids, success=True, quantised=True, distance=distance, forward=12, backward=10)
    return frame.assign(correct=False)


@pytest.fixture(scope="session")
def study_and_parts():
    digits = load_digits()
    x, y = digits.data / 16, digits.target
    train, test = slice(0, 900), slice(900, 1260)
    ids = np.arange(len(y))[test]
    models, tables, costs, examples = [], [], [], []
    evaluations = [evaluation("clean"), evaluation("gaussian-noise")]
    evaluations += [evaluation(f"fgsm-{e.replace('/', '-')}", "fgsm", "linf", e) for e in SIZES]
    evaluations += [evaluation(f"pgd-{e.replace('/', '-')}", "pgd", "linf", e) for e in SIZES]
    evaluations += [evaluation("deepfool", "deepfool", "l2", None)]
    for objective, strength in GROUPS.items():
        for seed in range(3):
            rng = np.random.default_rng(seed)
            picked = rng.choice(900, 300, replace=False)
            model = LogisticRegression(C=strength, max_iter=3000).fit(x[train][picked], y[train][picked])
            id = f"linear.{objective}.{seed}"
            models.append({"id": id, "model": "linear", "objective": objective, "seed": seed, "sha256": f"{seed}" * 64})
            noisy = np.clip(x[test] + rng.normal(0, 0.2, x[test].shape), 0, 1)
            cells = {
                "clean": judged(model.decision_function(x[test]), y[test], ids),
                "gaussian-noise": judged(model.decision_function(noisy), y[test], ids),
                "deepfool": minimal(model, x[test], y[test], ids),
            }
            for e in SIZES:
                eps = float(e.split("/")[0]) / float(e.split("/")[1])
                for name, steps in (("fgsm", 1), ("pgd", 40)):
                    cells[f"{name}-{e.replace('/', '-')}"], images = attack(model, x[test], y[test], ids, eps, steps)
                    if e == "1/8" and seed == 0:
                        examples += pictures(f"{name}-1-8", id, model, x[test], images, y[test], ids)
            for label, frame in cells.items():
                tables.append(ledger.table(frame.assign(model=id, seed=seed, evaluation=label)))
                costs.append((id, seed, label, 0, len(frame), 0.25, 50 * 2**20))
    return describe(models, evaluations), ledger.merge(tables), costs, examples


def pictures(label, id, model, x, adversarial, y, ids):
    clean, after = model.predict(x), model.predict(adversarial)
    return [
        {
            "evaluation": label,
            "model": id,
            "sample": int(ids[i]),
            "label": int(y[i]),
            "prediction_clean": int(clean[i]),
            "prediction_adv": int(after[i]),
            "clean": np.rint(x[i].reshape(1, 8, 8) * 255).astype(np.uint8),
            "adversarial": np.rint(adversarial[i].reshape(1, 8, 8) * 255).astype(np.uint8),
        }
        for i in range(8)
    ]


def diagnostics(ids, rng):
    """What two diagnostics would find of every network: rows over epochs, a figure, a grid of images."""
    found = {"measured": [], "figures": [], "pictures": []}
    for i, id in enumerate(ids):
        of = {"model": id, "diagnostic": "margins"}
        found["measured"] += [{**of, "quantity": "margin", "epoch": e, "value": e + i / 10} for e in range(20)]
        found["measured"] += [{**of, "quantity": "bound", "value": 2.0, "low": 1.0, "high": 3.0, "n": 100}]
        lines = [{"label": "state", "x": [0.0, 1.0, 2.0], "y": [float(i), 1.0, float("nan")]}]
        lines += [{"label": "end", "mark": "rule", "x": [1.0], "y": [0.0]}]
        named = {"id": "curve", "title": "Curves", "paper": "O-3", "x_label": "t", "y_label": "z"}
        found["figures"].append({**of, "diagnostic": "curves", **named, "series": lines})
    images = rng.integers(0, 255, (7, 1, 5, 5)).astype(np.uint8)
    grid = {"id": "grid", "title": "Samples", "caption": "Seven.", "paper": "J-1", "images": images, "columns": 3}
    found["pictures"].append({"model": ids[0], "diagnostic": "curves", **grid})
    return found


@pytest.fixture(scope="session")
def inputs(study_and_parts):
    """Arguments of `build` for a study with everything in it."""
    import pyarrow as pa

    study, rows, costs, examples = study_and_parts
    rng = np.random.default_rng(0)
    ids = [row["id"] for row in study["models"]]
    columns = list(zip(*costs))
    return {
        "study": study,
        "rows": rows,
        "costs": pa.table([pa.array(c, f.type) for c, f in zip(columns, ledger.COSTS)], schema=ledger.COSTS),
        "verdicts": [
            {"model": id, "evaluation": e["label"], "verdict": "trusted", "reasons": []}
            for id in ids
            for e in study["evaluations"]
            if e["norm"] and not (id == ids[0] and e["label"] == "fgsm-1-8")
        ]
        + [
            {
                "model": ids[0],
                "evaluation": "fgsm-1-8",
                "verdict": "suspect",
                "reasons": ["noise of the same size beats it on 3 of 360 samples"],
            }
        ],
        "calibration": [
            {"model": ids[0], "under": u, "calibrator": c, "temperature": t}
            | {"ece": 0.02, "mce": 0.2, "brier": 0.05, "nll": 0.2, "ece_low": 0.0125, "ece_high": 0.031}
            for u in ("clean", "pgd-1-8")
            for c, t in (("none", None), ("temperature", 1.6))
        ]
        + [
            {"model": ids[0], "under": "clean", "calibrator": "lac"}
            | {"coverage": 0.91, "coverage_low": 0.88, "coverage_high": 0.94, "size": 1.5, "worst_class": 0.7}
        ],
        "detection": [
            {"model": id, "score": s, "ood": "kmnist", "auroc": 0.93, "aupr": 0.95, "fpr95": 0.31}
            for id in ids[:1]
            for s in ("max-softmax", "energy")
        ],
        "scores": [
            {"model": ids[0], "score": s, "set": name, "inside": name == "digits", "values": rng.normal(mean, 1, 300)}
            for s in ("max-softmax", "energy")
            for name, mean in (("digits", 3), ("kmnist", 0), ("noise", -1))
        ],
        "certificates": [
            {"model": ids[0], "name": "linear", "norm": "linf", "eps": "1/16", "n": 360}
            | {"verified": 200, "falsified": 100, "unknown": 60}
        ],
        "claims": [
            {"id": "Q18", "question": "Does regularisation help against every attack?", "verdict": "partly"}
            | {"effect": 12.0, "low": 8.0, "high": 16.0, "attack": "pgd", "seeds": 3, "section": "accuracy"}
            | {"unit": "points", "reason": "It gains 12 points under pgd.", "rows": [{"group": "a", "points": 12.0}]}
        ],
        **diagnostics(ids, rng),
        "published": [
            {"table": "Table 1", "row": "linear", "column": "FGSM 1/8", "published": "54.2", "source": "S0"}
            | {"group": "linear.standard", "evaluation": "fgsm-1-8", "strong": ["fgsm-1-8", "pgd-1-8"]},
            {"table": "Table 1", "row": "linear", "column": "median l2", "published": 0.09, "source": "S1"}
            | {"group": "linear.standard", "evaluation": "deepfool", "quantity": "median-distance"},
            {"table": "Table 1", "row": "SVHN", "column": "median l2", "published": 0.2, "source": "S1"},
        ],
        "not_run": [{"figure": "O-1 SVHN", "reason": "its data are absent"}, {"figure": "O-4", "reason": "no ODE"}],
        "paper_figures": ["O-1", "O-3", "O-4", "J-1", "T-1", "T-3"],
        "history": [
            {"model": id, "epoch": e, "loss": 2.3 * 0.7**e + 0.02 * i, "select_accuracy": 1 - 0.8**(e + 1)}
            for i, id in enumerate(ids)
            for e in range(12)
        ],
        "evidence": [
            {"model": ids[0], "evaluation": "pgd-1-8", "check": check, "value": 0.0, "passed": True, "detail": detail}
            for check, detail in (("zero-gradient share", "0 of 360"), ("unbounded budget", "accuracy 0 % at eps 1"))
        ],
        "curves": [
            {"id": "loss-steps", "title": "Loss against steps", "x_label": "step", "y_label": "margin loss"}
            | {"series": [{"label": "pgd", "x": [0, 10, 20, 40], "y": [-2.0, 0.5, 0.9, 1.0]}]}
        ],
        "examples": examples,
        "environment": {"torch": "2.13.0", "device": "cpu"},
        "manifest": [{"path": "ledger/digits-linear.parquet", "sha256": "a" * 64, "size": 12345}],
        "commands": ["robust run studies/linear.yaml --size smoke"],
        "volatile": {"started": "2026-01-01T00:00:00Z", "host": "a-host", "run_ids": ["0123"]},
    }  # fmt: skip
