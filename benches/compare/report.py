"""What was measured: kept as JSON, shown as tables, and written into docs/benchmarks.md."""
import datetime
import json
import os
import platform

import plot
from figures import best, middle, ratio, spread
from running import HERE
from scenarios import IDLE, SCENARIOS

DOCS = os.path.join(HERE, "..", "docs")
RAW, PLOT = (os.path.join(DOCS, "benchmarks", f"compare.{kind}") for kind in ("json", "svg"))
PAGE = os.path.join(DOCS, "benchmarks.md")
HEADING = "## Side by side\n"

WORDS = """
    cargo build --release --bins --examples
    deploy/profiled/build
    benches/compare/run

{versions}. Measured {dates}, in {rounds} rounds a scenario with slices of {seconds} s, on {machine}.
All slices are in [compare.json](benchmarks/compare.json).

`profiled` is Portcullis as `deploy/profiled/build` builds it, by a profile of itself. `bare` is a `ProxyHttp` on the same Pingora that does nothing but name its one backend: the floor. `plain` is Portcullis on the same
route without what a scenario switches on. Each cell has the median over the rounds and its quartiles; *beside the best* and *beside bare
or plain* are medians of the ratios in the same round, where the best is whoever of the others has the least. A proxy that cannot do a thing is left out of it: Varnish speaks no TLS and is asked for what it stores
only, Envoy's cache is not for production, and it is reloaded in another way.

![CPU time per request](benchmarks/compare.svg)
"""

PACED = """
### How long a request waits

At a fixed rate, which is half of what the slowest of them can answer. The load is `examples/paced.rs`: up to 128 connections, on HTTP/2
too, with one request at a time each, at moments drawn by chance. It keeps its pace whatever comes back, and a request that had to wait for
its connection counts from when it was due.
Medians over the rounds of each round's percentiles, in milliseconds.
"""

FAILED = """
### When something is wrong

Requests that failed (an answer of 400 or more, or a connection that broke), and the waiting of clients that ask for all they can get, in
milliseconds.
"""

MEMORY = """
### Memory and start

Resident memory in MiB with so many connections between two requests (pages that several processes have are counted once), and KiB for each
connection, from the step between the last two.
"""

START = """
From the start of the program to the first answer, with 10,000 hosts that have a route each:
"""


def today():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")


def kept():
    try:
        with open(RAW) as file:
            return json.load(file)
    except FileNotFoundError:
        return {"scenarios": {}}


def keep(found):
    os.makedirs(os.path.dirname(RAW), exist_ok=True)
    with open(RAW, "w") as file:
        json.dump(rounded(found), file, indent=1)
        file.write("\n")


