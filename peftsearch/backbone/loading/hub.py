"""The Hugging Face Hub, or doing without it at once instead of after half a minute of retries."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlparse

from huggingface_hub import constants
from huggingface_hub.utils import logging

__all__ = ["prepare_hub"]

_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def prepare_hub() -> str:
    """Switch the Hub's libraries to their caches if its host cannot even be named.

    Returns what to say of it in an error: ` (offline)`, ` (HF_HUB_OFFLINE is set)` or nothing.
    """
    logging.set_verbosity_error()
    if constants.HF_HUB_OFFLINE:
        return " (HF_HUB_OFFLINE is set)"
    if any(os.environ.get(name) for name in _PROXIES) or _resolves(constants.ENDPOINT):
        return ""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read by libraries not imported yet
    constants.HF_HUB_OFFLINE = True
    return " (offline: its host cannot be found)"


def _resolves(endpoint: str) -> bool:
    try:
        socket.getaddrinfo(urlparse(endpoint).hostname, 443)
    except OSError:
        return False
    return True
