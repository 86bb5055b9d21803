"""The version of peftsearch, also read by the build."""

__version__ = "0.2.0"
