"""Servers on 127.0.0.1 that speak the protocols of S3 and of Google Cloud Storage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

__all__ = ["gcs_server", "s3_server"]


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The environment in which boto3 finds it; it has a bucket `bucket`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "owner",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            boto3.client("s3").create_bucket(Bucket="bucket")
        yield environment
    finally:
        server.stop()


@contextlib.contextmanager
def gcs_server() -> Iterator[dict[str, str]]:
    """The environment in which Google's client finds it; it has a bucket `bucket`."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    port = server._api._httpd.socket.getsockname()[1]
    try:
        yield {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}
    finally:
        server.stop()
