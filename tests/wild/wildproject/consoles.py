"""Output of processes and sockets in the browser, and what is typed there."""

import select
import socket
import subprocess
import threading
import time

from dwebsocket import accept_websocket, require_websocket

TICKS = ["sh", "-c", "n=0; while true; do echo $n; n=$((n+1)); sleep 0.05; done"]
LINES = ["sh", "-c", "for n in 0 1 2 3 4; do echo line $n; done"]
LOG = ["awk", 'BEGIN { for (n = 0; n < 20480; n++) print "%s" }' % ("x" * 1023)]


def popen(command):
    """Start a program whose output can be read."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


@accept_websocket
def tail(request):
    """Push an endless log; a thread that reads ends it when reading fails."""
    process = popen(TICKS)

    def listen():
        while True:
            try:
                request.websocket.wait()
            except Exception:
                break
        process.kill()

    threading.Thread(target=listen).start()
    while True:
        line = process.stdout.readline()
        if not line:
            break
        request.websocket.send(line)
    process.wait()


@accept_websocket
def build(request):
    """Push the output of a program that ends, while a thread reads until that fails."""
    process = popen(LINES)
    typed = []

    def listen():
        while True:
            try:
                typed.append(request.websocket.wait())
            except Exception:
                break

    reader = threading.Thread(target=listen)
    reader.daemon = True
    reader.start()
    for line in process.stdout:
        try:
            request.websocket.send(line.strip())
        except Exception:
            process.kill()
            break
    process.wait()


@accept_websocket
def push_until_refused(request):
    """Push an endless log and hope that `send` fails when the client is gone."""
    process = popen(TICKS)
    try:
        while True:
            request.websocket.send(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@accept_websocket
def console(request):
    """Type into a program, whose output a thread pumps back."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def pump():
        for line in iter(process.stdout.readline, b""):
            request.websocket.send(line)

    thread = threading.Thread(target=pump)
    thread.start()
    for message in request.websocket:
        if message is None:
            break
        process.stdin.write(message + b"\n")
        process.stdin.flush()
    process.kill()
    process.wait()
    thread.join()


@require_websocket
def follow(request):
    """Pump a log by a thread until `is_closed()`, as `kubectl logs -f` shows it."""
    process = popen(TICKS)

    def pump():
        while not request.websocket.is_closed():
            line = process.stdout.readline()
            if not line:
                break
            request.websocket.send(line.decode().strip())
        process.kill()
        process.wait()

    thread = threading.Thread(target=pump)
    thread.daemon = True
    thread.start()
    while True:
        if request.websocket.wait() is None:
            break


@require_websocket
def log(request):
    """Pump 20 MiB of a pod's log by a thread, at the pace of the client."""
    process = popen(LOG)

    def pump():
        for line in process.stdout:
            request.websocket.send(line)
        request.websocket.close()

    threading.Thread(target=pump).start()
    while True:
        message = request.websocket.wait()
        if message is None:
            break
    process.kill()
    process.wait()


@require_websocket
def dump(request):
    """Send 20 MiB from the view itself."""
    for _ in range(20 * 16):
        request.websocket.send("x" * 64 * 1024)


@require_websocket
def telnet(request, port):
    """Type into a socket, whose answers a thread pumps back."""
    remote = socket.create_connection(("127.0.0.1", port))

    def pump():
        while True:
            try:
                data = remote.recv(4096)
            except Exception:
                break
            if not data:
                break
            request.websocket.send(data)
        request.websocket.close()

    threading.Thread(target=pump).start()
    for message in request.websocket:
        if message is None:
            break
        remote.sendall(message)
    try:
        remote.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    remote.close()


@require_websocket
def selecting(request, port):
    """Serve the browser and a socket in one thread by `select`."""
    remote = socket.create_connection(("127.0.0.1", port))
    browser = request.websocket.protocol.sock
    while True:
        readable, _, _ = select.select([browser, remote], [], [])
        if browser in readable:
            message = request.websocket.wait()
            if message is None:
                break
            remote.sendall(message)
        if remote in readable:
            data = remote.recv(4096)
            if not data:
                break
            request.websocket.send(data)
    remote.close()


@require_websocket
def selecting_with_timeout(request):
    """Look for messages by `select` with a timeout, and tick in between."""
    sock = request.websocket.protocol.sock
    while not request.websocket.is_closed():
        readable, _, _ = select.select([sock], [], [], 0.2)
        if readable:
            message = request.websocket.read()
            if message is None:
                break
            request.websocket.send(message)
        else:
            request.websocket.send("tick")


@require_websocket
def threads_of_both_kinds(request):
    """Read by one thread and push by another, while the view waits for both."""
    received = []

    def listen():
        while True:
            try:
                message = request.websocket.wait()
            except Exception:
                break
            if message is None:
                break
            received.append(message)

    def push():
        sent = 0
        while not request.websocket.is_closed():
            while sent < len(received):
                request.websocket.send(received[sent])
                sent += 1
            time.sleep(0.02)

    threads = [threading.Thread(target=target) for target in (listen, push)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
