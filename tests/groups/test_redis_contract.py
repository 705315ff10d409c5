"""The contract of backends, in Redis."""

from __future__ import annotations

import contextlib
import unittest
from typing import ClassVar

import pytest

from dwebsocket.testing.contract import BackendContract
from support.redis import Redis, settings

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.needs("redis")]


class RedisContract(BackendContract):
    """Starts a server for the class."""

    has_database = True
    servers: ClassVar[contextlib.ExitStack]

    @classmethod
    def setUpClass(cls) -> None:
        """Start it."""
        super().setUpClass()
        cls.servers = contextlib.ExitStack()
        cls.addClassCleanup(cls.servers.close)
        cls.backend = settings(cls.start(cls.servers))

    @classmethod
    def start(cls, servers: contextlib.ExitStack) -> str | list[str]:
        """Start what is needed and give its LOCATION."""
        return servers.enter_context(Redis()).url


class TestRedis(RedisContract, unittest.TestCase):
    """One server."""


class TestShards(RedisContract, unittest.TestCase):
    """Three servers, over which groups are spread."""

    @classmethod
    def start(cls, servers: contextlib.ExitStack) -> list[str]:
        """Start them."""
        return [servers.enter_context(Redis()).url for _ in range(3)]
