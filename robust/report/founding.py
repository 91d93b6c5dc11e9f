"""The published figures and the questions that the founding studies of the four methods answer.

JEM (arXiv 1912.03263), maximal margin (1906.05890), ODENet and TisODE (1910.05513), Tulip (1810.00953). A figure that a
diagnostic draws carries its id; the others are drawn by the report's own sections.
"""

from __future__ import annotations

FIGURES = {
    "J-1": "Samples of the model, with their quality over epochs",
    "J-2": "Reliability diagrams",
    "J-3": "Histograms of the detection scores",
    "J-4": "AUROC of every score and set",
    "J-5": "Accuracy against attack size, by refinement steps",
    "J-6": "What refinement costs",
    "J-7": "Health of the training",
    "M-1": "Normalised margin against epoch",
    "M-2": "Snapshots of the training",
    "M-3": "Share of images robust beyond a distance",
    "M-4": "Margin against robustness",
    "O-1": "Accuracy under every perturbation",
    "O-2": "Accuracy against attack size, attack by attack",
    "O-3": "Integral curves and distances of neighbours",
    "O-4": "Steady-state loss and speed over time",
    "O-5": "Solver sweep",
    "T-1": "Error curves",
    "T-2": "Every attack of the toolbox, and their lower envelope",
    "T-3": "Median distance and error at two sizes",
    "T-4": "Histogram of loss gradients",
}

# figures of the report's own sections that draw a published one: its id -> how their ids begin
DRAWN_BY_SECTIONS = {
    "J-2": "reliability-",
    "J-3": "detection-",
    "J-5": "curve-",
    "O-1": "bars-",
    "O-2": "curve-",
    "T-1": "curve-",
    "T-2": "curve-",
    "J-7": "training-",
}
# published figures that are tables here: its id -> section, and the part of the report that must not be empty
TABLED = {
    "J-4": ("detection", "detection"),
    "M-2": ("measured", "measured"),
    "T-3": ("paper", "published"),
    "O-1": ("accuracy", "groups"),
}

QUESTIONS = {
    "Q1": "What does each refinement step cost, and is the robustness that it adds worth it?",
    "Q2": "Is the gain from refinement limited, and what is left of it under a strong attack?",
    "Q3": "Does hard sampling narrow the use of JEM, and how does quality fall with the input's dimension?",
    "Q4": "How do other generative or Bayesian models compare?",
    "Q5": "Do the histograms overlap little enough for detection in practice?",
    "Q6": "Which score makes which model best?",
    "Q7": "Is higher confidence more accurate, and is calibration as good on other sets as on the headline's?",
    "Q8": "Does JEM keep accuracy and sample quality at once?",
    "Q9": "Does training longer improve robustness, or overfit?",
    "Q10": "How does the normalised margin relate to l2 robustness and to the Lipschitz constant?",
    "Q11": "Does the model meet the theory's assumptions: homogeneity, separability, smoothness, no bias?",
    "Q12": "Does the loss-based learning rate help in practice, at equal cost and on test data?",
    "Q13": "Is a standard deviation over three seeds to be trusted?",
    "Q14": "Is the ODENet competitive in clean accuracy, and where do all models drop most?",
    "Q15": "Why is PGD so much stronger than FGSM here?",
    "Q16": "Do the bounds on integral curves explain the robustness?",
    "Q17": "Does the steady-state loss bring the gain, and not the time-invariance?",
    "Q18": "Does adversarial training on one attack generalise to others?",
    "Q19": "Is adversarial training still the most effective, and do these methods add to it?",
    "Q20": "Is the ODE suited to generative or time-series use?",
    "Q21": "How should theory guide practice, and what does the practitioner learn?",
    "Q22": "Does Lipschitz regularisation improve robustness and generalisation, and does it correct wrong labels?",
    "Q23": "Which attack is strongest, and does the order of the defences hold at all sizes and in both norms?",
    "Q24": "At what size is an undefended network at 100 % error, and is the perturbation visible?",
    "Q25": "Is the theory of convergence visible: does the error fall with the number of samples as it says?",
}
SUMMARY = "Q21"  # answered by the verdicts of all others
