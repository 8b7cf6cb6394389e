"""A connection that begins with a head of HTTP and then speaks something else."""
import asyncio


class Upgraded(asyncio.Protocol):
    """Calls `open(head)` once the head is there, and `talk()` whenever there is more in `seen`."""

    def __init__(self):
        self.seen, self.is_open = b"", False

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.seen += data
        if not self.is_open:
            head, end, rest = self.seen.partition(b"\r\n\r\n")
            if not end:
                return
            self.seen, self.is_open = rest, True
            self.open(head)
        self.talk()
