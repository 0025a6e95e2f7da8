"""
Robustness along the data manifold
==================================

Most points of a ball around an image are no images that anyone would meet. An autoencoder gives
better neighbors: what it decodes near the code of the image. `ManifoldRobustness` is R4 of Tibo
et al.: how many of these keep the label, where the closer ones count more. The plain share stands
beside it.
"""

# %%
# A small autoencoder of digits. Any object with ``encode`` and ``decode`` will do. A penalty on
# the mean and the spread of the codes makes these roughly standard normal, so that the scale of
# the noise means something.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from skrobust import RobustClassifier
from skrobust.datasets import load_digits
from skrobust.scorers import ManifoldRobustness

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = X[:1200], X[1200:1500], y[:1200], y[1200:1500]


class Autoencoder(nn.Module):
    def __init__(self, n_features=64, n_codes=10):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(n_features, 64), nn.ReLU(), nn.Linear(64, n_codes))
        self.decode = nn.Sequential(
            nn.Linear(n_codes, 64), nn.ReLU(), nn.Linear(64, n_features), nn.Sigmoid()
        )


torch.manual_seed(0)
autoencoder = Autoencoder()
optimizer = torch.optim.Adam(autoencoder.parameters(), lr=3e-3)
images = torch.as_tensor(X_train)
for _ in range(150):
    for batch in images[torch.randperm(len(images))].split(100):
        codes = autoencoder.encode(batch)
        error = (autoencoder.decode(codes) - batch).square().sum(dim=1).mean()
        spread = codes.T.cov() - torch.eye(codes.shape[1])
        loss = error + codes.mean(dim=0).square().sum() + spread.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
# An image, and its neighbors under more and more noise.

scales = [0.06, 0.3, 0.6, 1.2]
figure, axes = plt.subplots(len(scales), 9, figsize=(7, 3.4), layout="constrained")
with torch.no_grad():
    code = autoencoder.encode(torch.as_tensor(X_test[:1]))
    for scale, row in zip(scales, axes, strict=True):
        near = autoencoder.decode(code + scale * torch.randn(8, code.shape[1]))
        for ax, image in zip(row, [X_test[0], *near.numpy()], strict=True):
            ax.imshow(image.reshape(8, 8), cmap="gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"{scale:g}")
axes[0, 0].set_title("image")

# %%
# The shares that keep the label, for three classifiers, at the paper's scale of 0.06 and beyond.
# The reconstruction alone costs some labels, which the result tells apart.

models = {
    "random forest": RandomForestClassifier(25, random_state=0),
    "nearest neighbors": KNeighborsClassifier(3),
    "network": RobustClassifier(max_epochs=20, random_state=0),
}
figure, ax = plt.subplots(layout="constrained")
for name, model in models.items():
    model.fit(X_train, y_train)
    results = [
        ManifoldRobustness(autoencoder, scale, n_samples=50, random_state=0).evaluate(
            model, X_test
        )
        for scale in scales
    ]
    kept = results[0].reconstructed.mean()
    print(f"{name:20} reconstructed {kept:.3f}", [f"{r.share:.3f}" for r in results])
    shares, intervals = zip(*[(r.share, r.share_interval) for r in results], strict=True)
    ends = np.abs(np.array([(i.low, i.high) for i in intervals]).T - shares)
    places = np.multiply(scales, 1 + 0.05 * len(ax.containers))  # side by side
    ax.errorbar(places, shares, yerr=ends, capsize=3, label=name)
ax.set(xlabel="scale of the noise", ylabel="share that keeps the label", xscale="log")
ax.legend()

# %%
# R4 itself, whose size depends on how closely the autoencoder reconstructs: compare classifiers
# by the same one. PCA in its place.

for title, manifold in {"network": autoencoder, "PCA": PCA(10, whiten=True).fit(X_train)}.items():
    scorer = ManifoldRobustness(manifold, n_samples=50, random_state=0)
    for name, model in models.items():
        result = scorer.evaluate(model, X_test)
        distance = result.distances.mean()
        print(
            f"{title:8} {name:20} R4 {result.r4:.4f}, normalized {result.normalized:.3f}, "
            f"mean distance {distance:.2f}"
        )
plt.show()
