"""Parameters that are objects, with a default that is made when it is needed."""

__all__ = ["DefaultParts"]


class DefaultParts:
    """Mixin: some parameters are objects, for which None stands for a default.

    `set_params` writes the default out where a parameter of it is set, so that a search reaches
    ``attack__n_steps`` also where `attack` is None.
    """

    def _default_parts(self):
        """Return a dict of parameter names to what None stands for."""
        return {}

    def _part(self, name):
        """Return the parameter `name`, or its default."""
        value = getattr(self, name)
        return self._default_parts()[name] if value is None else value

    def set_params(self, **params):
        """Set parameters, also those of parts that are None; return self."""
        for name, default in self._default_parts().items():
            reached = any(key.startswith(f"{name}__") for key in params)
            if reached and params.get(name, getattr(self, name)) is None:
                params[name] = default
        return super().set_params(**params)
