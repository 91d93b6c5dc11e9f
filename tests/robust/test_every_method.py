"""Every registered name is run by a test that asserts its effect: the tables say which one, and are checked.

A new method is two files touched: its own, and the table that runs it, here or in its kind's tests. TESTED names, for
each kind, the test that shows the effect of each method; a method without a row fails, and so does a row whose test is
gone or does not name the method. What no other test shows on real digits is shown below, by the methods in OWN.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robust.calibration.conformal import set_summary
from robust.calibration.metrics import ece
from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.diagnostics.diagnostic import Subject
from robust.diagnostics.sparsity import AdversarialSparsity
from robust.evaluation import evaluate
from robust.models.mlp import MLP
from robust.objectives.objective import Training
from robust.objectives.standard import Standard
from robust.randomness import Randomness
from robust.registry import KINDS, create, entries
from robust.training import train

HERE = Path(__file__)
Net = tuple[Classifier, dict[str, tuple[Tensor, Tensor]]]

FIXED = "attacks/test_fixed_budget.py::test_stays_inside_lowers_accuracy_and_leaves_the_model_alone"
NEAREST = "attacks/test_smallest_distance.py::test_median_distance_on_digits"
SCORES = "attacks/test_black_box.py::test_score_based_attacks_break_most_digits_without_a_gradient"
DECISIONS = "attacks/test_black_box.py::test_decision_based_attacks_come_near_the_white_box_distance"
WEARS = "corruptions/test_corruptions.py::test_more_severe_is_farther_from_the_clean_image"
FILES = "datasets/test_full_datasets.py::test_counts_of_the_test_part"
DETECTS = "detection/test_detectors.py::test_tells_digits_from_others_better_than_chance"
ENERGY = "diagnostics/test_energy_diagnostics.py"
JEM = "objectives/test_jem.py"
ODE = "diagnostics/test_ode_diagnostics.py"
ODE_NETS = "objectives/test_tisode_objective.py::test_toys_of_the_family_learn_and_stronger_attacks_leave_no_more"
CLAIMS = "claims/test_claims.py"
HARDENS = (
    "objectives/test_first_objectives.py::test_adversarial_training_raises_accuracy_under_attack_far_above_standard"
)

OWN_LOSS = (
    "objectives/test_regularisers.py::"
    "test_each_lowers_its_own_loss_below_what_standard_training_leaves_and_still_reads_digits"
)
ENSEMBLE = (
    "objectives/test_regularisers.py::"
    "test_a_trained_ensemble_is_no_worse_in_log_likelihood_than_its_members_are_on_average"
)
AVERAGING = "defences/test_averaging_defences.py"
STEEPNESS = "diagnostics/test_gradient_diagnostics.py"
COURSE = "diagnostics/test_margin_diagnostics.py"
MARGINS = "objectives/test_loss_based_lr.py::test_the_loss_falls_far_below_the_constant_rates_and_the_margin_grows"

# name, settings, accuracy on digits at most; what is not named here is shown by the tests in TESTED
CORRUPTIONS: dict[str, tuple[dict[str, Any], float]] = {
    "clean": ({}, 1.0),
    "gaussian-noise": ({"sigma": "1/2"}, 0.85),
}
# name, settings at a size that breaks digits: a new attack of a given size needs this one row
ATTACKS: dict[str, dict[str, Any]] = {
    "fgsm": {"eps": "1/8"},
    "pgd": {"eps": "1/10", "steps": 10},
}
CALIBRATORS = ("temperature", "vector", "matrix", "isotonic", "histogram-binning", "beta", "ensemble-temperature")
SETS: dict[str, dict[str, Any]] = {
    "lac": {},
    "aps": {},
    "raps": {},
    "rscp-plus": {"eps": "1/20", "sigma": 0.25, "samples": 256},
    "rscp-plus-ptt": {"eps": "1/20", "sigma": 0.25, "samples": 256},
}
DEFENCES: dict[str, dict[str, Any]] = {
    "input-quantisation": {"bits": 2},
    "gaussian-input-noise": {"sigma": 0.2},
    "random-resize-pad": {},
}


def _all(test: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, test)


OWN = f"{HERE.name}::"
TESTED: dict[str, dict[str, str]] = {
    "attack": {
        **_all(OWN + "test_attacks_break_digits_that_noise_of_their_size_does_not", *ATTACKS),
        **_all(FIXED, "bim", "random-noise", "mi-fgsm", "di-fgsm", "ti-fgsm", "apgd-ce", "apgd-dlr"),
        **_all(FIXED, "apgd-t", "multi-targeted", "beta", "square", "spatial", "spatial-flow", "patch", "fab"),
        "fab-t": FIXED,
        **_all(NEAREST, "ddn", "deepfool", "fmn", "cw", "binary-search"),
        **_all(SCORES, "spsa", "nes"),
        **_all(DECISIONS, "hopskipjump", "boundary"),
        "overconfidence": "attacks/test_overconfidence.py::"
        "test_it_is_more_confident_than_an_attack_that_stops_at_the_border",
        "transfer": "attacks/test_black_box.py::test_transfer_lowers_accuracy_without_a_query",
        "universal": "attacks/test_black_box.py::test_universal_perturbation_beats_noise_of_its_size",
        "bpda": "attacks/test_wrappers.py::test_bpda_breaks_quantisation_that_plain_pgd_does_not",
        "eot": "attacks/test_wrappers.py::test_eot_gradient_points_better_than_one_draw",
        "substitute": "attacks/test_wrappers.py::test_substitute_uses_the_declared_twin_or_a_named_model",
        "through": "attacks/test_wrappers.py::test_through_differentiates_the_loop",
        "tisode-official": "attacks/test_tisode_official.py::"
        "test_it_breaks_digits_and_leaves_more_than_a_strong_attack",
        "low-precision": "attacks/test_low_precision.py::"
        "test_nothing_that_the_plain_attack_breaks_withstands_the_settled_search",
        "autoattack": OWN + "test_autoattack_leaves_no_more_than_its_first_member",
        "jem-official": "attacks/test_jem_official.py::test_the_distance_of_a_linear_classifier_is_its_margin",
    },
    "dataset": {
        **_all(FILES, "mnist", "fashion-mnist", "kmnist", "emnist-letters", "notmnist", "usps", "omniglot"),
        **_all(FILES, "cifar10", "cifar100", "svhn", "tiny-imagenet-10"),
        "digits": "datasets/test_dataset_contract.py::test_digits_keep_the_published_levels",
        "uniform-noise": "datasets/test_dataset_contract.py::test_noise_belongs_to_the_sample",
        "folder": "datasets/test_image_folders.py::test_classes_are_subfolders",
    },
    "model": {
        "mlp": OWN + "test_calibrators_bring_confidence_nearer_to_accuracy_on_digits",
        "small-cnn": "training/test_training_loop.py::test_small_cnn_learns_too",
        "resnet18": "models/test_models.py::test_resnet_learns",
        "wrn-28-10": "models/test_wrn.py::test_it_learns",
        **_all(ODE_NETS, "odenet", "tisode", "ode-cnn"),
        **_all("models/test_homogeneous_models.py::test_they_learn", "homogeneous-mlp", "homogeneous-cnn"),
        "vgg16-homogeneous": "models/test_homogeneous_models.py::test_vgg_learns_two_patterns",
        "energy-cnn": f"{JEM}::test_training_learns_and_the_chains_follow_the_data",
        **_all("models/test_tulip_models.py::test_it_learns", "tulip-cnn", "resnext34-2x32"),
        "deep-ensemble": ENSEMBLE,
    },
    "objective": {
        "standard": OWN + "test_calibrators_bring_confidence_nearer_to_accuracy_on_digits",
        **_all(HARDENS, "pgd-at", "trades"),
        "ibp": "objectives/test_ibp.py::test_it_trains_networks_that_certify_where_standard_training_does_not",
        "gaussian-noise": "objectives/test_first_objectives.py::test_noise_training_raises_accuracy_under_noise",
        "tisode": "objectives/test_tisode_objective.py::"
        "test_training_with_it_brings_the_curves_nearer_to_rest_and_tells_so_in_the_history",
        "fgsm-at": "objectives/test_tisode_objective.py::test_fgsm_training_raises_accuracy_under_fgsm",
        **_all(MARGINS, "loss-based-lr", "constant-rate"),
        "jem": f"{JEM}::test_training_learns_and_the_chains_follow_the_data",
        **_all(OWN_LOSS, "j1", "j2", "jp", "tulip", "lipschitz-excess", "label-smoothing", "mixup", "cutmix", "cutout"),
        **_all(OWN_LOSS, "augmix", "logit-norm", "outlier-exposure"),
        "deep-ensemble": ENSEMBLE,
        "robust-conformal-training": "objectives/test_robust_conformal_training.py::"
        "test_with_the_transform_its_sets_are_half_of_what_noise_training_has_without",
    },
    "corruption": {
        **_all(OWN + "test_corruptions_cost_the_accuracy_they_should", *CORRUPTIONS),
        **_all(WEARS, "shot-noise", "impulse-noise", "speckle-noise", "defocus-blur", "glass-blur", "motion-blur"),
        **_all(WEARS, "zoom-blur", "gaussian-blur", "snow", "frost", "fog", "brightness", "contrast", "saturate"),
        **_all(WEARS, "elastic-transform", "pixelate", "jpeg-compression", "spatter", "shear", "scale", "rotate"),
        **_all(WEARS, "translate", "crop", "stripe", "dotted-line", "zigzag", "canny-edges", "colour-cast"),
        "sequence-frame": WEARS,
    },
    "certificate": {
        "interval": "certificates/test_interval.py::test_verified_is_never_falsified_by_pgd",
        "crown": "certificates/test_crown.py::test_no_attack_comes_below_the_bound",
    },
    "detector": {
        **_all(DETECTS, "ash", "dice", "energy", "entropy", "gen", "gradnorm", "kl-matching", "knn", "mahalanobis"),
        **_all(DETECTS, "max-logit", "max-softmax", "react", "relative-mahalanobis", "she", "typicality", "vim"),
        "odin": "detection/test_image_detectors.py::test_odin_steps_raise_the_confidence_and_tell_unseen_digits",
        "approximate-mass": "detection/test_image_detectors.py::"
        "test_approximate_mass_equals_central_differences_of_the_energy",
        "raid": "detection/test_image_detectors.py::test_raid_sees_attacks_it_was_and_was_not_trained_on",
        "refinement-drop": "detection/test_energy_detectors.py::"
        "test_refinement_drop_tells_noise_from_digits_and_walks_by_the_samples_own_draws",
        "flow-likelihood": "detection/test_energy_detectors.py::"
        "test_the_flow_gives_digits_a_higher_likelihood_than_noise_and_than_it_gave_them_unfitted",
    },
    "calibrator": {
        **_all(OWN + "test_calibrators_bring_confidence_nearer_to_accuracy_on_digits", *CALIBRATORS),
        **_all(OWN + "test_sets_hold_the_true_digit_without_holding_them_all", *SETS),
    },
    "defence": {
        **_all(OWN + "test_defences_keep_digits_readable_and_blunt_a_plain_attack", *DEFENCES),
        "jem-refinement": "defences/test_jem_refinement.py::test_without_noise_it_is_gradient_ascent_on_log_p",
        "snapshot-ensemble": f"{AVERAGING}::"
        "test_snapshots_are_averaged_as_probabilities_and_no_worse_than_they_are_on_average",
        "swag": f"{AVERAGING}::test_swag_averages_networks_around_the_mean_and_repeats",
        "mc-dropout": f"{AVERAGING}::test_mc_dropout_averages_its_masks_and_its_draws_repeat",
        "last-layer-laplace": f"{AVERAGING}::test_laplace_divides_logits_by_their_uncertainty_and_doubts_what_is_far",
    },
    "claim": {
        "accuracy-gap": f"{CLAIMS}::test_accuracy_gap_holds_beyond_both_variations_and_says_so",
        "distance-ratio": f"{CLAIMS}::test_distance_ratio_is_that_of_the_medians",
        "order": f"{CLAIMS}::test_order_in_accuracy",
        "measured": f"{CLAIMS}::test_measured_quantity_against_a_bound",
        "measured-ratio": f"{CLAIMS}::test_measured_ratio_compares_equal_epochs_of_equal_seeds",
        "monotone": f"{CLAIMS}::test_monotone_names_the_epochs_that_break_it",
        "attack-gap": f"{CLAIMS}::test_attack_gap_is_what_the_weak_attack_overstates",
        "calibration-gap": f"{CLAIMS}::test_calibration_gap_against_a_group_its_temperature_and_a_bound",
        "detection": f"{CLAIMS}::test_detection_by_bound_by_group_and_by_score",
        "correlation": f"{CLAIMS}::test_correlation_over_snapshots_and_arms",
        "cost": f"{CLAIMS}::test_cost_is_passes_for_each_point_gained",
        "generalisation": f"{CLAIMS}::test_generalisation_is_about_the_unseen_attacks",
        "assumptions": f"{CLAIMS}::test_assumptions_are_a_table_of_yes_and_no",
        "untested": f"{CLAIMS}::test_untested_gives_its_reason",
    },
    "diagnostic": {
        "adversarial-sparsity": OWN + "test_fewer_pixels_suffice_where_each_may_move_farther",
        "integral-curves": f"{ODE}::test_integral_curves_of_a_linear_ode_part_or_meet_exponentially",
        "steady-state": f"{ODE}::test_steady_state_of_a_linear_ode_and_of_its_snapshots",
        "solver-sweep": f"{ODE}::test_the_sweep_visits_every_solver_and_leaves_the_network_as_it_was",
        "feature-map-lipschitz": f"{ODE}::test_lipschitz_quotients_of_a_linear_ode",
        "loss-gradient-norms": f"{ODE}::test_loss_gradient_norms_of_a_linear_model_in_closed_form",
        "sampler-health": f"{ENERGY}::test_sampler_health_shows_the_history_and_marks_restarts",
        "samples-grid": f"{ENERGY}::test_samples_of_a_jem_belong_to_their_class_and_are_repeatable",
        "refinement-cost": f"{ENERGY}::test_refinement_cost_counts_one_and_two_n_passes_and_compares_accuracies",
        "prediction-consistency": f"{ENERGY}::test_consistency_falls_with_noise_and_tells_right_from_wrong",
        "gradient-norms": f"{STEEPNESS}::test_gradient_norms_of_a_linear_network",
        "tanh-gap": f"{STEEPNESS}::test_a_saturated_tanh_hides_errors_from_cross_entropy_that_the_margin_finds",
        "attack-toolbox": f"{STEEPNESS}::test_toolbox_orders_the_attacks_of_a_trained_network",
        "homogeneity": "diagnostics/test_homogeneity.py::test_the_table_says_which_assumptions_hold",
        "margins": f"{COURSE}::test_margins_reports_the_course_and_the_figure",
        "kkt-distance": f"{COURSE}::test_residuals_at_the_snapshots_of_a_training",
        "margin-snapshots": f"{COURSE}::test_snapshots_have_the_table_the_curves_and_the_scatter",
        "local-lipschitz": "diagnostics/test_lipschitz.py::test_rows_of_local_lipschitz",
        "margin-lipschitz-bound": "diagnostics/test_lipschitz.py::test_rows_of_the_bound",
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_method_has_a_row_and_every_row_a_method(kind):
    registered = {entry.name for entry in entries(kind)}
    untested, stale = registered - set(TESTED[kind]), set(TESTED[kind]) - registered
    assert not untested, f"no test shows the effect of these {kind}s; add a row to {HERE.name}: {sorted(untested)}"
    assert not stale, f"these {kind}s are tested here but not registered: {sorted(stale)}"


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_the_named_test_exists_and_names_the_method(entry):
    file, _, function = TESTED[entry.kind][entry.name].partition("::")
    tests, mentioned = _parsed(HERE.parent / file)
    assert function in tests, f"{file} has no test {function}"
    assert {entry.name, entry.qualname} & mentioned, f"{file} uses neither {entry.name!r} nor {entry.qualname}"


@cache
def _parsed(path: Path) -> tuple[frozenset[str], frozenset[str]]:
    """The tests of a file, and the names and texts that it uses; an import alone is no use."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    if path == HERE:  # the rows themselves are no use either
        tree.body = [n for n in tree.body if not (isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "TESTED")]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(tests), frozenset(names | texts)


