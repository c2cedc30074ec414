"""The door of the viewer: who is let in, what a page is told, and that the address is there before the scene."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import chromium
from tiny_capture import tiny_scene

from scene3d.io.registry import write_scene
from scene3d.view.address import free_port
from scene3d.view.door import Door, is_welcome

viser = pytest.importorskip("viser", reason="viser is not installed")


@pytest.fixture
def door() -> Iterator[Door]:
    opened = Door("127.0.0.1", free_port("127.0.0.1", 8810), "test")
    yield opened
    opened.stop()


@pytest.mark.parametrize(
    ("origin", "host_header", "listens_to", "expected"),
    [
        ("http://localhost:8080", "localhost:8080", "127.0.0.1", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1", True),
        ("http://[::1]:8080", "[::1]:8080", "::1", True),
        ("http://localhost:9000", "localhost:9000", "127.0.0.1", True),  # through ssh -L 9000:localhost:8080
        (None, "localhost:8080", "127.0.0.1", True),
        ("http://evil.example", "localhost:8080", "127.0.0.1", False),
        ("http://localhost:8081", "localhost:8080", "127.0.0.1", False),
        ("http://evil.example:8080", "evil.example:8080", "127.0.0.1", False),  # a name made to point here
        ("null", "localhost:8080", "127.0.0.1", False),
        ("http://localhost:port", "localhost:8080", "127.0.0.1", False),
        ("http://localhost:8080", None, "127.0.0.1", False),
        ("http://box.lan:8080", "box.lan:8080", "0.0.0.0", True),
        ("http://evil.example", "box.lan:8080", "0.0.0.0", False),
    ],
)
def test_only_pages_of_the_viewer_are_welcome(
    origin: str | None, host_header: str | None, listens_to: str, expected: bool
):
    assert is_welcome(origin, host_header, listens_to) is expected


def _asked(port: int, origin: str) -> tuple[int, int | None]:
    """How many messages the server sends until it falls silent or closes, and the code with which it closes."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    n = 0
    with connect(f"ws://localhost:{port}", origin=origin, subprotocols=[f"viser-v{viser.__version__}"]) as socket:
        try:
            while True:
                socket.recv(timeout=1.0)
                n += 1
        except TimeoutError:
            return n, None
        except ConnectionClosed:
            return n, socket.close_code


def test_the_server_turns_foreign_pages_away_before_a_word(door: Door, caplog: pytest.LogCaptureFixture):
    assert _asked(door.port, "http://evil.example") == (0, 1008)
    assert "refused a connection of http://evil.example" in caplog.text
    n, code = _asked(door.port, f"http://localhost:{door.port}")
    assert n > 0
    assert code is None


@pytest.mark.parametrize("path", ["/../../../../etc/passwd", "/%2e%2e/%2e%2e/__init__.py", "/..%5c..%5c__init__.py"])
def test_no_path_leads_into_the_file_system(door: Door, path: str):
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=10)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()


def _start(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scene3d", "view", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_file_that_cannot_be_read_ends_the_viewer_with_one_line(tmp_path: Path):
    (tmp_path / "bad.ply").write_bytes(b"ply\nformat binary_little_endian 1.0\n")
    process = _start(str(tmp_path / "bad.ply"), "--port", "8830")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("scene3d: error: ")
    assert "Traceback" not in errors
    assert errors.count("\n") == 1


@pytest.mark.slow
def test_an_open_page_keeps_the_reason_why_there_is_no_scene():
    opened = Door("127.0.0.1", free_port("127.0.0.1", 8820), "test")
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 800, "height": 500})
        tab.goto(f"http://localhost:{opened.port}")
        tab.get_by_text("Reading the scene").wait_for(timeout=60_000)
        while not opened.server.get_clients():
            tab.wait_for_timeout(50)
        opened.fail("bad.ply: expected 100 bytes, got 7")
        tab.wait_for_timeout(500)
        assert tab.get_by_text("bad.ply: expected 100 bytes, got 7").count() > 0


def test_the_address_is_told_before_torch_is_imported(tmp_path: Path):
    write_scene(tiny_scene(), tmp_path / "scene.ply")
    program = (
        "import sys; from scene3d.stages import view; from scene3d.view.door import Door; "
        "from scene3d.view.address import announcement; print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
