"""gRPC from end to end: a unary call, both streams, and an error that travels in the trailers.

    grpc_echo.py backend                       starts the service without TLS, prints its port, serves until it is ended
    grpc_echo.py client HOST:PORT PEM          calls it through the front door's TLS, trusting the certificate in PEM
    grpc_echo.py client HOST:PORT              the same without TLS, by prior knowledge

The messages are bytes without a schema, so that no code has to be generated. HOST must be in the certificate.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

SERVICE = "portcullis.test.Echo"
SECONDS = 20


def unary(request, context):
    told = dict(context.invocation_metadata())
    context.set_trailing_metadata((("echoed", told.get("asked", "")),))
    return request


def repeat(request, _context):
    for _ in range(5):
        yield request


def chat(requests, _context):
    yield from requests


def fail(_request, context):
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you: 世界")


def backend():
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Repeat": grpc.unary_stream_rpc_method_handler(repeat),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
    }
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r}")


def client(channel):
    def path(name):
        return f"/{SERVICE}/{name}"

    answer, call = channel.unary_unary(path("Unary")).with_call(
        b"hello", metadata=(("asked", "yes"),), timeout=SECONDS
    )
    expect("the answer of a unary call", answer, b"hello")
    expect("its trailers", dict(call.trailing_metadata()).get("echoed"), "yes")

    big = bytes(1 << 20)
    expect("a large message", channel.unary_unary(path("Unary"))(big, timeout=SECONDS), big)

    answers = list(channel.unary_stream(path("Repeat"))(b"again", timeout=SECONDS))
    expect("a server's stream", answers, [b"again"] * 5)

    # Each word is sent only when the one before has come back: a front door that collects bodies would wait for ever.
    came_back = threading.Semaphore(1)
    words = [b"one", b"two", b"three"]

    def speak():
        for word in words:
            came_back.acquire()
            yield word

    heard = []
    for word in channel.stream_stream(path("Chat"))(speak(), timeout=SECONDS):
        heard.append(word)
        came_back.release()
    expect("a conversation", heard, words)

    try:
        channel.unary_unary(path("Fail"))(b"", timeout=SECONDS)
        sys.exit("a call that the service refuses should fail")
    except grpc.RpcError as error:
        expect("the status of an error", error.code(), grpc.StatusCode.PERMISSION_DENIED)
        expect("its message", error.details(), "not for you: 世界")
    print("every call went as it should")


def main():
    # A proxy that the environment names is not the one under test.
    options = (("grpc.enable_http_proxy", 0),)
    match sys.argv[1:]:
        case ["backend"]:
            backend()
        case ["client", address, pem]:
            with open(pem, "rb") as file:
                trusted = grpc.ssl_channel_credentials(root_certificates=file.read())
            with grpc.secure_channel(address, trusted, options) as channel:
                client(channel)
        case ["client", address]:
            with grpc.insecure_channel(address, options) as channel:
                client(channel)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
