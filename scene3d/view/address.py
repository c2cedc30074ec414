"""Where the viewer listens, and what to tell the user about it."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping

from scene3d.core.errors import Scene3dError

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
MAX_TRIES = 50


class AddressError(Scene3dError):
    """No port to listen on."""


def free_port(host: str, wanted: int) -> int:
    """The port wanted, or the next that is free.

    Raises:
        ValueError: it is no port.
        AddressError: the host is not one of this machine, or none of the next MAX_TRIES ports is free.
    """
    if not 1 <= wanted <= 65535:
        raise ValueError(f"port: expected 1 to 65535, got {wanted}")
    problem = ""
    for port in range(wanted, min(wanted + MAX_TRIES, 65536)):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except (OSError, UnicodeError) as error:
                problem = str(error)
                continue
        return port
    raise AddressError(f"cannot listen on {host}, ports {wanted} and up: {problem}. Choose another --host or --port")


def announcement(host: str, port: int, wanted: int, environment: Mapping[str, str] = os.environ) -> list[str]:
    """What to print: the URL to open, how to reach it through SSH, and who else can."""
    lines = []
    if port != wanted:
        lines.append(f"port {wanted} is taken, using {port}")
    if host in LOCAL_HOSTS:
        lines.append(f"open http://localhost:{port}")
        if environment.get("SSH_CONNECTION"):
            target = f"{getpass.getuser()}@{socket.gethostname()}"
            lines.append(f"from your own computer: ssh -L {port}:localhost:{port} {target}, then open that URL there")
        return lines
    name = socket.gethostname() if host in ("0.0.0.0", "::", "") else host
    lines.append(f"open http://{name}:{port}")
    lines.append("everyone who can reach this machine can look at the scene; without --host only you can")
    return lines
