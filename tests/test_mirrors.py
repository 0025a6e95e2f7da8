"""Every module has a test file of its name, as CONTRIBUTING promises."""

from pathlib import Path

import pytest

import skrobust

PACKAGE = Path(skrobust.__file__).parent
MODULES = sorted(
    file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py") if file.stem != "__init__"
)


def mirror(module):
    """Return where the tests of a module stand: attacks/_pgd.py -> attacks/test_pgd.py."""
    return module.with_name(f"test_{module.stem.removeprefix('_')}.py")


def test_mirrors_by_hand():
    assert mirror(Path("attacks/_pgd.py")) == Path("attacks/test_pgd.py")
    assert mirror(Path("_validation.py")) == Path("test_validation.py")
    assert mirror(Path("logics.py")) == Path("test_logics.py")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_has_its_test_file(module):
    file = Path(__file__).parent / mirror(module)
    assert file.is_file(), f"Write tests/{mirror(module)} for skrobust/{module}."
    assert "def test_" in file.read_text(encoding="utf-8")
