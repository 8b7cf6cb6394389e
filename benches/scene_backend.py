"""One backend of benches/scenes.py, which behaves as its scene asks. Started by scenes.py, as a process of its own.

It works on WORKERS requests at once and keeps the others in line. A mood begins at a moment of the system's monotonic
clock, which all processes share. What it has seen is written to a file that is mapped into memory, so that it survives
even a kill: two counts for each backend, then one byte for each POST.
"""
import asyncio
import collections
import mmap
import random
import socket
import struct
import sys
import time

WORKERS = 8
COUNTS = struct.Struct("<QQ")
PARKED_SECONDS = 2
QUOTA = 20
NEVER_ANSWER = ("hole", "syn")


class Seen:
    """What the backends have seen: requests, those while it had asked to be left alone, and each POST by its number."""

    def __init__(self, path, place, backends):
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.at, self.posts = place * COUNTS.size, backends * COUNTS.size

    def count(self, unwanted=False):
        requests, ignored = COUNTS.unpack_from(self.map, self.at)
        COUNTS.pack_into(self.map, self.at, requests + 1, ignored + unwanted)

    def post(self, number):
        self.map[self.posts + number] = min(self.map[self.posts + number] + 1, 255)


class Backend:
    def __init__(self, port, mood, begins, service, seen):
        self.port, self.mood, self.begins, self.service, self.seen = port, mood, begins, service, seen
        self.connections, self.busy, self.line = set(), 0, collections.deque()
        self.fillers, self.granted, self.parked_until = [], collections.deque(), 0
        self.listener = self.accepting = None

    def now(self):
        """The mood of this moment."""
        return self.mood if time.monotonic() >= self.begins else "good"

    def listen(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(512)
        self.listener.setblocking(False)
        self.accepting = asyncio.ensure_future(self.accept(self.listener))

    async def accept(self, listener):
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            await loop.connect_accepted_socket(lambda: Connection(self), connection)

    async def run(self):
        self.listen()
        await asyncio.sleep(max(0, self.begins - time.monotonic()))
        if self.mood == "syn":
            self.leave_syns_unanswered()
        while self.mood == "flapping":
            self.refuse()
            await asyncio.sleep(1)
            self.listen()
            await asyncio.sleep(1)
        await asyncio.Event().wait()

    def leave_syns_unanswered(self):
        """Linux drops a SYN while the queue of connections to be accepted is full."""
        self.accepting.cancel()
        self.listener.listen(0)
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self.fillers.append(filler)

    def refuse(self):
        self.accepting.cancel()
        self.listener.close()
        for connection in list(self.connections):
            connection.reset()

    def asks(self, connection, method, number):
        """A whole request is there."""
        mood, now = self.now(), time.monotonic()
        self.seen.count(unwanted=now < self.parked_until)
        if mood == "quota" and self.is_used_up(now):
            return connection.answer(b"429 Too Many Requests", b"Retry-After: %d\r\n" % PARKED_SECONDS)
        # What was refused with 429 was not acted upon (RFC 6585, section 4), and may be sent elsewhere.
        if method == b"POST":
            self.seen.post(number)
        if mood in NEVER_ANSWER or mood == "hang":
            return
        if mood == "fails500":
            return connection.answer(b"500 Internal Server Error")
        if mood == "fails503":
            return connection.answer(b"503 Service Unavailable")
        if mood == "closes":
            return connection.transport.close()
        if self.busy == WORKERS:
            return self.line.append(connection)
        self.serve(connection)

    def is_used_up(self, now):
        """QUOTA requests a second; who asks for more is told to stay away, and served by nobody until then."""
        if now < self.parked_until:
            return True
        while self.granted and self.granted[0] < now - 1:
            self.granted.popleft()
        if len(self.granted) < QUOTA:
            self.granted.append(now)
            return False
        self.parked_until = now + PARKED_SECONDS
        return True

    def serve(self, connection):
        self.busy += 1
        mean = self.service * (20 if self.now() == "slow" else 1)
        asyncio.get_running_loop().call_later(random.expovariate(1 / mean), self.served, connection)

    def served(self, connection):
        self.busy -= 1
        mood = self.now()
        if mood == "breaks":
            connection.break_off()
        elif mood not in NEVER_ANSWER:
            connection.answer(b"200 OK")
            if mood == "idle_close":
                asyncio.get_running_loop().call_later(random.uniform(0, 0.01), connection.close_if_idle)
        while self.line and self.busy < WORKERS:
            waiting = self.line.popleft()
            # Nobody waits for the answer any more.
            if not waiting.transport.is_closing():
                self.serve(waiting)


class Connection(asyncio.Protocol):
    def __init__(self, backend):
        self.backend, self.buffer, self.asked = backend, b"", False

    def connection_made(self, transport):
        self.transport = transport
        self.backend.connections.add(self)

    def connection_lost(self, _):
        self.backend.connections.discard(self)

    def data_received(self, data):
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", 0))
        if len(rest) < length:
            return
        self.buffer, self.asked = rest[length:], True
        method, path, _ = head.split(b" ", 2)
        if path == b"/healthz":
            if self.backend.now() not in NEVER_ANSWER:
                self.answer(b"200 OK")
            return
        self.backend.asks(self, method, int(fields.get(b"x-number", 0)))

    def answer(self, status, fields=b""):
        self.asked = False
        body = b"x" * 512
        self.transport.write(b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, fields, len(body), body))

    def break_off(self):
        """Half of a body, then a reset."""
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 16384\r\n\r\n" + b"x" * 8192)
        asyncio.get_running_loop().call_later(0.005, self.reset)

    def reset(self):
        if not self.transport.is_closing():
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def close_if_idle(self):
        if not self.asked:
            self.transport.close()


def main():
    port, mood, begins, service, path, place, backends = sys.argv[1:]
    seen = Seen(path, int(place), int(backends))
    asyncio.run(Backend(int(port), mood, float(begins), float(service), seen).run())


if __name__ == "__main__":
    main()