def rounded(value):
    """Six digits are more than anything here can say."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def table(head, rows):
    return "\n".join([f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}",
                      *(f"| {' | '.join(row)} |" for row in rows), ""])


def figure(slices, key, digits=1):
    low, median, high = spread(slices, key)
    return f"{median:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def names_in(scenarios):
    return [name for name in plot.COLOURS if any(name in one["slices"] for one in scenarios)]


def beside(slices, other, key, ours="portcullis"):
    return f"{ratio(slices, ours, other, key)[1]:.2f}" if other and {ours, other} <= set(slices) else ""


def cost_table(scenarios):
    names = names_in(scenarios)
    rows = []
    for one in scenarios:
        slices, other = one["slices"], best(one["slices"], "cpu_us")
        by = f" {other}" if other else ""
        rows.append([one["title"], *(figure(slices[name], "cpu_us") if name in slices else "" for name in names),
                     beside(slices, other, "cpu_us") + by, beside(slices, other, "cpu_us", "profiled"), beside(slices, "bare", "cpu_us") or beside(slices, "plain", "cpu_us")])
    return table(["CPU us", *names, "beside the best", "profiled beside the best", "beside bare or plain"], rows)


def rate_table(scenarios):
    names = names_in(scenarios)
    return table(["a second", *names], [
        [one["title"], *(f"{middle(one['slices'][name], 'rate'):,.0f}" if name in one["slices"] else "" for name in names)]
        for one in scenarios])


def paced_table(scenarios):
    rows = []
    for one in scenarios:
        for name, slices in one["paced"].items():
            rows.append([f"{one['title'].removesuffix(', 16 streams')}, {one['paced_rate']:,}/s", name,
                         *(f"{middle(slices, key):.2f}" for key in ("p50_ms", "p99_ms", "p999_ms"))])
    return table(["", "proxy", "p50", "p99", "p99.9"], rows)


def failed_table(scenarios):
    rows = [[one["title"], name, str(sum(piece["failed"] for piece in slices)), f"{sum(piece['answered'] for piece in slices):,}",
             *(f"{middle(slices, key):.2f}" for key in ("p50_ms", "p99_ms"))]
            for one in scenarios for name, slices in one["slices"].items()]
    return table(["", "proxy", "failed", "of", "p50", "p99"], rows)


def memory_table(scenarios):
    rows = [[one["title"], name, *(f"{middle(slices, f'kib_{count}') / 1024:.1f}" for count in IDLE),
             f"{middle(slices, 'kib_each'):.1f}"] for one in scenarios for name, slices in one["slices"].items()]
    return table(["", "proxy", *(f"{count:,}" for count in IDLE), "KiB each"], rows)


def start_table(one):
    rows = [[name, figure(slices, "ready_ms", 0), f"{middle(slices, 'cpu_ms'):.0f}", f"{middle(slices, 'resident_mib'):.1f}"]
            for name, slices in one["slices"].items()]
    return table(["proxy", "ms", "CPU ms", "MiB"], rows)


def shown(one):
    """One scenario, as soon as it was measured."""
    first = next(iter(one["slices"].values()))[0]
    if "kib_each" in first:
        return memory_table([one])
    if "ready_ms" in first:
        return start_table(one)
    parts = [cost_table([one]), rate_table([one])]
    if "paced" in one:
        parts.append(paced_table([one]))
    if any(piece["failed"] for slices in one["slices"].values() for piece in slices):
        parts.append(failed_table([one]))
    return "\n".join(parts)


def span(numbers):
    """From the least to the most; one where they are the same."""
    return " to ".join(f"{number:g}" for number in sorted({min(numbers), max(numbers)}))


def section(found):
    known = {name: found["scenarios"][name] for name in SCENARIOS if name in found["scenarios"]}
    costly = [one for one in known.values() if "cpu_us" in next(iter(one["slices"].values()))[0]]
    versions, dates, rounds = {}, set(), []
    for one in known.values():
        versions |= one["versions"]
        dates.add(one["measured"])
        rounds.append(max(map(len, one["slices"].values())))
    words = WORDS.format(
        versions=", ".join(f"{name} {version}" for name, version in versions.items()), dates=" and ".join(sorted(dates)),
        rounds=span(rounds), seconds=span([one["seconds"] for one in known.values()]), machine=machine())
    parts = [HEADING, words, cost_table(costly),
             "Answered a second, asked for all they can do; the load and the origin have but one core, so what is cheap is limited "
             "by them:\n", rate_table(costly)]
    if paced := [one for one in costly if "paced" in one]:
        parts += [PACED, paced_table(paced)]
    if wrong := [known[name] for name in ("dead", "slow", "reload") if name in known]:
        parts += [FAILED, failed_table(wrong)]
    if idle := [known[name] for name in ("idle", "idle-tls") if name in known]:
        parts += [MEMORY, memory_table(idle)]
    if "start" in known:
        parts += [START, start_table(known["start"])]
    return "\n".join(parts).replace("\n\n\n", "\n\n"), plot.svg(costly)


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "a processor")
    return f"{os.cpu_count()} cores ({model}), Linux {platform.release().split('-')[0]}"


def write(found):
    """The section takes the place of the one that stands there; the first time it comes before all others but how it is done."""
    if not found["scenarios"]:
        return
    keep(found)
    new, drawn = section(found)
    with open(PLOT, "w") as file:
        file.write(drawn)
    with open(PAGE) as file:
        page = file.read()
    before, found_heading, after = page.partition(HEADING)
    if not found_heading:
        before, heading, after = page.partition("## A hit in the cache\n")
        after = "\n" + heading + after
    _, next_heading, rest = after.partition("\n## ")
    with open(PAGE, "w") as file:
        file.write(before + new.rstrip("\n") + "\n" + next_heading + rest)