@pytest.fixture(scope="module")
def net() -> Net:
    """An over-confident network and the split parts (images [N,1,8,8], labels [N]) that it was not trained on."""
    spec = Digits(train=300, select=100, calibrate=300)
    objective = Standard(training=Training(epochs=25, batch_size=25, lr=5e-3))
    trained = train(MLP(hidden=(64,)), objective, spec.load("train"), spec.load("select"), device="cpu", threads=1)
    parts = {split: spec.load(split).batch(slice(None)) for split in ("calibrate", "test")}
    return trained.classifier.eval().requires_grad_(False), {split: part[:2] for split, part in parts.items()}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_cost_the_accuracy_they_should(net, name):
    classifier, parts = net
    settings, most = CORRUPTIONS[name]
    images, labels = parts["test"]
    corruption = create("corruption", {"name": name, **settings})
    ledger = evaluate(classifier, images, labels, [corruption])
    found, clean = (ledger.frame(label)["correct"].mean() for label in (name, "clean"))
    assert clean > 0.9
    assert found <= most
    assert found > 0.15  # and it is still a picture of a digit
    draws = Randomness.of(0, range(5), name)
    worn = corruption.apply(images[:5], draws)
    assert torch.equal(worn, images[:5]) == (name == "clean")
    assert torch.equal(corruption.apply(images[[3, 1]], draws.select([3, 1])), worn[[3, 1]])
    assert worn.min() >= 0
    assert worn.max() <= 1


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_break_digits_that_noise_of_their_size_does_not(net, name):
    classifier, parts = net
    images, labels = (part[:100] for part in parts["test"])
    attack: Any = create("attack", {"name": name, **ATTACKS[name]})
    noise = create("attack", {"name": "random-noise", "threat": attack.threat})
    table = evaluate(classifier, images, labels, [attack, noise]).summary().set_index("evaluation")
    assert table.loc[name, "accuracy"] < table.loc["random-noise", "accuracy"] - 0.1
    assert table.loc[name, "backward"] <= len(labels) * attack.passes(10)[1]


