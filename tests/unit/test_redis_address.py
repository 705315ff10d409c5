"""`LOCATION` of the redis backend."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from dwebsocket.conf import group_settings
from dwebsocket.groups.backends import redis
from dwebsocket.groups.backends.redis import address as redis_address


def server(address: str) -> redis_address.Server:
    """Give the one server of an address."""
    (found,) = redis_address.read([address], {})
    return found


@pytest.mark.parametrize(
    ("address", "expected", "shown"),
    [
        ("redis://h", {"nodes": (("h", 6379),)}, "redis://h:6379/0"),
        ("redis://", {"nodes": (("127.0.0.1", 6379),)}, "redis://127.0.0.1:6379/0"),
        ("redis://h:1/3", {"nodes": (("h", 1),), "database": 3}, "redis://h:1/3"),
        ("redis://h:1?db=3", {"nodes": (("h", 1),), "database": 3}, "redis://h:1/3"),
        ("redis://[::1]:5/0", {"nodes": (("::1", 5),)}, "redis://[::1]:5/0"),
        ("redis://[::1]", {"nodes": (("::1", 6379),)}, "redis://[::1]:6379/0"),
        (
            "redis://anna:s%23cr%40t@h",
            {"nodes": (("h", 6379),), "username": "anna", "password": "s#cr@t"},
            "redis://h:6379/0",
        ),
        ("redis://:secret@h", {"nodes": (("h", 6379),), "password": "secret"}, "redis://h:6379/0"),
        ("unix:///run/r.sock", {"nodes": (("/run/r.sock", None),)}, "unix:///run/r.sock"),
        (
            "unix://anna:secret@/run/r%20s?db=2",
            {
                "nodes": (("/run/r s", None),),
                "database": 2,
                "username": "anna",
                "password": "secret",
            },
            "unix:///run/r s?db=2",
        ),
        (
            "redis+cluster://a:1,b/0",
            {"kind": "cluster", "nodes": (("a", 1), ("b", 6379))},
            "redis+cluster://a:1,b:6379/0",
        ),
        (
            "redis+sentinel://:secret@a,b:1/main/2",
            {
                "kind": "sentinel",
                "nodes": (("a", 26379), ("b", 1)),
                "service": "main",
                "database": 2,
                "password": "secret",
            },
            "redis+sentinel://a:26379,b:1/main/2",
        ),
        (
            "rediss://h:1",
            {"nodes": (("h", 1),), "is_encrypted": True},
            "rediss://h:1/0",
        ),
        (
            "rediss+cluster://h:1",
            {"kind": "cluster", "nodes": (("h", 1),), "is_encrypted": True},
            "rediss+cluster://h:1/0",
        ),
        (
            "redis+sentinel://a/main",
            {"kind": "sentinel", "nodes": (("a", 26379),), "service": "main"},
            "redis+sentinel://a:26379/main/0",
        ),
    ],
)
def test_addresses(address: str, expected: dict[str, Any], shown: str) -> None:
    """Each kind is read, and shown without its password."""
    assert server(address) == redis_address.Server(**{"kind": "single", **expected})
    assert str(server(address)) == shown


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ((), "needs the address of a server"),
        (("",), "must begin with one of redis://"),
        (("127.0.0.1:6379",), "must begin with one of redis://"),
        (("memcached://h",), "must begin with one of redis://"),
        (("redis://h:port",), "has a port that is no number"),
        (("redis://h:0",), "has the port 0"),
        (("redis://h:65536",), "has the port 65536"),
        (("redis://h/main",), "has a database that is no number"),
        (("redis://h/-1",), "has a database that is no number"),
        (("redis://h/1?db=2",), "names the database twice"),
        (("redis://h/1/2",), "has more parts than a database"),
        (("redis://a,b",), "make LOCATION a list"),
        (("redis://h?timeout=3",), "unknown parameter 'timeout'"),
        (("redis://:pass#word@h",), "write # in a password as %23"),
        (("redis://[::1",), "cannot be read"),
        (("unix://",), "needs the path of a socket"),
        (("unix://h/run/r.sock",), "needs the path of a socket"),
        (("redis+cluster://h/1",), "a cluster has only 0"),
        (("redis+sentinel://h",), "names no service"),
        (("redis://h", "redis://h:port"), "has a port that is no number"),
    ],
)
def test_what_is_no_address(location: tuple[str, ...], why: str) -> None:
    """The error names the setting and what is wrong."""
    own = group_settings.BackendSettings("dwebsocket.groups.redis", location)
    with pytest.raises(ImproperlyConfigured, match=r"^WEBSOCKET_GROUPS\['rooms'\]\[") as caught:
        redis.Backend("rooms", own)
    assert why in str(caught.value)
    assert "'LOCATION'" in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["redis://:hunter2@h:port", "redis://:hunter2\N{FULLWIDTH NUMBER SIGN}@h", "odd://:hunter2@h"],
)
def test_errors_show_no_password(address: str) -> None:
    """Whatever else is wrong."""
    with pytest.raises(ValueError, match="LOCATION") as caught:
        server(address)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"sentinel_pasword": "x"}, "unknown key"),
        ({"sentinel_password": 1}, "must be a str"),
        ({"ssl_cert_reqs": "optional"}, "must be 'required' or None"),
        ({"ssl_keyfile": "x"}, "without ssl_certfile"),
    ],
)
def test_options(options: dict[str, Any], why: str) -> None:
    """Those that are not known are refused."""
    own = group_settings.BackendSettings("dwebsocket.groups.redis", ("redis://h",), options=options)
    with pytest.raises(ImproperlyConfigured, match=why) as caught:
        redis.Backend("rooms", own)
    assert "WEBSOCKET_GROUPS['rooms']['OPTIONS']" in str(caught.value)
