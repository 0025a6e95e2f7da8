"""The version, said once: the metadata, the docs and CITATION.cff take it from here."""

__all__ = ["__version__"]

__version__ = "0.1.0"
