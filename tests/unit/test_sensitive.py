"""What Django's `sensitive_variables` and `sensitive_post_parameters` hide behind a WebSocket."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.views.debug import SafeExceptionReporterFilter
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from echoing import talks
from guarding import PLACES

from dwebsocket import accept_websocket

if TYPE_CHECKING:
    from visit import Serve


since_5_0 = pytest.mark.skipif(
    django.VERSION < (5, 0), reason="sensitive_variables of coroutine functions: since 5.0"
)


class TestSensitive:
    """What a view hides from error reports."""

    @pytest.mark.parametrize(
        ("names", "hidden"),
        [((), {"password", "other", "request"}), (("password",), {"password"})],
    )
    @pytest.mark.parametrize("order", ["above", "below", pytest.param("async", marks=since_5_0)])
    def test_variables(
        self, visit: Serve, request_log: Any, order: str, names: Any, hidden: set[str]
    ) -> None:
        """Is hidden wherever the decorator stands, though the view has another stack."""
        hide = sensitive_variables(*names)
        view = {
            "above": lambda: hide(csrf_exempt(accept_websocket(fails))),
            "below": lambda: accept_websocket(hide(fails)),
            "async": lambda: hide(accept_websocket(async_fails)),
        }[order]()
        made = visit(view).serve()
        assert made.client.closing() == (1011, "")
        (record,) = [each for each in request_log("django.request") if each.exc_info]
        frames = [frame for frame, _ in traceback.walk_tb(record.exc_info[2])]
        shown = dict(
            SafeExceptionReporterFilter().get_traceback_frame_variables(record.request, frames[-1])
        )
        stars = SafeExceptionReporterFilter.cleansed_substitute
        assert {name for name, value in shown.items() if value == stars} == hidden

    @pytest.mark.parametrize("place", PLACES)
    def test_post_parameters(self, visit: Serve, place: str) -> None:
        """The decorator gets Django's request."""
        for view in PLACES[place](sensitive_post_parameters()):
            talks(visit(view))


def fails(request: Any) -> None:
    """Fail with a secret at hand."""
    password, other = "secret", "known"
    raise RuntimeError(f"{len(password)} {len(other)}")


async def async_fails(request: Any) -> None:
    """Fail with a secret at hand."""
    password, other = "secret", "known"
    raise RuntimeError(f"{len(password)} {len(other)}")
