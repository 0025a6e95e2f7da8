"""Code as users write it: files that are imported, edited and imported again."""

import sys
import types


def load(folder, source, name="users_module"):
    """Write a file, and import it as what it now says; return the module."""
    path = folder / f"{name}.py"
    path.write_text(source)
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    exec(compile(source, path, "exec"), vars(module))
    return module
