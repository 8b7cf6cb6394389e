"""Medians, their spread, and ratios, out of slices."""
import statistics

OURS = ("portcullis", "profiled", "bare", "plain")


def middle(slices, key):
    return statistics.median(one[key] for one in slices)


def quartiles(values):
    """The lower quartile, the median and the upper one."""
    if len(values) < 2:
        return (values[0],) * 3
    return tuple(statistics.quantiles(values, n=4, method="inclusive"))


def spread(slices, key):
    return quartiles([one[key] for one in slices])


def ratio(slices, name, beside, key):
    """Of the ratios within the rounds; the n-th slice of each is of the n-th round."""
    return quartiles([one[key] / other[key] for one, other in zip(slices[name], slices[beside]) if other[key]] or [0])


def best(slices, key):
    """Who of the others has the least."""
    others = [name for name in slices if name not in OURS]
    return min(others, key=lambda name: middle(slices[name], key), default=None)
