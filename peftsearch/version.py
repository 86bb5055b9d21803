"""The version of peftsearch: written here alone, the build reads it."""

__version__ = "0.2.0"
