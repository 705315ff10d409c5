"""gunicorn's gevent worker in a process whose monkey patching was forgotten."""

import gevent.socket
from gunicorn.workers.ggevent import GeventWorker


class Worker(GeventWorker):
    """A worker that leaves the standard library as it is."""

    def patch(self) -> None:
        """Make gevent's sockets of the listening ones, and no more."""
        self.sockets = [
            gevent.socket.socket(
                listener.FAMILY, gevent.socket.SOCK_STREAM, fileno=listener.sock.detach()
            )
            for listener in self.sockets
        ]
