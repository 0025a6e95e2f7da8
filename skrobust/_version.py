"""The version of skrobust, said once."""

__version__ = "0.1.0"
