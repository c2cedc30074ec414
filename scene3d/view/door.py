"""The door of the viewer: a server that answers before there is anything to show, and lets in only its own page.

A browser lets every web page open a WebSocket to every address, this machine's too, and says in the header Origin whose
page it was. Only the page that this server has sent is let in, and by a name of this machine where it listens to no
other: else a page from elsewhere, or a name made to point here (DNS rebinding), could look and press buttons.
Nothing here needs torch: while the page is on its way, the rest of the program is still being imported.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from typing import Any
from urllib.parse import urlsplit

from scene3d.view.address import LOCAL_HOSTS

log = logging.getLogger(__name__)

# Close code of the WebSocket standard: a policy forbids it.
FORBIDDEN = 1008
# A message that ends the program needs so long to get into a page.
LAST_WORDS_SECONDS = 1.0


def is_welcome(origin: str | None, host_header: str | None, listens_to: str) -> bool:
    """Whether a page may connect.

    Args:
        origin: Whose page it is, as its browser says; None where there is no browser.
        host_header: What the server was called.
        listens_to: Address on which it listens.
    """
    if origin is None:
        return True  # No browser, so no page that somebody else has put into it.
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host_header or ''}")
        same = (page.hostname, page.port or 80) == (server.hostname, server.port or 80)
    except ValueError:  # A port that is no number.
        return False
    return same and (listens_to not in LOCAL_HOSTS or server.hostname in LOCAL_HOSTS)


class Door:
    """A server with nothing but a line of text in it.

    Args:
        host: Address to listen on.
        port: A free port.
        title: Beside the controls.
    """

    def __init__(self, host: str, port: int, title: str) -> None:
        import viser

        self.host, self.port = host, port
        # viser prints a banner of its own, with an address that is not always right.
        with contextlib.redirect_stdout(io.StringIO()):
            self.server = viser.ViserServer(host, port, label=title, verbose=False)
        self._guard()
        # A browser that leaves between a picture's drawing and its sending is nothing to warn of.
        warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
        # Its share button would make a tunnel through somebody's server.
        self.server.gui.configure_theme(show_logo=False, show_share_button=False, dark_mode=True)
        self.status = self.server.gui.add_markdown("Reading the scene ...")

    def say(self, text: str) -> None:
        """Show a line of text in place of the last."""
        self.status.content = text

    def fail(self, message: str) -> None:
        """Show why there will be no scene, as long as it takes to get into the pages that are open; stop."""
        self.say(f"**{message}**")
        clients = self.server.get_clients()
        for client in clients.values():
            client.add_notification("Cannot be shown", message, auto_close_seconds=None, color="red")
        if clients:
            self.server.flush()
            time.sleep(LAST_WORDS_SECONDS)
        self.stop()

    def stop(self) -> None:
        """Stop listening."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()

    def _guard(self) -> None:
        """Ask everyone who connects, and those again who were faster than this."""
        # viser offers no check of its own. Its socket layer tells of connections before it reads or sends a message.
        sockets = self.server._websock_server
        connections: dict[Any, Any] = sockets._live_connections

        async def ask(client: Any) -> None:
            connection = connections[client.client_id]
            headers = connection.request.headers
            origin, host_header = headers.get("Origin"), headers.get("Host")
            if not is_welcome(origin, host_header, self.host):
                log.warning("refused a connection of %s to %s", origin, host_header)
                await connection.close(FORBIDDEN, "not the page of this viewer")

        sockets.on_client_connect(ask)
        sockets.disconnect_all_clients()
