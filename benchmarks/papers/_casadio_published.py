"""What Casadio et al. print, and what their published code's own result files say.

All numbers are percentages. Names of regimes are those of `_casadio_nets.REGIMES`.
"""

__all__ = [
    "ACCURACY",
    "EPSILONS",
    "LARGE",
    "LAST_EPOCH",
    "SAMPLED_SCR",
    "SATISFACTION",
    "SECURITY",
]

# The paper's Table 3: 100 hidden units, the best of the last 25 epochs on the test set (code).
ACCURACY = {
    "fashion": {
        "baseline": 88.2,
        "RU": 88.6,
        "FGSM": 88.8,
        "adversarial": 85.1,
        "SR loss": 88.2,
        "SCR loss": 88.1,
        "LR loss": 86.6,
    },
    "gtsrb": {
        "baseline": 92.4,
        "RU": 92.8,
        "FGSM": 94.5,
        "adversarial": 83.5,
        "SR loss": 93.3,
        "SCR loss": 91.9,
        "LR loss": 93.1,
    },
}

# The same networks after the last of 100 epochs: only in the published result files.
LAST_EPOCH = {
    "fashion": {
        "baseline": 87.95,
        "RU": 88.26,
        "FGSM": 88.66,
        "adversarial, code": 84.87,
        "SR loss": 88.07,
        "SCR loss, code": 87.91,
        "LR loss": 86.28,
    },
    "gtsrb": {
        "baseline": 92.21,
        "RU": 91.97,
        "FGSM": 93.67,
        "adversarial, code": 83.29,
        "SR loss": 93.33,
        "SCR loss, code": 91.53,
        "LR loss": 93.12,
    },
}

# The paper's Table 1: 30 hidden units, 200 test images, by Marabou.
SATISFACTION = {
    "fashion": {
        "CR": {"baseline": 1.5, "SCR loss": 2.0, "SR loss": 2.0, "LR loss": 34.0},
        "SR": {"baseline": 0.5, "SCR loss": 1.0, "SR loss": 65.8, "LR loss": 100.0},
        "LR": {"baseline": 0.0, "SCR loss": 0.0, "SR loss": 0.0, "LR loss": 0.0},
    },
    "gtsrb": {
        "CR": {"baseline": 0.5, "SCR loss": 1.0, "SR loss": 3.0, "LR loss": 4.5},
        "SR": {"baseline": 0.0, "SCR loss": 0.0, "SR loss": 24.0, "LR loss": 97.0},
        "LR": {"baseline": 0.0, "SCR loss": 0.0, "SR loss": 0.0, "LR loss": 0.0},
    },
}

EPSILONS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)

_NOTHING = (100, 0, 0, 0, 0, 0)
_ALL = (100, 100, 100, 100, 100, 100)

# Constraint security behind the paper's figures, from the published result files. "SCR, code" is
# the property of the code: the logit of the true class is at least log 0.3.
SECURITY = {
    "fashion": {
        "SR": {
            "baseline": (100, 100, 100, 41.6, 2.9, 0.2),
            "RU": (100, 100, 19.0, 0.1, 0, 0),
            "FGSM": (100, 100, 93.5, 13.8, 0.3, 0),
            "adversarial, code": _ALL,
            "SR loss": (100, 100, 100, 100, 100, 98.3),
            "SCR loss, code": (100, 100, 100, 40.5, 5.2, 1.2),
            "LR loss": _ALL,
        },
        "SCR, code": {
            "baseline": (99.6, 97.4, 85.9, 62.6, 33.9, 15.1),
            "RU": (99.1, 91.6, 61.5, 25.4, 6.8, 1.2),
            "FGSM": (99.4, 92.8, 59.4, 24.6, 9.7, 3.2),
            "adversarial, code": (99.4, 98.7, 97.4, 94.7, 89.8, 83.4),
            "SR loss": (99.8, 98.8, 94.0, 81.2, 60.6, 37.2),
            "SCR loss, code": (100, 100, 100, 100, 99.9, 99.3),
            "LR loss": (99.8, 99.7, 99.5, 99.1, 98.1, 96.6),
        },
        "LR": {
            "baseline": _NOTHING,
            "RU": _NOTHING,
            "FGSM": _NOTHING,
            "adversarial, code": _NOTHING,
            "SR loss": _NOTHING,
            "SCR loss, code": _NOTHING,
            "LR loss": (100, 12.8, 18.5, 18.7, 15.1, 15.6),
        },
    },
    "gtsrb": {
        "SR": {
            "baseline": (100, 100, 52.1, 1.7, 0, 0),
            "RU": (100, 82.8, 0.2, 0, 0, 0),
            "FGSM": (100, 100, 1.8, 0, 0, 0),
            "adversarial, code": _ALL,
            "SR loss": (100, 100, 100, 100, 100, 86.8),
            "SCR loss, code": (100, 100, 100, 16.0, 0.4, 0),
            "LR loss": _ALL,
        },
        "SCR, code": {
            "baseline": (98.9, 80.9, 56.5, 36.4, 20.4, 11.1),
            "RU": (98.3, 71.1, 46.3, 25.3, 13.6, 6.9),
            "FGSM": (99.0, 70.4, 39.0, 19.2, 8.3, 2.5),
            "adversarial, code": (99.3, 98.9, 97.5, 95.5, 89.9, 78.7),
            "SR loss": (99.5, 97.6, 81.8, 65.9, 50.7, 38.6),
            "SCR loss, code": (100, 100, 100, 99.5, 98.7, 96.5),
            "LR loss": (99.4, 97.6, 83.5, 67.3, 51.8, 38.9),
        },
        "LR": {
            "baseline": _NOTHING,
            "RU": _NOTHING,
            "FGSM": _NOTHING,
            "adversarial, code": _NOTHING,
            "SR loss": _NOTHING,
            "SCR loss, code": _NOTHING,
            "LR loss": _NOTHING,
        },
    },
}

# The network of 18 layers on Fashion-MNIST: accuracy, and security of "SCR, code".
LARGE = {
    "baseline": (92.5, (99.3, 58.4, 4.5, 0, 0, 0)),
    "RU": (92.8, (98.7, 52.4, 5.2, 0.2, 0, 0)),
    "FGSM": (95.2, (99.5, 72.0, 13.2, 0.5, 0, 0)),
    "adversarial, FGSM": (92.2, (99.5, 93.3, 65.5, 30.2, 9.6, 3.0)),
    "SCR loss, code": (92.2, (100, 100, 100, 99.7, 99.2, 98.8)),
}

# Constraint accuracy of "SCR, code" at epsilon = 0.1; that of SR is 100 everywhere.
SAMPLED_SCR = {
    "fashion": {
        "baseline": 99.48,
        "RU": 98.85,
        "FGSM": 98.61,
        "SR loss": 99.73,
        "SCR loss, code": 100.0,
    },
    "gtsrb": {
        "baseline": 98.49,
        "RU": 97.69,
        "FGSM": 98.78,
        "SR loss": 99.51,
        "SCR loss, code": 100.0,
    },
}
