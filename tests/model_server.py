"""``transformers serve``, a server that is not ours, with a model from a folder."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

import pytest


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(model):
    """The address of ``transformers serve`` with this model."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model)]
    with open(model / "serve.log", "w+") as log:
        process = subprocess.Popen(
            [*command, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        try:
            for _ in range(480):
                if process.poll() is not None:
                    pytest.fail(f"the server ended: {(model / 'serve.log').read_text()[-2000:]}")
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()
