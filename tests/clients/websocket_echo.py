"""WebSocket from end to end with a library that checks every byte of the protocol.

    websocket_echo.py backend          starts an echo server, prints its port, serves until it is ended
    websocket_echo.py client URL       says things through URL (ws:// or wss://), exit 0 if each came back

Any certificate is taken: what the front door shows is tested elsewhere.
"""

import asyncio
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

MOST = 4 << 20
MESSAGES = [
    "hello",
    "",
    "grüße, 世界",
    bytes(range(256)),
    "long " * 200_000,
]


async def backend():
    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, max_size=MOST) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


async def client(url):
    trusting = None
    if url.startswith("wss:"):
        trusting = ssl.create_default_context()
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
    async with asyncio.timeout(20):
        async with connect(url, ssl=trusting, max_size=MOST, proxy=None) as connection:
            for message in MESSAGES:
                await connection.send(message)
                answer = await connection.recv()
                if answer != message:
                    sys.exit(f"sent {message[:40]!r}, got {answer[:40]!r}")
            await (await connection.ping(b"are you there"))
        if connection.close_code != 1000:
            sys.exit(f"closed with {connection.close_code} instead of 1000")


def main():
    match sys.argv[1:]:
        case ["backend"]:
            asyncio.run(backend())
        case ["client", url]:
            asyncio.run(client(url))
            print("every message came back")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
