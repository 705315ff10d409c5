"""One address: a page for a request, and its changes for a WebSocket."""

from django.http import HttpResponse
from django.shortcuts import render

from dashboard.models import Order
from dwebsocket import WebSocketRequest, accept_websocket


@accept_websocket(groups=["orders"])
async def orders(request: WebSocketRequest) -> HttpResponse | None:
    """
    The dashboard. It only sends, and an async view that waits costs no thread.

    The connection is a member of the group before the list is read. A change that comes before the
    list was sent is seen by the next look.
    """
    if not request.is_websocket():
        return render(request, "dashboard/orders.html")
    shown = None
    while (rows := [order.as_row() async for order in Order.objects.all()]) != shown:
        await request.websocket.asend_json({"all": rows})
        shown = rows
    await request.websocket.await_closed()
    return None
