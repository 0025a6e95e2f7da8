"""
Linear regions: the closest adversarial example by a linear program
===================================================================

Around an input, a network of ReLUs is an affine map, as far as its linear region reaches. There
the closest input with another label is the optimum of a linear program. Bastani et al.
("Measuring neural net robustness with constraints", figure 1) show this on points in the plane,
with two labels and a hidden layer of 8 units; here it is drawn, and held against the truth.
"""

# %%
# Two moons, and a network whose linear regions are polygons.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from scipy.optimize import linprog
from sklearn.datasets import make_moons

from skrobust import RobustClassifier
from skrobust.pointwise import pointwise_robustness

X, y = make_moons(300, noise=0.1, random_state=0)
X = X.astype(np.float32)
model = RobustClassifier(
    hidden_layer_sizes=8, max_epochs=100, batch_size=50, lr=0.05, random_state=1
).fit(X, y)
print(f"Accuracy: {model.score(X, y):.3f}")

hidden, output = (part for part in model.net_.module_.modules() if hasattr(part, "weight"))
W1, b1, W2, b2 = (
    parameter.detach().double().numpy()
    for layer in (hidden, output)
    for parameter in (layer.weight, layer.bias)
)


# %%
# Each unit is on at one side of a line. The region of x is where all 8 units are as they are at
# x: 8 half-spaces. On it the difference of the two outputs is affine, so that the closest point of
# the region to which the network gives the other label is the optimum of a linear program in x and
# its distance t: minimize t, within distance t of the input, in the half-spaces, the other label
# not behind. Here it is written out, with ``A z <= b`` for ``z = (x, t)``.


def half_spaces(x):
    """Return A and b of the region ``A x <= b`` of x."""
    sign = np.where(W1 @ x + b1 > 0, 1, -1)
    return -sign[:, None] * W1, sign * b1


def lead_of_the_other(x):
    """Return w and c: in the region, ``w @ x + c`` is by how much the other label leads."""
    is_on = W1 @ x + b1 > 0
    w, c = np.diff(W2 * is_on, axis=0)[0] @ W1, np.diff(W2 * is_on, axis=0)[0] @ b1 + b2[1] - b2[0]
    return (w, c) if w @ x + c < 0 else (-w, -c)


def closest_in_region(x, which=slice(None)):
    """Return the optimum and its distance, over all half-spaces of the region or some of them."""
    A, b = half_spaces(x)
    w, c = lead_of_the_other(x)
    near = np.block([[np.eye(2), -np.ones((2, 1))], [-np.eye(2), -np.ones((2, 1))]])
    rows = np.vstack([near, np.column_stack([A[which], np.zeros(len(A[which]))]), [*-w, 0]])
    right = np.concatenate([x, -x, b[which], [c]])
    found = linprog([0, 0, 1], rows, right, bounds=[(None, None)] * 2 + [(0, None)])
    return (found.x[:2], found.fun) if found.status == 0 else (None, np.inf)


# %%
# `pointwise_robustness` solves the same program for all inputs at once, and adds half-spaces only
# as they are violated. Its "exact" method gives the true distance, over all regions: never larger.
# Some regions have no point of the other label, and then the program says nothing.

test = X[:30]
by_hand = np.array([closest_in_region(x)[1] for x in test.astype(float)])
program = pointwise_robustness(model, test, bounds=None, epsilon_max=4)
true = pointwise_robustness(model, test, method="exact", bounds=None, epsilon_max=4)
both = np.isfinite(by_hand) & np.isfinite(program.radius)
difference = np.abs(program.radius[both] - by_hand[both]).max()
print(f"Largest difference from the program written out: {difference:.1e}")
print(f"Regions without the other label: {np.isinf(by_hand).sum()} of {len(test)}")
at_optimum = (program.radius[both] <= true.radius[both] + 2e-3).mean()
print(f"Where there is one, the program's example is the closest of all for {at_optimum:.0%}")

# %%
# Of the inputs whose example is in view, the one at which the program is farthest from the truth:
# its region, the half-spaces with a rim on the side that they leave out, the program's example,
# and the closest one of all.

low, high = X.min(axis=0) - 0.1, X.max(axis=0) + 0.1
examples = program.adversarial_examples
is_in_view = both & ((examples > low) & (examples < high)).all(axis=1)
marked = np.argmax(np.where(is_in_view, program.radius - true.radius, -np.inf))
x = test[marked].astype(float)
A, b = half_spaces(x)
axes = [np.linspace(low[i], high[i], 601) for i in range(2)]
grid = np.stack(np.meshgrid(*axes), axis=-1)
beyond = grid @ A.T - b  # positive outside of a half-space
inside = beyond.max(axis=-1) <= 0
reach = beyond[inside].max(axis=0) / np.abs(A).sum(axis=1)  # how near the region comes to a line
bounds_it = reach > -0.01
print(f"Half-spaces that bound the region in view: {bounds_it.sum()} of 8")
radii = [closest_in_region(x, np.arange(8) != i)[1] for i in range(8)]
print(f"that move the optimum: {np.sum(np.array(radii) < by_hand[marked] - 1e-9)}")

colors = ["tab:blue", "tab:orange"]
figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.5), width_ratios=(1.7, 1), layout="constrained"
)
labels = model.predict(grid.reshape(-1, 2).astype(np.float32)).reshape(inside.shape)
left.contourf(*axes, labels, levels=[-0.5, 0.5, 1.5], colors=colors, alpha=0.2)
left.contourf(*axes, inside, levels=[0.5, 1.5], colors=["tab:green"], alpha=0.35)
left.scatter(*X.T, c=np.array(colors)[y], s=6)
for i in range(8):
    color, width = ("tab:green", 1.8) if bounds_it[i] else ("gray", 0.8)
    left.contour(*axes, beyond[..., i], levels=[0], colors=color, linewidths=width)
    rim = [0, 0.03 * np.abs(A[i]).sum()]
    left.contourf(*axes, beyond[..., i], levels=rim, colors=color, alpha=0.15)
for result, color, text in (
    (program, "tab:red", "linear program"),
    (true, "black", "closest of all"),
):
    r, example = result.radius[marked], result.adversarial_examples[marked]
    left.add_patch(Rectangle(x - r, 2 * r, 2 * r, fill=False, color=color, linestyle="--"))
    left.plot(*example, "o", color=color, label=f"{text}: {r:.3f}")
left.plot(*x, "*k", markersize=12, label="input")
left.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), title="The region of an input")
left.set_aspect("equal")
left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3)

limit, top = 1.05 * true.radius.max(), 1.1 * program.radius[both].max()
right.plot([0, limit], [0, limit], color="gray", linewidth=1)
right.plot(true.radius[both], program.radius[both], ".", color="tab:red")
right.plot(true.radius[~both], np.full((~both).sum(), top), "^", color="gray", clip_on=False)
right.set(xlim=(0, limit), ylim=(0, top), title="All inputs")
right.set(xlabel="true distance", ylabel="distance by the linear program")
right.text(0.05, 0.92, "triangles: none in the region", transform=right.transAxes, color="gray")
plt.show()

# %%
# So a frequency that is estimated by the program is a lower bound: of inputs with an example
# within epsilon, it misses those whose region does not hold it.

for epsilon in (0.05, 0.1, 0.2):
    shares = [(result.radius <= epsilon).mean() for result in (program, true)]
    print(f"within {epsilon}: {shares[0]:.3f} by the program, {shares[1]:.3f} in truth")
