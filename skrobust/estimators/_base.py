"""What classifiers with logits share."""

import torch
from sklearn.base import BaseEstimator, ClassifierMixin

__all__ = []


class LogitsClassifier(ClassifierMixin, BaseEstimator):
    """Prediction from `_logits(X)`."""

    def decision_function(self, X):
        """Return the logits; for two classes, that of the second minus that of the first.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X):
        """Return the softmax of the logits, of shape (n_samples, n_classes)."""
        return torch.softmax(torch.as_tensor(self._logits(X)), dim=1).numpy()

    def predict(self, X):
        """Return the class of the largest logit, of shape (n_samples,)."""
        logits = self._logits(X)
        return self.classes_[logits.argmax(axis=1)]


def plain_array(values):
    """Return a tensor, also one with a gradient or on another device, as an array."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
