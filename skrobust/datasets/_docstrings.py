"""The part of a docstring that all loaders share, said once and filled in for each data set."""

import re
import textwrap

__all__ = ["documented"]

_SHARED = """\
Parameters
----------
subset : {{"train", "test", "all"}}, default="train"
    Which images to return: those to train on, those to test on, or both in this order.
data_home : str or path-like, default=None
    The folder that holds the file. By default the environment variable
    ``SKROBUST_DATA`` names it, else it is `sklearn.datasets.get_data_home()`.
download_if_missing : bool, default=True
    {download}
return_X_y : bool, default=False
    Whether to return ``(data, target)`` instead of a Bunch.

Returns
-------
{name} : Bunch, or (data, target)
    data : float32 array of shape (n_samples, {n_features}), pixels in [0, 1].
    target : int64 array of shape (n_samples,), classes from 0 to {last_class}.
    target_names : list of str, one a class.
    input_shape : tuple {input_shape} of channels, height, width.
    DESCR : str, which says where the data came from, and how many they are.

Raises
------
FileNotFoundError
    If there is no file, and the download is not wanted or not possible.
ValueError
    If the file does not hold the arrays that it should, or an argument is no such value.
TypeError
    If `data_home` is no path."""


def documented(source):
    """Return a decorator that puts the shared sections for `source` where ``{{shared}}`` stands.

    The rest of the docstring is the loader's own. A tool that reads sources instead of
    ``__doc__`` sees the mark.
    """

    def decorate(loader):
        if loader.__doc__:  # there is none under `python -OO`
            # From Python 3.13 on, compiled docstrings have lost their indentation.
            indent = re.search(r"^( *)\{shared\}", loader.__doc__, re.MULTILINE)[1]
            text = textwrap.indent(_shared(source, loader.__name__), indent)
            loader.__doc__ = loader.__doc__.replace(indent + "{shared}", text)
        return loader

    return decorate


def _shared(source, name):
    return _SHARED.format(
        name=name.removeprefix("fetch_"),
        n_features=source.n_features,
        input_shape=source.input_shape,
        last_class=len(source.target_names) - 1,
        download=_download_text(source),
    )


def _download_text(source):
    if source.openml:
        return "Whether to download from OpenML, into `data_home`, where there is no file."
    if source.page:
        return "Whether to download the published files, into `data_home`, where there are none."
    return "Without effect, since OpenML does not have this data set."
