"""Parameters that are objects: a default made when it is needed, or a list of named parts."""

from skrobust._validation import check_instance, expected

__all__ = ["DefaultParts", "NamedParts"]


class DefaultParts:
    """Mixin: some parameters are objects, for which None stands for a default.

    `get_params` lists the parameters of such a default, and `set_params` writes it out where one
    of them is set, so that a search reaches ``attack__n_steps`` also where `attack` is None.
    """

    def _default_parts(self):
        """Return a dict of parameter names to what None stands for."""
        return {}

    def _part(self, name):
        """Return the parameter `name`, or its default."""
        value = getattr(self, name)
        return self._default_parts()[name] if value is None else value

    def get_params(self, deep=True):
        """Return the parameters; with `deep` also those of parts, of defaults too."""
        params = super().get_params(deep=deep)
        for name, default in self._default_parts().items() if deep else ():
            if getattr(self, name) is None:
                params |= _nested(name, default)
        return params

    def set_params(self, **params):
        """Set parameters, also those of parts that are None; return self."""
        for name, default in self._default_parts().items():
            nested = {key for key in params if key.startswith(f"{name}__")}
            if nested and params.get(name, getattr(self, name)) is None:
                values = {key.removeprefix(f"{name}__"): params.pop(key) for key in nested}
                params[name] = default.set_params(**values)
        return super().set_params(**params)


class NamedParts:
    """Mixin: one parameter is a list of parts, each with a name, or None for a default list.

    An item of the list is a pair (name, part), or a part alone, which is named after its class in
    lower case: ``pgd``, and ``pgd_1`` and ``pgd_2`` where there are several. As in
    scikit-learn's `Pipeline`, a part is a parameter by its name, and its parameters are
    ``name__parameter``; a part that is replaced keeps its place.

    A subclass sets `_parts_name`, the name of the parameter that is the list, and defines
    `_default_list`. The mixin comes before `BaseEstimator` among its bases.
    """

    _parts_name = None

    def _default_list(self):
        """Return the list that None stands for."""
        return []

    @property
    def named_parts(self):
        """Dict of names to parts, those of the default list if the parameter is None."""
        named = _name_items(self._items())
        return {name: part for name, part in named if isinstance(name, str)}

    def _items(self):
        value = getattr(self, self._parts_name)
        return self._default_list() if value is None else value

    def get_params(self, deep=True):
        """Return the parameters; with `deep` also the parts by name, and their parameters."""
        params = super().get_params(deep=False)
        if not deep:
            return params
        for name, value in list(params.items()):
            params |= _nested(name, value)
        for name, part in self.named_parts.items():
            params[name] = part
            params |= _nested(name, part)
        return params

    def set_params(self, **params):
        """Set parameters, parts by their names, and parameters of parts; return self.

        The default list is written out only where one of its parts, or of their parameters, is
        set.
        """
        if self._parts_name in params:
            setattr(self, self._parts_name, params.pop(self._parts_name))
        names = self.named_parts.keys()
        if any(key.partition("__")[0] in names for key in params):
            items = [_changed(item, name, params) for item, name in self._items_and_names()]
            setattr(self, self._parts_name, items)
        return super().set_params(**params)

    def _items_and_names(self):
        items = self._items()
        return zip(items, (name for name, _ in _name_items(items)), strict=True)

    def _check_parts(self, kinds, example, *arguments):
        """Validate the list, and each part by its own `check`.

        Parameters
        ----------
        kinds : type or tuple of types
            What a part may be.
        example : str
            A part, to be shown in an error.
        *arguments : object
            For the `check` of the parts.

        Raises
        ------
        TypeError, ValueError
            If the parameter is no list of parts, or if names are not valid.
        """
        value, list_name = getattr(self, self._parts_name), self._parts_name
        if value is not None and not (isinstance(value, list | tuple) and value):
            expectation = f"None, or a list of parts or of pairs (name, part), such as {example}"
            raise TypeError(expected(list_name, value, expectation))
        named = _name_items(self._items())
        names, own = [name for name, _ in named], set(super().get_params(deep=False))
        valid = all(isinstance(name, str) and name and "__" not in name for name in names)
        if not valid or len(set(names)) < len(names) or own & set(names):
            raise ValueError(
                f"Got {list_name} with the names {names}, but expected different strings, "
                f"without '__', and none of the parameters {sorted(own)}."
            )
        for place, (item, (name, part)) in enumerate(zip(self._items(), named, strict=True)):
            shown_name = name if _is_pair(item) else f"{list_name}[{place}]"
            check_instance(shown_name, part, kinds, example).check(*arguments)


def _changed(item, name, params):
    """Return an item of the list with what `params`, which loses it, sets of the part `name`."""
    part = params.pop(name, item[1] if _is_pair(item) else item)
    keys = [key for key in params if key.startswith(f"{name}__")]
    if keys:
        part.set_params(**{key.removeprefix(f"{name}__"): params.pop(key) for key in keys})
    return (name, part) if _is_pair(item) else part


def _nested(name, value):
    """Return the parameters of an object as name__parameter; of anything else, none."""
    if not hasattr(value, "get_params") or isinstance(value, type):
        return {}
    return {f"{name}__{key}": inner for key, inner in value.get_params(deep=True).items()}


def _is_pair(item):
    return isinstance(item, tuple) and len(item) == 2


def _name_items(items):
    """Return a list of (name, part); of what is no list, none."""
    if not isinstance(items, list | tuple):
        return []
    kinds = [None if _is_pair(item) else type(item).__name__.lower() for item in items]
    named, seen = [], {}
    for item, kind in zip(items, kinds, strict=True):
        if kind is None:
            named.append(item)
            continue
        seen[kind] = seen.get(kind, 0) + 1
        named.append((f"{kind}_{seen[kind]}" if kinds.count(kind) > 1 else kind, item))
    return named
