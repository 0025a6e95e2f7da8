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
        "BG is `LinearBoundary()`, FGSM and PGD follow the margin, and all are pulled to the "
        "boundary by bisection on the segment (eq. 14). Two things make ours stronger. "
        "`LinearBoundary` linearizes ten times, the paper once. And FGSM and PGD, which go to "
        "the end of the ball, are repeated in smaller balls by bisection on the radius: from the "
        "whole ball of radius √m alone they would end far away, and the paper does not name "
        "another radius. So PGD is closest far more often here than in the paper on plain "
        "networks. The attacks run from the classifier's own label, on the first images of the "
        "shuffled test set. Shares are of the images at which any attack found something; a tie "
        "goes to BG, and then to FGSM."
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
        "points are at those distances, whose median is in the table): values compare within "
        "this report, and with the paper's only in order. The share of generated points that "
        "keep the label does not depend on the distance. The radii Σ are the distances of the "
        "200 generated points, a reading that agrees with the size of the paper's values. One "
        "Wasserstein autoencoder, fitted on the training images, serves training and scoring, "
        "and all networks are scored at the same points. Stutz et al. learn a decoder for each "
        "class; here the one decoder serves, with a radius of 0.3 in the codes."
    ),
    "claims": (
        "Networks are compared on the same images. 'Tied' says that the 95 % interval of the mean "
        "difference holds 0, or, for a loss, that it holds the limit. These are one network each: "
        "the interval is of the images, not of another seed."
    ),
}
