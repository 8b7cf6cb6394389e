"""Backends that nginx cannot be: `backends.py slow PORT SECONDS` answers late, `backends.py echo PORT` echoes frames of
WebSocket."""
import asyncio
import base64
import hashlib
import sys

from upgraded import Upgraded

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello world\n"
WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Slow(asyncio.Protocol):
    seconds = 0.0

    def connection_made(self, transport):
        self.transport, self.seen = transport, b""

    def data_received(self, data):
        self.seen += data
        while b"\r\n\r\n" in self.seen:
            _, _, self.seen = self.seen.partition(b"\r\n\r\n")
            asyncio.get_running_loop().call_later(self.seconds, self.transport.write, ANSWER)


class Echo(Upgraded):
    """Frames of less than 126 bytes, masked as they come from clients, unmasked as they go back."""

    def talk(self):
        while len(self.seen) >= 6 and len(self.seen) >= 6 + (length := self.seen[1] & 127):
            mask, content = self.seen[2:6], self.seen[6:6 + length]
            plain = int.from_bytes(content, "big") ^ int.from_bytes((mask * (length // 4 + 1))[:length], "big")
            self.transport.write(bytes([self.seen[0], length]) + plain.to_bytes(length, "big"))
            self.seen = self.seen[6 + length:]

    def open(self, head):
        fields = {name.strip().lower(): value.strip() for name, _, value in
                  (line.partition(b":") for line in head.split(b"\r\n")[1:])}
        if b"sec-websocket-key" not in fields:
            self.transport.close()
            return
        accept = base64.b64encode(hashlib.sha1(fields[b"sec-websocket-key"] + WEBSOCKET).digest())
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept)


async def main():
    kind, port, *more = sys.argv[1:]
    if more:
        Slow.seconds = float(more[0])
    loop = asyncio.get_running_loop()
    server = await loop.create_server({"slow": Slow, "echo": Echo}[kind], "127.0.0.1", int(port), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
