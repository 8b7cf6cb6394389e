"""What the front door has coded, decoded by others: zlib, Google's brotli, and zstandard, as strictly as they go.

    decode.py backend                 serves the bodies below without TLS, prints its port, serves until it is ended
    decode.py client HOST:PORT WORD.. asks for every body under each of these, which are `CODING-LEVEL` and the first
                                      part of the path

The client is a socket and nothing more: it takes the chunks apart itself, so that neither a byte too many nor one too
few goes unseen. Every coded body must be one whole stream of its coding, and the whole of the body.
"""

import random
import socket
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import brotli
import zstandard

MIN_SIZE = 1024
SECONDS = 120
# What a browser may be asked to keep in memory (RFC 9659).
WINDOW = 8 << 20
# The highest levels take a long time, so these have less to do.
SLOW = {"br": 10, "zstd": 16}


def text(length):
    chance = random.Random(5)
    words = [bytes(chance.choices(b"etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(2000)]
    lines = b"".join(b'{"id": %d, "name": "%s"},\n' % (chance.randrange(10**6), b" ".join(chance.choices(words, k=5)))
                     for _ in range(length // 30))
    return lines[:length]


TEXT, NOISE = text(300 << 10), random.Random(6).randbytes(100 << 10)
# Each body, as the pieces that the backend writes, and whether it announces its length.
BODIES = {
    "text": ([TEXT], True),
    "less": ([TEXT[:60 << 10]], True),
    "noise": ([NOISE], True),
    "empty": ([], False),
    "border": ([TEXT[:MIN_SIZE + 1]], True),
    "chunks": ([TEXT[start:start + 1 + start % 97] for start in range(0, 60_000, 97)], False),
    "large-chunks": ([TEXT[:200_000], b"", NOISE, b"x"], False),
}


def paths(word):
    coding, level = word.rsplit("-", 1)
    slow = int(level) >= SLOW.get(coding, 99)
    return [f"/{word}/{kind}" for kind in BODIES if not (slow and kind in ("text", "large-chunks"))]


class Wire:
    """Bytes from a socket, as many as are asked for."""

    def __init__(self, stream):
        self.stream, self.ahead = stream, b""

    def more(self):
        got = self.stream.recv(1 << 16)
        if not got:
            raise EOFError(f"closed after {self.ahead[-100:]!r}")
        self.ahead += got

    def until(self, mark):
        while mark not in self.ahead:
            self.more()
        got, self.ahead = self.ahead.split(mark, 1)
        return got

    def exactly(self, length):
        while len(self.ahead) < length:
            self.more()
        got, self.ahead = self.ahead[:length], self.ahead[length:]
        return got

    def chunks(self):
        body = []
        while size := int(self.until(b"\r\n"), 16):
            body.append(self.exactly(size))
            check("the end of a chunk", self.exactly(2), b"\r\n")
        check("the end of the chunks", self.exactly(2), b"\r\n")
        return b"".join(body)


def serve(stream):
    wire = Wire(stream)
    while True:
        try:
            head = wire.until(b"\r\n\r\n").decode("latin-1")
        except (EOFError, OSError):
            return
        pieces, announced = BODIES[head.split(" ")[1].rsplit("/", 1)[1]]
        framing = f"Content-Length: {sum(map(len, pieces))}" if announced else "Transfer-Encoding: chunked"
        stream.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{framing}\r\n\r\n".encode())
        for piece in filter(None, pieces):
            stream.sendall(piece if announced else b"%x\r\n%s\r\n" % (len(piece), piece))
        if not announced:
            stream.sendall(b"0\r\n\r\n")


def backend():
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    print(listener.getsockname()[1], flush=True)
    while True:
        stream, _ = listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(stream,), daemon=True).start()


def check(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r:.200}, wanted {wanted!r:.200}")


def decode(coding, body):
    """The content of what must be one whole stream and nothing beyond it."""
    if coding == "br":
        # One that ends earlier would have something behind its end.
        early = brotli.Decompressor()
        early.process(body[:-1])
        decoder = brotli.Decompressor()
        content = decoder.process(body)
        check("br is at its end with the last byte, and not before", (early.is_finished(), decoder.is_finished()), (False, True))
        check("br at once", brotli.decompress(body), content)
        return content
    if coding == "zstd":
        decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj(read_across_frames=False)
        content = decoder.decompress(body)
    else:
        decoder = zlib.decompressobj(wbits={"gzip": 31, "deflate": 15}[coding])
        content = decoder.decompress(body) + decoder.flush()
        check(f"{coding} left over", decoder.unconsumed_tail, b"")
    check(f"{coding} is at its end", (decoder.eof, decoder.unused_data), (True, b""))
    return content


def fields_of(head):
    status, *lines = head.decode("latin-1").split("\r\n")
    return status, {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}


def client(address, word):
    """Asks for all bodies on one connection, so that the end of each is also the beginning of the next."""
    coding = word.rsplit("-", 1)[0]
    with socket.create_connection(address, SECONDS) as stream:
        wire, asked = Wire(stream), paths(word)
        for path in asked:
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n".encode())
            status, fields = fields_of(wire.until(b"\r\n\r\n"))
            check(path, status.split(" ")[1], "200")
            wanted = b"".join(BODIES[path.rsplit("/", 1)[1]][0])
            if fields.get("content-length") == "0":
                body = content = b""
                check(f"{path}: a coding of nothing", fields.get("content-encoding"), None)
            else:
                check(f"{path}: chunks", (fields.get("transfer-encoding"), fields.get("content-length")), ("chunked", None))
                check(f"{path}: coding", fields.get("content-encoding"), coding)
                body = wire.chunks()
                content = decode(coding, body)
            check(f"{path}: vary", fields.get("vary", "").lower(), "accept-encoding")
            if content != wanted:
                sys.exit(f"{path}: {len(content)} bytes came, {len(wanted)} were sent, or they differ")
            if path.endswith(("text", "less")) and len(body) > len(wanted) // 2:
                sys.exit(f"{path}: {len(wanted)} bytes became {len(body)}")
        check(f"{word}: bytes behind the last answer", wire.ahead, b"")
        return len(asked)


if __name__ == "__main__":
    if sys.argv[1] == "backend":
        backend()
    host, port = sys.argv[2].rsplit(":", 1)
    with ThreadPoolExecutor(8) as pool:
        # SystemExit of a thread comes out here.
        count = sum(pool.map(lambda word: client((host, int(port)), word), sys.argv[3:]))
    print(f"{count} bodies came whole")
