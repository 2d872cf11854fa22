"""Short-lived certificates for tests of TLS, made by the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A self-signed certificate of 127.0.0.1, which is its own authority."""

    certificate: Path
    key: Path


def make_certificate(directory: Path, name: str) -> Certificate:
    """Makes a certificate in `directory`; skips the test where there is no openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl program")
    certificate = Certificate(certificate=directory / f"{name}.pem", key=directory / f"{name}.key")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", str(certificate.key), "-out", str(certificate.certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate
