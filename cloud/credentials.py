"""TLS of the cloud's servers, which take up a certificate that was renewed while they run."""

from __future__ import annotations

from pathlib import Path

import grpc

from cloud import certificates
from cloud.errors import IdentityError


def server_credentials(folder: Path, clients: bytes | None = None) -> grpc.ServerCredentials:
    """Show the certificate that lies in `folder` when somebody connects; connections that are open stay as they are.

    Args:
        folder: of `server.key` and `server.pem`.
        clients: the CA, PEM, of the certificates that are asked of callers; None: none are asked.

    Raises:
        IdentityError: no certificate was issued.
    """
    loaded = certificates.server_files(folder)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Called before each handshake; None: the certificate is the same as before."""
        nonlocal loaded
        try:
            found = certificates.server_files(folder)
        except (IdentityError, OSError):
            return None
        if found == loaded:
            return None
        loaded = found
        return grpc.ssl_server_certificate_configuration([found], clients)

    # That None is an answer is in gRPC's words, not in its types.
    first = grpc.ssl_server_certificate_configuration([loaded], clients)
    return grpc.dynamic_ssl_server_credentials(first, renewed, clients is not None)  # type: ignore[arg-type]
