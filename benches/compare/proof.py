"""That a proxy does what it was told, before it is measured."""
import http.client
import os
import sys
import time

from ground import settle
from wants import KEY


def get(proxy, path, **fields):
    """The head of an answer; the body is read, and not kept."""
    client = http.client.HTTPConnection("127.0.0.1", proxy.place.plain, timeout=10)
    try:
        client.request("GET", path, headers=fields)
        answer = client.getresponse()
        answer.read()
        return answer
    finally:
        client.close()


def is_reloaded(proxy, path):
    """Within two seconds; a signal that comes while the one before is being obeyed may be lost."""
    proxy.reload()
    deadline = time.monotonic() + 2
    while get(proxy, path).getheader("X-Turn") != str(proxy.place.turn):
        if time.monotonic() > deadline:
            return False
        settle()
    return True


def prove(proxy, path):
    """Ends everything with a sentence where it does not."""
    told = getattr(proxy.peer, "told", lambda wants: wants)
    wants, failed = told(proxy.wants), []
    if wants.cache:
        get(proxy, path)
        before = proxy.ground.fetched()
        get(proxy, path)
        failed += ["it asks the origin for what is stored"] * (proxy.ground.fetched() - before > 1)
    asking = {"Accept-Encoding": "gzip", "X-API-Key": KEY}
    if wants.gzip and get(proxy, "/json", **asking).getheader("Content-Encoding") != "gzip":
        failed.append("it does not compress")
    if wants.guarded and get(proxy, path).status != 401:
        failed.append("it lets in who has no key")
    if wants.log and not any(os.path.getsize(proxy.place.path(name)) > 1000 for name in ("access.log", "said.log")
                             if os.path.exists(proxy.place.path(name))):
        failed.append("it writes no access log")
    if wants.reloads:
        failed += ["it was not reloaded"] * (not any(is_reloaded(proxy, path) for _ in range(3)))
    if failed:
        sys.exit(f"{proxy.peer.name}: {', '.join(failed)}: {open(proxy.said.name).read()[-2000:]}")
