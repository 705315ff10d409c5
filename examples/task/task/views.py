"""Starting a task, its page, and the page's WebSocket."""

from uuid import UUID, uuid4

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from dwebsocket import WebSocketRequest, accept_websocket, group
from task.tasks import count_sheep


def start_page(request: HttpRequest) -> HttpResponse:
    """A form."""
    return render(request, "task/start.html")


@require_POST
def start(request: HttpRequest) -> HttpResponse:
    """Starts a task, and shows its page."""
    number = uuid4()
    count_sheep.delay(str(number), 40, 0.2)
    return redirect("progress", number)


@accept_websocket
async def progress(request: WebSocketRequest, number: UUID) -> HttpResponse | None:
    """The page of a task. Its log comes from the beginning, whenever the page is opened."""
    if not request.is_websocket():
        return render(request, "task/progress.html")
    await request.websocket.ajoin(group(f"task-{number}"), since="", partial=True)
    await request.websocket.await_closed()
    return None
