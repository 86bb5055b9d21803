"""The Hugging Face Hub offline: use its caches at once, not after 30 s of retries."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlparse

from huggingface_hub import constants
from huggingface_hub.utils import logging

__all__ = ["prepare_hub"]

_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def prepare_hub() -> str:
    """Switch the Hub's libraries to their caches if its host name does not resolve.

    Returns a remark for errors: ` (offline: …)`, ` (HF_HUB_OFFLINE is set)` or nothing.
    """
    logging.set_verbosity_error()
    if constants.HF_HUB_OFFLINE:
        return " (HF_HUB_OFFLINE is set)"
    # Behind a proxy names are resolved by the proxy, so that failing here says nothing.
    if any(os.environ.get(name) for name in _PROXIES) or _resolves(constants.ENDPOINT):
        return ""
    # The variable for libraries not imported yet, the constant for huggingface_hub itself.
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    return " (offline: its host cannot be found)"


def _resolves(endpoint: str) -> bool:
    """Whether the name of a URL's host has an address."""
    try:
        socket.getaddrinfo(urlparse(endpoint).hostname, 443)
    except OSError:
        return False
    return True
