"""The test helpers of Channels, for a site whose consumers are views: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.extended("the suites of other projects")

TESTS = Path(__file__).resolve().parent

PROLOGUE = """
import os
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="for tests only",
    ROOT_URLCONF="project.consumer_urls",
    ALLOWED_HOSTS=["localhost"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.staticfiles",
    ],
    STATIC_URL="/static/",
    ASGI_APPLICATION="live_application.application",
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ["DATABASE"],
            "TEST": {"NAME": os.environ["DATABASE"] + ".test"},
        }
    },
    USE_TZ=True,
)
django.setup()
"""

COMMUNICATOR = """
import asyncio
from channels.testing import WebsocketCommunicator
from django.core.management import call_command
from dwebsocket.asgi import get_asgi_application
from project import consumers

call_command("migrate", verbosity=0)
HEADERS = [(b"host", b"localhost"), (b"origin", b"http://localhost")]


async def converse(application, path, **options):
    communicator = WebsocketCommunicator(application, path, headers=HEADERS, **options)
    connected, subprotocol = await communicator.connect(60)
    assert connected, path
    await communicator.send_to(text_data='{"message": "hello"}')
    assert await communicator.receive_json_from(60) == {"message": "hello"}, path
    await communicator.disconnect(timeout=60)


async def main():
    site = get_asgi_application()
    for path in ("/Echo/", "/AsyncEcho/", "/application/", "/ws/room/lobby/",
                 "/below/red/ws/async-room/lobby/"):
        await converse(site, path)
    # The consumers themselves, as ever.
    await converse(consumers.Echo.as_asgi(), "/anywhere/")
    await converse(consumers.application, "/anywhere/")
    communicator = WebsocketCommunicator(site, "/Choosing/", headers=HEADERS,
                                         subprotocols=["one", "two"])
    assert await communicator.connect(60) == (True, "two")
    assert (b"x-room", b"7") in communicator.response_headers
    await communicator.disconnect(timeout=60)
    communicator = WebsocketCommunicator(site, "/Denying/", headers=HEADERS)
    assert (await communicator.connect(60))[0] is False
    await communicator.wait(60)
    # Its assertions about what comes, and its time limits.
    communicator = WebsocketCommunicator(site, "/Closing/?closing", headers=HEADERS)
    assert (await communicator.connect(60))[0] is True
    assert await communicator.receive_from(60) == "last words"
    try:
        await communicator.receive_from(60)
    except AssertionError as error:
        assert str(error) == "Expected type 'websocket.send', but was 'websocket.close'", error
    else:
        raise AssertionError("the consumer has sent more")
    communicator = WebsocketCommunicator(site, "/AsyncEcho/?silent", headers=HEADERS)
    assert (await communicator.connect(60))[0] is True
    assert await communicator.receive_nothing(0.1)
    try:
        await communicator.receive_from(0.1)
    except asyncio.TimeoutError:
        pass
    else:
        raise AssertionError("the consumer has sent something")
    try:
        await communicator.disconnect(timeout=60)
    except asyncio.CancelledError:
        # The communicator has cancelled the application.
        pass
    else:
        raise AssertionError("the application has not ended")
    # The disconnect method may run after its client has read the end.
    for _ in range(1500):
        if len(consumers.ENDS[""]) >= 6:
            break
        await asyncio.sleep(0.02)
    assert sorted(consumers.ENDS[""]) == [1000] * 5 + [1006], consumers.ENDS


asyncio.run(main())
print("all conversed")
"""

LIVE = """
import sys
import types
from channels.testing import ChannelsLiveServerTestCase
from django.test.utils import get_runner
from django.conf import settings
from websockets.sync.client import connect
from dwebsocket.asgi import get_asgi_application

# The module that the setting names; the server's process is a fork of this one.
module = types.ModuleType("live_application")
module.application = get_asgi_application()
sys.modules["live_application"] = module


class Live(ChannelsLiveServerTestCase):
    def test_consumers(self):
        for path in ("/Echo/", "/ws/room/lobby/"):
            with connect(self.live_server_ws_url + path, origin=self.live_server_url) as client:
                client.send('{"message": "hello"}')
                self.assertEqual(client.recv(10), '{"message": "hello"}')


if __name__ == "__main__":
    import unittest
    from django.test.runner import DiscoverRunner

    runner = DiscoverRunner(verbosity=0, interactive=False)
    old = runner.setup_databases()
    outcome = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(Live))
    runner.teardown_databases(old)
    assert outcome.wasSuccessful()
    print("all conversed")
"""


def run(script: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own: these helpers import daphne."""
    path = tmp_path / "script.py"
    path.write_text(PROLOGUE + script)
    paths = [str(TESTS), os.environ.get("PYTHONPATH")]
    return subprocess.run(
        [sys.executable, str(path)],
        env={
            **os.environ,
            "DATABASE": str(tmp_path / "db.sqlite3"),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        },
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_websocket_communicator(tmp_path: Path) -> None:
    """Reaches consumers by the site's URL conf, and by themselves."""
    done = run(COMMUNICATOR, tmp_path)
    assert done.stdout == "all conversed\n", done.stdout + done.stderr


def test_live_server(tmp_path: Path) -> None:
    """A server of its own kind, daphne, serves the site."""
    done = run(LIVE, tmp_path)
    assert done.stdout.endswith("all conversed\n"), done.stdout + done.stderr
