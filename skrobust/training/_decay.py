"""How learning rates fall over a training."""

import math

from skrobust._validation import check_choice

__all__ = ["RateDecay", "check_decay"]


def check_decay(decay):
    """Refuse what is no way for learning rates to fall."""
    check_choice("decay", decay, ("cosine", "none"))


class RateDecay:
    """Learning rates that fall to 0 by the end of a training, step by step, or stay as they are.

    Where a scheduler of torch holds the rates, as by skorch's LRScheduler, they are left to it;
    and from the step on at which anything else sets a rate, as ReduceLROnPlateau does, it stays
    as that left it.
    A call that starts after the last epoch of `fit`, as for fine-tuning, is a training of its
    own.

    Parameters
    ----------
    decay : {"cosine", "none"}, default="none"
        "cosine" is half a cosine (Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5).
    fit : TrainingFit, default=None
        The call. Without one all rates stay.
    hold : int, default=0
        Epochs of the first call before they fall; where these are all, they stay.
    """

    def __init__(self, decay="none", fit=None, hold=0):
        self.rates = []
        if decay == "none" or fit is None or fit.optimizer is None:
            return
        last = fit.epoch + fit.n_epochs
        if fit.epoch < fit.max_epochs:
            self.first, self.last = hold, max(last, fit.max_epochs)
        else:
            self.first, self.last = max(fit.epoch, hold), last
        if self.first >= self.last:
            return
        groups = fit.optimizer.param_groups
        # Schedulers of torch note the rate that they started from, except for ReduceLROnPlateau.
        self.rates = [(group, group["lr"]) for group in groups if "initial_lr" not in group]
        self._share = 1.0

    def apply(self, step):
        """Set the rates of a step."""
        self._leave()
        if not self.rates:
            return
        done = (step.epoch - self.first + step.batch / step.n_steps) / (self.last - self.first)
        self._share = (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))) / 2
        for group, rate in self.rates:
            group["lr"] = rate * self._share

    def finish(self):
        """Set the rates that were there before, for calls that follow."""
        self._leave()
        for group, rate in self.rates:
            group["lr"] = rate

    def _leave(self):
        """Leave the rates that something else has set since the last step."""
        self.rates = [(group, r) for group, r in self.rates if group["lr"] == r * self._share]
