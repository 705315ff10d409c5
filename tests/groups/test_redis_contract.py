"""The contract of backends, in Redis."""

from __future__ import annotations

import contextlib
import gc
import unittest
from typing import ClassVar

import pytest

from dwebsocket.groups.backends import redis
from dwebsocket.testing.contract import BackendContract
from support.certificates import authority_file
from support.redis import Cluster, Redis, Service, settings, tls_options
from support.server import free_port
from support.waiting import eventually

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.needs("redis")]
# The rest is the same over any connection: subscriptions, publications and questions at once.
core = pytest.mark.core(
    "test_names",
    "test_order_of_several_publishers",
    "test_a_member_of_many_groups",
    "test_sixteen_mib",
    "test_members_of_another_process",
    "test_count_of_all_processes",
)


class RedisContract(BackendContract):
    """Starts a server for the class, whose tests stay on one worker."""

    has_database = True
    servers: ClassVar[contextlib.ExitStack]

    @classmethod
    def setUpClass(cls) -> None:
        """Start it."""
        super().setUpClass()
        cls.servers = contextlib.ExitStack()
        cls.addClassCleanup(cls.servers.close)
        cls.addClassCleanup(cls.assert_nothing_is_kept)
        # A time that a busy machine does not reach.
        cls.backend = settings(cls.start(cls.servers), TIMEOUT=20.0)

    @staticmethod
    def assert_nothing_is_kept() -> None:
        """A backend that stayed would connect to whatever has the server's port next."""

        def kept() -> list[object]:
            gc.collect()
            return [each for each in gc.get_objects() if type(each) is redis.Backend]

        eventually(lambda: not kept(), what="the backends are gone")

    @classmethod
    def start(cls, servers: contextlib.ExitStack) -> str | list[str]:
        """Start what is needed and give its LOCATION."""
        return servers.enter_context(Redis()).url


@pytest.mark.xdist_group("contract of Redis")
class TestRedis(RedisContract, unittest.TestCase):
    """One server."""


@pytest.mark.needs("valkey")
@core
@pytest.mark.xdist_group("contract of Valkey")
class TestValkey(RedisContract, unittest.TestCase):
    """The server that began as a copy of Redis 7.2."""

    @classmethod
    def start(cls, servers: contextlib.ExitStack) -> str:
        """Start it."""
        return servers.enter_context(Redis(name="valkey")).url


@core
@pytest.mark.xdist_group("contract of Shards")
class TestShards(RedisContract, unittest.TestCase):
    """Three servers, over which groups are spread."""

    @classmethod
    def start(cls, servers: contextlib.ExitStack) -> list[str]:
        """Start them."""
        return [servers.enter_context(Redis()).url for _ in range(3)]


@core
@pytest.mark.xdist_group("contract of Service")
class TestService(RedisContract, unittest.TestCase):
    """A master that sentinels name."""

    @classmethod
    def start(cls, servers: contextlib.ExitStack) -> str:
        """Start it."""
        return servers.enter_context(Service()).url


@core
@pytest.mark.xdist_group("contract of Cluster")
class TestCluster(RedisContract, unittest.TestCase):
    """Three masters, with sharded channels."""

    @classmethod
    def start(cls, servers: contextlib.ExitStack) -> str:
        """Start it."""
        return servers.enter_context(Cluster()).url


@core
@pytest.mark.xdist_group("contract of Encrypted")
class TestEncrypted(RedisContract, unittest.TestCase):
    """A server that takes TLS alone."""

    @classmethod
    def setUpClass(cls) -> None:
        """Name the authority."""
        super().setUpClass()
        cls.backend = {**cls.backend, "OPTIONS": {"ssl_ca_certs": str(authority_file())}}

    @classmethod
    def start(cls, servers: contextlib.ExitStack) -> str:
        """Start it."""
        port = free_port()
        servers.enter_context(Redis(*tls_options(port)))
        return f"rediss://127.0.0.1:{port}/0"
