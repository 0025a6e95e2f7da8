"""What Tibo, Jaeger and Larsen print. Accuracies and shares are in percent."""

__all__ = ["ACCURACY", "CORRUPTED", "CORRUPTED_MEAN", "FASHION_MARGIN", "MANIFOLD", "WINS"]

# Table 1.
ACCURACY = {
    "mnist": {"none": 99.45, "HEIN": 98.98, "R2": 98.74},
    "cifar10": {"none": 92.16, "HEIN": 90.44, "R2": 89.96},
    "svhn": {"none": 93.30, "HEIN": 93.11, "R2": 92.87},
    "fashion": {"none": 93.72, "HEIN": 93.30, "R2": 93.29, "R4": 94.04, "Stutz": 92.11},
}

# Table 2: the share of images at which BG, FGSM and PGD came closest.
WINS = {
    "mnist": {
        "none": (98.32, 0.53, 1.15),
        "HEIN": (85.11, 0.95, 13.94),
        "R2": (25.65, 1.21, 73.14),
    },
    "cifar10": {
        "none": (94.50, 3.85, 1.65),
        "HEIN": (91.58, 6.50, 1.92),
        "R2": (90.89, 6.49, 2.62),
    },
    "svhn": {
        "none": (94.26, 2.76, 2.98),
        "HEIN": (93.73, 3.93, 2.34),
        "R2": (93.75, 3.05, 3.20),
    },
    "fashion": {
        "none": (94.09, 3.05, 2.86),
        "HEIN": (93.54, 3.60, 2.86),
        "R2": (89.22, 2.91, 7.87),
    },
}

# Table 3: none, HEIN, R2 under the corruptions of MNIST-C.
CORRUPTED = {
    "brightness": (45.87, 78.74, 61.57),
    "canny_edges": (60.91, 57.86, 78.28),
    "dotted_line": (96.20, 93.59, 97.46),
    "fog": (29.03, 49.97, 56.17),
    "glass_blur": (85.56, 90.86, 85.12),
    "impulse_noise": (71.26, 78.13, 87.12),
    "motion_blur": (95.74, 92.72, 95.42),
    "rotate": (94.93, 91.61, 90.74),
    "scale": (96.37, 95.19, 92.73),
    "shear": (97.96, 97.22, 95.78),
    "shot_noise": (97.98, 97.90, 97.58),
    "spatter": (97.87, 96.96, 96.82),
    "stripe": (90.81, 89.51, 81.72),
    "translate": (66.87, 64.49, 45.69),
    "zigzag": (86.34, 86.64, 89.57),
}
CORRUPTED_MEAN = (80.91, 84.09, 83.45)

# Table 5: R2 on Fashion-MNIST, the one area of figure 4 that the text repeats among them.
FASHION_MARGIN = {"R2": 1.060, "R4": 0.471}

# R4 on Fashion-MNIST: table 4 has the first two, table 5 the last two.
MANIFOLD = {"Stutz": 0.280, "R4": 0.286, "R2": 0.285}