@pytest.mark.parametrize("name", CALIBRATORS)
def test_calibrators_bring_confidence_nearer_to_accuracy_on_digits(net, name):
    classifier, parts = net
    noise = create("corruption", {"name": "gaussian-noise", "sigma": "2/5"})
    logits = {  # under noise the network errs as confidently as it is right, and more so with its logits times four
        split: 4 * classifier(noise.apply(images, Randomness.of(0, range(len(images)), split)))
        for split, (images, _) in parts.items()
    }
    method: Any = create("calibrator", name)
    probabilities = method.transform(logits["test"], method.fit(logits["calibrate"], parts["calibrate"][1]))
    labels = parts["test"][1]
    assert ece(probabilities, labels) < 0.75 * ece(logits["test"].softmax(1), labels)
    assert (probabilities.argmax(1) == labels).float().mean() > 0.5


@pytest.mark.parametrize("name", SETS)
def test_sets_hold_the_true_digit_without_holding_them_all(net, name):
    classifier, parts = net
    method: Any = create("calibrator", {"name": name, **SETS[name]})

    def logits(split: str) -> Tensor:
        images = parts[split][0]
        if not hasattr(method, "noisy_logits"):
            return classifier(images)
        return method.noisy_logits(classifier, images, Randomness.of(0, range(len(images)), split))

    fitted = method.fit(logits("calibrate"), parts["calibrate"][1])
    found = set_summary(method.sets(logits("test"), fitted), parts["test"][1])
    assert found["coverage"] >= 1 - method.alpha - 3 * np.sqrt(0.25 / len(parts["test"][1]))
    assert found["size"] < 9


