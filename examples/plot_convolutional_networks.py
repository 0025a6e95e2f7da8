"""
Convolutional networks: a LeNet and a network in network
========================================================

Any torch module whose layers are piecewise linear has linear regions, and so a linear program
for the closest adversarial example in the region of each input. Here in the style of the two
networks of Bastani et al., as small as 8 by 8 pixels ask for.
"""

# %%
# Convolutions, ReLU, max-pooling and linear layers; or convolutions alone, some of them 1 by 1
# ("networks in the network"), with batch norm and an average over the image as the outputs.

import matplotlib.pyplot as plt
import pandas as pd
import torch
from sklearn.model_selection import train_test_split
from torch import nn

from skrobust import RobustClassifier
from skrobust.datasets import load_digits
from skrobust.displays import RobustnessCurveDisplay
from skrobust.pointwise import pointwise_robustness


def lenet(n_classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 32),
        nn.ReLU(),
        nn.Linear(32, n_classes),
    )


def network_in_network(width=8, n_classes=10):
    def convolution(before, after, size):
        layer = nn.Conv2d(before, after, size, padding=size // 2)
        return [layer, nn.BatchNorm2d(after), nn.ReLU()]

    return nn.Sequential(
        *convolution(1, width, 3),
        *convolution(width, width, 1),
        nn.MaxPool2d(2),
        *convolution(width, width, 3),
        nn.Conv2d(width, n_classes, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


torch.manual_seed(0)  # of the initial weights
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=8, random_state=0)
models = {
    name: RobustClassifier(
        module, input_shape=(1, 8, 8), max_epochs=15, lr=5e-3, random_state=0
    ).fit(X_train, y_train)
    for name, module in (("LeNet", lenet()), ("network in network", network_in_network()))
}

# %%
# The linear program over the region of each input, ``method="lp"``, is exact there, but the
# regions of convolutional networks are small, and few hold a point of another label.
# "polished" goes on in the regions of the adversarial examples that attacks find. "certified" is a
# proven lower bound of the distance.

EPSILON = 0.1
rows, found = [], {}
for name, model in models.items():
    for method in ("lp", "attack", "polished", "certified"):
        result = pointwise_robustness(
            model, X_test, method=method, epsilon_max=0.2, random_state=0
        )
        found[f"{name}, {method}"] = result
        if method == "certified":
            continue
        within = result.radius <= EPSILON
        rows.append(
            {
                "network": name,
                "accuracy": model.score(X_test, y_test),
                "method": method,
                "frequency": within.mean(),
                "severity": result.radius[within].mean() if within.any() else EPSILON,
            }
        )
print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))

# %%
# The share of inputs without an adversarial example lies between "certified" and "polished".

shown = {
    name: result for name, result in found.items() if name.endswith(("certified", "polished"))
}
display = RobustnessCurveDisplay.from_radius(shown)
display.ax_.set_ylabel("share of inputs without an example found")
plt.show()
