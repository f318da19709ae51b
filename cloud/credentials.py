"""TLS of the cloud's servers, which take up a certificate that was renewed while they run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import grpc

from cloud import certificates
from cloud.errors import IdentityError

_LOG: Final = logging.getLogger(__name__)


def server_credentials(folder: Path, clients: bytes | None = None) -> grpc.ServerCredentials:
    """Show the certificate that lies in `folder` when somebody connects; connections that are open stay as they are.

    Args:
        folder: of `server.key` and `server.pem`.
        clients: the CA, PEM, of the certificates that are asked of callers; None: none are asked.

    Raises:
        IdentityError: no certificate was issued, or it can't be read.
    """
    loaded = certificates.server_files(folder)
    told = ""

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Called before each handshake; None: the certificate is the same as before."""
        nonlocal loaded, told
        try:
            found = certificates.server_files(folder)
        except IdentityError as error:
            if str(error) != told:  # once, and not at each handshake
                told = str(error)
                _LOG.warning("certificate_not_taken_up error=%s", told)
            return None
        told = ""
        if found == loaded:
            return None
        loaded = found
        return grpc.ssl_server_certificate_configuration([found], clients)

    # That None is an answer is in gRPC's words, not in its types.
    first = grpc.ssl_server_certificate_configuration([loaded], clients)
    return grpc.dynamic_ssl_server_credentials(first, renewed, clients is not None)  # type: ignore[arg-type]
