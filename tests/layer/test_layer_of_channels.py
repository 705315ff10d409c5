"""How Channels makes our layer, and what it has of Channels' base class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from channels.exceptions import InvalidChannelLayerError
from channels.layers import channel_layers, get_channel_layer
from django.core.exceptions import ImproperlyConfigured
from layer_sites import in_loop

from dwebsocket.channels import ChannelLayer

Use = Callable[..., None]


@pytest.fixture
def use(override: Callable[..., None]) -> Use:
    """Set the default layer: `use(CONFIG=…)`."""

    def use_(**entry: Any) -> None:
        backend = "dwebsocket.channels.ChannelLayer"
        override(CHANNEL_LAYERS={"default": {"BACKEND": backend, **entry}})

    return use_


def test_config(use: Use) -> None:
    """Each key is an argument."""
    use(CONFIG={"expiry": 10, "capacity": 7, "channel_capacity": {"a*": 3}, "group_expiry": 20})
    layer = get_channel_layer()
    assert isinstance(layer, ChannelLayer)
    assert (layer.expiry, layer.group_expiry) == (10, 20)
    assert (layer.get_capacity("abc"), layer.get_capacity("b")) == (3, 7)


def test_config_of_tests(use: Use) -> None:
    """TEST_CONFIG is for layers that tests make; Channels misses it otherwise."""
    use(TEST_CONFIG={"expiry": 100500})
    assert channel_layers.make_test_backend("default").expiry == 100500
    use()
    with pytest.raises(InvalidChannelLayerError, match="TEST_CONFIG"):
        channel_layers.make_test_backend("default")


def test_changed_settings(use: Use) -> None:
    """The layer is kept until they change."""
    use(CONFIG={"capacity": 1})
    first = get_channel_layer()
    assert get_channel_layer() is first
    use(CONFIG={"capacity": 2})
    assert get_channel_layer() is not first
    assert get_channel_layer().capacity == 2


def test_wrong_config(use: Use) -> None:
    """The layer's own error is seen, not one of Channels."""
    use(CONFIG={"hosts": ["redis://localhost"]})
    with pytest.raises(ImproperlyConfigured, match="LOCATION in WEBSOCKET_GROUPS"):
        get_channel_layer()


NAMES = [("¯\\_(ツ)_/¯", False), ("chat", True), ("chat" * 100, False), ("a" * 101, False)]


@pytest.mark.parametrize(("name", "is_valid"), NAMES)
@pytest.mark.parametrize("kind", ["Channel", "Group"])
@in_loop
async def test_names(name: str, is_valid: bool, kind: str) -> None:
    """Those that Channels allows. Its own message says which."""
    layer = ChannelLayer(using="default")

    async def use_name() -> None:
        await (layer.send if kind == "Channel" else layer.group_send)(name, {"type": "x"})

    if is_valid:
        await use_name()
    else:
        with pytest.raises(TypeError, match=f"^{kind} name must be a valid unicode string"):
            await use_name()
    await layer.close()


@pytest.mark.parametrize(("name", "is_valid"), NAMES)
@pytest.mark.parametrize("method", ["valid_channel_name", "valid_group_name"])
def test_methods_of_old_versions(name: str, is_valid: bool, method: str) -> None:
    """Deprecated by Channels, and as they were."""
    check = getattr(ChannelLayer(), method, None)
    if check is None:
        pytest.skip("this version of Channels has none")
    refused = pytest.raises(TypeError, match="name must be a valid unicode string")
    with pytest.warns(DeprecationWarning, match=method), nullcontext() if is_valid else refused:
        assert check(name)


@pytest.mark.parametrize(
    "method",
    [
        *("send", "receive", "new_channel", "group_add", "group_discard", "group_send"),
        *("flush", "close"),
    ],
)
def test_methods_are_coroutine_functions(method: str) -> None:
    """So that `async_to_sync` and `iscoroutinefunction` know them."""
    assert inspect.iscoroutinefunction(getattr(ChannelLayer(), method))


def test_extensions() -> None:
    """Those of the specification."""
    assert set(ChannelLayer.extensions) == {"groups", "flush"}
