"""What differs from the paper on global robustness, and how its silences are read."""

__all__ = ["NOTES"]

NOTES = {
    "all": (
        "The paper, an anonymous submission, prints no table: it shows scatter plots and says "
        "what is seen in them. So a column *paper* holds a statement, not a figure. Robustness "
        "is 1 - D, so that large is robust; D, a mean change, grows with fragility, and which "
        "of both the paper draws is not in its text. A network is attacked by one step of FGSM "
        "along the gradient of the cross-entropy of its own label, in an L-infinity ball cut by "
        "[0, 1]; all three measures come from this one step. The paper names neither the loss "
        "nor the label of its FGSM. True labels play no part in robustness."
    ),
    "convergence": (
        "Readings: the paper gives neither the CNN, the norm, delta nor the tolerances of its "
        "figure, and decides by the discretized exhaustive search of Huang et al. 2017; here a "
        "complete verifier decides without a discretization, around a CNN with one convolution "
        "of stride 2, whose images are averaged over 2 x 2 pixels in the small budget. What "
        "stays unknown at the time limit counts as not robust. Each image is decided once, and "
        "each estimate draws from them with replacement: then the share is known, and draws are "
        "independent for any number of samples. Samples are those of Hoeffding's inequality at "
        'a confidence of 0.95, which the paper does not name: its "just above 700" at 0.05 fits '
        "the 738 of 0.95. The paper calls the growth exponential; it is with 1 / tolerance "
        "squared."
    ),
    "delta": (
        "Percent of labels that FGSM changes on validation images, as a mean over the networks "
        "with at least 50 % accuracy there. The radius closest to one half, in bold, is that of "
        "all tables, one for each data set. The paper says 0.05 of its figure, and smaller "
        "radii for Fashion-MNIST and CIFAR-10, where everything was fragile otherwise."
    ),
    "trade-off": (
        "All networks have the same training images and seed. Spearman's correlation, with 95 % "
        "intervals by a bootstrap over trainings: networks of one training, read after several "
        "numbers of epochs, are drawn together. Pearson's interval is by Fisher's transform, "
        "and takes the networks as independent. Networks that have learned have at least 50 % "
        "accuracy on validation images; a network that has learned nothing does not change its "
        "output either, and would make a trade-off by itself. Differences: fewer networks, "
        "training images and epochs, and larger learning rates in the small budget, on images "
        "averaged over 2 x 2 pixels; of the paper's grids, 1 to 3 values of each "
        "hyperparameter. Stride, padding, pooling and the batch size are readings (see "
        "`_global_grids.py`). DEMOGEN's 200 networks are left out."
    ),
    "further": "Rank correlation of accuracy and robustness, intervals as above.",
    "effects": (
        "Rank correlation of the number of weights, and of the epochs, with robustness, of the "
        "networks that have learned; then by how much robustness changes from the first to the "
        "last number of epochs of one and the same training. The paper draws box plots, which "
        "stand below. Capacity is read as the number of weights."
    ),
    "pruning": (
        '"before" is the network that is pruned; "trained on" goes on without pruning for as '
        "many epochs as the pruned ones have. Readings: magnitudes are compared among all "
        "layers, the share is spread so that each iteration removes the same part of what is "
        "left, each iteration is followed by epochs of training at the same learning rate (2 in "
        "the small budget; as many as before pruning with --full), and weights are not rewound, "
        'although the paper\'s appendix says "lottery ticket" once.'
    ),
    "amount": (
        "Rank correlations over pruned networks, with intervals over the networks that they "
        "were pruned from; then robustness at the largest share less that at the smallest one, "
        "of the same network in as many iterations, with a 95 % interval by the normal "
        "approximation."
    ),
    "sampling": (
        "At the radius that figure 2's networks gave. The posterior is sampled by "
        "`BayesianClassifier`, one chain; what predicts and is attacked is the mean of its "
        "softmax vectors, one reading, for the paper does not say how FGSM is applied to a "
        "posterior. SGD's networks are trained on the same images and attacked as strongly; for "
        "its rightmost plot, the paper attacks them ten times more weakly. Prior and warm-up "
        "are not in the paper: here a normal prior with the standard deviation of the budget. "
        "The small budget has fewer images, smaller networks and fewer samples."
    ),
    "no sampling": (
        "Figure 4 (Hamiltonian Monte Carlo) is left out: `BayesianClassifier` or Pyro, the "
        'extra "bayes", is missing.'
    ),
    "claims": (
        "A sign counts as seen where the 95 % interval of the rank correlation excludes 0, for "
        "each of three measures in each set of networks; of figure 2, the networks that have "
        "learned."
    ),
}