@pytest.mark.parametrize("name", DEFENCES)
def test_defences_keep_digits_readable_and_blunt_a_plain_attack(net, name):
    classifier, parts = net
    images, labels = (part[:100] for part in parts["test"])
    defended = create("defence", {"name": name, **DEFENCES[name]}).wrap(classifier)
    plain = create("attack", {"name": "pgd", "eps": "1/10", "steps": 10})
    bare, guarded = (evaluate(model, images, labels, [plain]) for model in (classifier, defended))
    assert guarded.frame("clean")["correct"].mean() > 0.6
    assert guarded.frame("pgd")["correct"].mean() > bare.frame("pgd")["correct"].mean() + 0.05


def test_autoattack_leaves_no_more_than_its_first_member(net):
    classifier, parts = net
    images, labels = (part[:30] for part in parts["test"])
    first, whole = (create("attack", {"name": name, "eps": "1/12"}) for name in ("apgd-ce", "autoattack"))
    ledger = evaluate(classifier, images, labels, [first.model_copy(update={"steps": 5}), whole])
    clean, one, all_four = (ledger.frame(name)["correct"] for name in ("clean", "apgd-ce", "autoattack"))
    assert all_four.mean() <= one.mean()
    assert 0 < all_four.mean() < clean.mean() - 0.2


def test_fewer_pixels_suffice_where_each_may_move_farther(net):
    classifier, _ = net
    test = Digits().load("test")
    found = (
        AdversarialSparsity(eps=eps, draws=2, steps=5, samples=20).measure(Subject(classifier, test, test))
        for eps in ("1/10", "1/3")
    )
    shares = [{row["quantity"]: row["value"] for row in each.rows}["adversarial-sparsity"] for each in found]
    assert 0 < shares[1] < shares[0] < 1
