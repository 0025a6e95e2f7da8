"""What differs from the paper, table by table, and why."""

__all__ = ["NOTES"]

NOTES = {
    "all": (
        "Every figure stands beside the paper's, in brackets. The paper leaves the structure of "
        "its networks to a supplement, and gives neither weights, nor optimizers, nor the "
        "settings of its attacks; so ours are stated, and figures can agree in order rather than "
        "in size. A network of the small budget sees a few thousand images for a few epochs, the "
        "paper's all of them: its accuracies are lower for that reason alone, those on CIFAR-10 "
        "most of all, where the images are a subset and ResNet-20 is a residual network of eight "
        "layers, without augmentation of the data."
    ),
    "weights": (
        "The paper takes the weight whose test accuracy is closest to that without a regime. The "
        "weight of zero would always win that; and test images are for testing. Here it is the "
        "largest weight of a short list whose accuracy on validation images is at most one point "
        "below that of the plain network, and where there is none, the one that loses least. On "
        "so many validation images a share is known to within one or two points."
    ),
    "accuracy": (
        "Accuracy of all test images, with ± half of the 95 % interval. HEIN is "
        "`CrossLipschitzTraining`, R2 `MarginCoTraining` with the generator of the library: two "
        "convolutions and dense layers, of the same shape for all data sets."
    ),
    "wins": (
        "The paper gives no settings of its attacks, and the share depends on them; so there are "
        "two readings. BG is `LinearBoundary()` in both, which linearizes ten times where the "
        "paper does once; FGSM and PGD follow the margin; all run from the classifier's own "
        "label, on the first images of the shuffled test set, and are pulled to the boundary by "
        "bisection on the segment (eq. 14). In the first three columns FGSM and PGD are repeated "
        "in ever smaller balls, which is how this library looks for a closest point: the stronger "
        "reading, which R2 and figure 4 are made of. In the last three, they make one run in one "
        "ball, of a tenth of the diameter √m, and eq. 14 is all that follows: the paper's text to "
        "the letter, with a radius of our choice. Shares are of the images at which any attack "
        "found something; a tie goes to BG, and then to FGSM. The paper's table says training "
        "examples, and its text that all is scored on the test set, as here."
    ),
    "margins": (
        "R2 is the mean L2 distance of the closest point that has another label, up to √m, with "
        "its 95 % interval of a normal mean. Of its values the text repeats only that of "
        "Fashion-MNIST; the others are areas in the legends of figure 4, which are not at hand."
    ),
    "corrupted": (
        "Figures of the paper are of the published MNIST-C and its 10,000 test images. Here they "
        "are of the images that `fetch_mnist_c` finds; where these are a copy made by the "
        "published corruptions on fewer images, the draws are others. No network has seen a "
        "corrupted image, and the weights were chosen on clean ones."
    ),
    "manifold": (
        "R4 depends on how far the autoencoder reconstructs an image from it (its generated "
        "points are at those distances): values compare within this report, and with the paper's "
        "only in order. The share of generated points that keep the label does not depend on the "
        "distance. The radii Σ are the distances of the 200 generated points, a reading that "
        "agrees with the size of the paper's values. One Wasserstein autoencoder, fitted on the "
        "training images, serves training and scoring, and all networks are scored at the same "
        "points. Stutz et al. learn a decoder for each class; here the one decoder serves, with a "
        "radius of 0.3 in the codes, which nothing chose."
    ),
    "claims": (
        "Networks are compared on the same images. 'Tied' says that the 95 % interval of the mean "
        "difference holds 0, or, for a loss, that it holds the limit. These are one network each: "
        "the interval is of the images, not of another seed."
    ),
}
