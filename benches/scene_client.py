"""The clients of benches/scenes.py: an open loop over HTTP/1.1.

A request is sent when it is due, whatever became of those before it, and its time counts from when it was due: so a
proxy that stalls is charged for everybody who had to wait. One in ten is a POST with a number of its own.
"""
import asyncio
import collections
import time

PATIENCE = 10
POST_EVERY = 10

Answer = collections.namedtuple("Answer", "due took status is_post")


class Connection(asyncio.Protocol):
    def __init__(self, clients):
        self.clients, self.done, self.used = clients, None, False

    def connection_made(self, transport):
        self.transport = transport

    def ask(self, request):
        self.buffer, self.done = b"", asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.done

    def data_received(self, data):
        if self.done is None:
            return
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
        is_whole = len(body) >= int(fields[b"content-length"]) if b"content-length" in fields \
            else body.endswith(b"0\r\n\r\n") and b"transfer-encoding" in fields
        if is_whole:
            self.keep = b"close" not in fields.get(b"connection", b"") and not head.startswith(b"HTTP/1.0")
            self.finish(int(head[9:12]))

    def connection_lost(self, _):
        if self in self.clients.idle:
            self.clients.idle.remove(self)
        # 0 is a broken connection; -1 one that was closed while it was idle, before a byte of an answer.
        self.keep = False
        self.finish(-1 if self.used and not getattr(self, "buffer", b"") else 0)

    def finish(self, status):
        done, self.done = self.done, None
        if done is not None and not done.done():
            done.set_result(status)


class Clients:
    def __init__(self, port):
        self.port, self.idle, self.answers = port, collections.deque(), []

    async def run(self, rate_at, seconds, begins):
        """Sends as many requests a second as `rate_at` says for each moment."""
        due, number, tasks = begins, 0, []
        while due < begins + seconds:
            await asyncio.sleep(max(0, due - time.monotonic()))
            tasks.append(asyncio.ensure_future(self.one(due, number)))
            number += 1
            due += 1 / rate_at(due - begins)
        await asyncio.gather(*tasks)
        for connection in list(self.idle):
            connection.transport.close()
        return self.answers

    async def one(self, due, number):
        is_post = number % POST_EVERY == 0
        body = b"x" * 200 if is_post else b""
        request = b"%s / HTTP/1.1\r\nHost: example.com\r\nX-Number: %d\r\n%s\r\n%s" % (
            b"POST" if is_post else b"GET", number, b"Content-Length: 200\r\n" if is_post else b"", body)
        try:
            status = await asyncio.wait_for(self.ask(request, is_post), PATIENCE)
        except (OSError, asyncio.TimeoutError):
            status = 0
        self.answers.append(Answer(due, time.monotonic() - due, status, is_post))

    async def ask(self, request, is_post):
        # What a browser does: a connection that was closed while it was idle is no failure, except for a POST.
        connection = self.idle.pop() if self.idle and not is_post else await self.connect()
        try:
            status = await connection.ask(request)
        except asyncio.CancelledError:
            connection.transport.abort()
            raise
        if status == -1:
            return await self.ask(request, is_post)
        connection.used = True
        if connection.keep:
            self.idle.append(connection)
        else:
            connection.transport.close()
        return status

    async def connect(self):
        make = asyncio.get_running_loop().create_connection(lambda: Connection(self), "127.0.0.1", self.port)
        return (await make)[1]
