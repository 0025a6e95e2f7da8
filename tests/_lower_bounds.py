"""Print what pip is constrained to on the lower bounds: `python tests/_lower_bounds.py`.

One line for each requirement of pyproject.toml that the suite needs: the lowest version that it
allows, exactly. `make test-lowest` installs them.
"""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(r"(?P<name>[\w-]+)(\[[\w,]+\])?>=(?P<version>[\d.]+)(?P<marker>;.*)?")


def requirements(project, extra):
    """Return the requirements of the package with an extra, and with the extras in that."""
    listed = [*project["dependencies"], *project["optional-dependencies"][extra]]
    inner = {
        name
        for text in listed
        if text.startswith("skrobust[")
        for name in re.search(r"\[(.*)\]", text)[1].split(",")
    }
    nested = [text for name in sorted(inner) for text in project["optional-dependencies"][name]]
    return [text for text in [*listed, *nested] if not text.startswith("skrobust[")]


def lowest(text):
    """Return the constraint to the lowest version that a requirement allows."""
    match = REQUIREMENT.fullmatch(text)
    if match is None:
        raise ValueError(f"Got {text!r} in pyproject.toml, but expected name>=version.")
    return f"{match['name']}=={match['version']}{match['marker'] or ''}"


if __name__ == "__main__":
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    print("\n".join(sorted({lowest(text) for text in requirements(project, "test")})))
