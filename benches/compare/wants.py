"""What a proxy must be told for a scenario."""
from dataclasses import dataclass

# Where 32 MiB are enough for all that the scenarios store.
CACHE_MIB = 32
HOSTS = 10_000
KEY = "pck_bench000_0123456789abcdef0123456789abcdef"
GZIP_LEVEL = 5
GZIP_TYPES = ("application/json", "text/plain")


@dataclass(frozen=True)
class Wants:
    """Scenarios with equal wants are asked of the same process."""
    certificate: str = "ecdsa"
    # Which backends: see Origins in ground.py.
    origin: str = "plain"
    least_connections: bool = False
    # Whether the proxy is to find out what is wrong with its backends, by its defaults.
    watchful: bool = False
    cache: bool = False
    gzip: bool = False
    log: bool = False
    # An API key, and a limit of requests for each client, high enough that nobody meets it.
    guarded: bool = False
    # As many hosts with a route each, instead of one route for all.
    hosts: int = 0
    # Whether it is reloaded meanwhile.
    reloads: bool = False


@dataclass(frozen=True)
class Place:
    """Where a proxy listens, and where its files are."""
    folder: str
    plain: int
    secure: int
    cert: str
    key: str
    both: str
    backends: tuple
    # Goes up with each reload, so that there is something to change.
    turn: int = 0

    def path(self, name):
        return f"{self.folder}/{name}"

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)
