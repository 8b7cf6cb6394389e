"""Clients that wrk and h2load cannot be. Each says what it has done as JSON, on one line.

    clients.py handshakes PORT SECONDS full|resumed    TLS connections one after another, shut down as soon as they stand
    clients.py websocket PORT SECONDS CONNECTIONS      frames of 100 bytes, the next when the one before has come back
    clients.py idle PORT plain|tls                     reads a number a line, has so many idle connections open, says so
"""
import asyncio
import base64
import json
import os
import resource
import socket
import ssl
import sys
import time

from upgraded import Upgraded

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def connect(port, source="127.0.0.1"):
    made = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def ask(stream):
    """One request, so that the connection is one between two requests."""
    stream.sendall(REQUEST)
    seen = b""
    while not seen.endswith(b"hello world\n"):
        more = stream.recv(4096)
        if not more:
            sys.exit("a connection was closed")
        seen += more


class Handshake:
    """One TLS connection, in steps: what it has to say is written here, and what it waits for is read here."""

    def __init__(self, port, tls, session):
        self.stream, self.coming, self.going = connect(port), ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = tls.wrap_bio(self.coming, self.going, server_hostname="localhost", session=session)

    def through(self, step):
        while True:
            try:
                step()
                is_done = True
            except ssl.SSLWantReadError:
                is_done = False
            if self.going.pending:
                self.stream.sendall(self.going.read())
            if is_done:
                return
            if data := self.stream.recv(65536):
                self.coming.write(data)
            else:
                self.coming.write_eof()

    def close(self):
        """After the other side has closed too, so that its tickets have come."""
        try:
            self.through(self.tls.unwrap)
        except (ssl.SSLError, OSError):
            pass
        self.stream.close()


def handshakes(port, seconds, kind):
    tls, session, took, resumed = context(), None, [], 0
    if kind == "resumed":
        first = Handshake(port, tls, None)
        first.through(first.tls.do_handshake)
        first.close()
        session = first.tls.session
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        one = Handshake(port, tls, session)
        one.through(one.tls.do_handshake)
        took.append(time.monotonic() - begun)
        one.close()
        resumed += one.tls.session_reused
        # A ticket is good for one connection, which brings the next.
        session = one.tls.session if kind == "resumed" else None
    if resumed != (len(took) if kind == "resumed" else 0):
        sys.exit(f"{resumed} of {len(took)} handshakes were resumed")
    took.sort()
    return {"answered": len(took), "rate": len(took) / seconds, "p50_ms": took[len(took) // 2] * 1000,
            "p99_ms": took[len(took) * 99 // 100] * 1000}


class Talker(Upgraded):
    """One WebSocket connection, which sends a frame whenever one has come back."""
    frame = bytes([0x82, 0x80 | 100, 1, 2, 3, 4]) + bytes(byte ^ (1 + place % 4) for place, byte in enumerate(b"x" * 100))
    back = bytes([0x82, 100]) + b"x" * 100

    def __init__(self):
        super().__init__()
        self.echoed = 0

    def connection_made(self, transport):
        super().connection_made(transport)
        key = base64.b64encode(os.urandom(16))
        transport.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n" % key)

    def open(self, head):
        if not head.startswith(b"HTTP/1.1 101"):
            sys.exit(head.decode())
        self.transport.write(self.frame)

    def talk(self):
        if len(self.seen) >= len(self.back):
            if self.seen != self.back:
                sys.exit("another frame came back")
            self.seen = b""
            self.echoed += 1
            self.transport.write(self.frame)


async def websocket(port, seconds, connections):
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(Talker, "127.0.0.1", port) for _ in range(connections)]
    await asyncio.sleep(seconds)
    echoed = sum(talker.echoed for _, talker in made)
    for transport, _ in made:
        transport.abort()
    return {"answered": echoed, "rate": echoed / seconds}


def idle(port, kind):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tls, held = context(), []
    for line in sys.stdin:
        while len(held) < int(line):
            # From several addresses, since the ports of one are used up by what was closed before.
            stream = connect(port, f"127.0.0.{2 + len(held) % 4}")
            if kind == "tls":
                stream = tls.wrap_socket(stream, server_hostname="localhost")
            ask(stream)
            held.append(stream)
        print(json.dumps({"open": len(held)}), flush=True)


def main():
    kind, port, *words = sys.argv[1:]
    if kind == "handshakes":
        print(json.dumps(handshakes(int(port), float(words[0]), words[1])))
    elif kind == "websocket":
        print(json.dumps(asyncio.run(websocket(int(port), float(words[0]), int(words[1])))))
    else:
        idle(int(port), words[0])


if __name__ == "__main__":
    main()
