"""Which recorder keeps the evidence about a model."""

from skrobust.trees import is_tree_model
from skrobust.verification._evidence import REQUIRED
from skrobust.verification._evidence import make_recorder as make_network_recorder
from skrobust.verification._tree_evidence import make_tree_recorder

__all__ = ["make_recorder"]


def make_recorder(evidence, model, property, n_features):
    """Return the `Recorder` of a network, or of a model of trees, and a property.

    Parameters
    ----------
    evidence : str or path-like
        A folder, or "required".
    model : Model
    property : RobustnessProperty
    n_features : int

    Returns
    -------
    Recorder

    Raises
    ------
    UnsupportedModelError
        If the model cannot be read, or the checker of evidence refuses it.
    ValueError
        If the folder has evidence about another model.
    """
    if not is_tree_model(model):
        return make_network_recorder(evidence, model, property, n_features)
    folder = None if evidence == REQUIRED else evidence
    return make_tree_recorder(folder, model, property, n_features)
