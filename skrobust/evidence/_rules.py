"""What the checker of evidence knows of files, numbers and nodes; it needs NumPy alone.

Affine nodes are pulled back by their weights; other ones by lines below and above them, on an
interval of their input. Intervals and lines are floats, rounded outwards where they are made.
"""

import json
import math
import zipfile
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace as Space

import numpy as np

UNIT = 2.0**-53
# Underflow takes at most 2^-1075 off a product. TINY is far above it, even times UNIT; ROOM is
# above what all products of a file lose, each of which meets numbers up to LARGEST: 2^-1075 1e100
# times fewer than 2^40 products.
TINY, ROOM, LARGEST = 1e-300, 1e-200, 1e100
_MOST_BYTES, MOST_NUMBERS = 2**28, 2**25  # of the arrays of one file; they become floats


class Rejected(Exception):
    """Why a file is not accepted."""


def need(condition, why):
    if not condition:
        raise Rejected(why)


def read_arrays(path):
    """Return the arrays of an npz file, without pickle; headers claim no more than is there."""
    arrays, count = {}, 0
    try:
        with zipfile.ZipFile(path) as archive:
            most = min(_MOST_BYTES, 1040 * Path(path).stat().st_size)  # no deflate makes more
            size = sum(part.file_size for part in archive.infolist())
            need(size <= most, f"it claims {size} bytes, and {most} are allowed")
            for part in archive.infolist():
                with archive.open(part) as stream:
                    need(np.lib.format.read_magic(stream) == (1, 0), "another version of npy")
                    shape, columns, dtype = np.lib.format.read_array_header_1_0(stream)
                    data = stream.read(part.file_size)
                fits = dtype.kind in "fiub" and len(data) == math.prod(shape) * dtype.itemsize
                need(fits and not columns, f"{part.filename} is no array {shape} of {dtype}")
                name, count = part.filename.removesuffix(".npy"), count + math.prod(shape)
                need(count <= MOST_NUMBERS, f"it has more than {MOST_NUMBERS} numbers")
                arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    except Rejected:
        raise
    except Exception as error:  # whatever zip and npy make of a stranger's file
        raise Rejected(f"it cannot be read: {type(error).__name__} {error}") from None
    return arrays


def plain(text):
    """Return a text of a stranger as ASCII without control characters."""
    is_plain = isinstance(text, str) and text.isascii() and text.isprintable()
    return text if is_plain else ascii(text)


def read_json(data, name):
    need(getattr(data, "dtype", np.uint8) == np.uint8, f"{name} is no JSON, as bytes")
    try:
        content = json.loads(bytes(data).decode())
    except (ValueError, RecursionError) as error:
        raise Rejected(f"{name} is no JSON: {error}") from None
    need(isinstance(content, dict), f"{name} is no JSON object")
    return content


def numbers(arrays, name, shape, finite=True, below=None):
    """Return an array as floats, or as whole numbers from 0 to `below`; None: any length."""
    need(name in arrays, f"{name} is missing")
    array = arrays[name].astype(np.float64)
    fits = array.ndim == len(shape) and all(
        b in (None, a) for a, b in zip(array.shape, shape, strict=True)
    )
    need(fits, f"{name} is of shape {array.shape}, not {shape}")
    need(not np.isnan(array).any(), f"{name} has NaN")
    need(not finite or (np.abs(array) < LARGEST).all(), f"{name} has numbers beyond {LARGEST}")
    if below is not None:
        is_place = (array >= 0) & (array < below) & (array == np.floor(array))
        need(is_place.all(), f"{name} has numbers that are no places below {below}")
        array = array.astype(np.int64)
    return array


# Pairs (m, k) are numbers m 2^k: m has Python's integers, or floats (k = 0).


def floats(values):
    return np.asarray(values, dtype=np.float64), 0


def integers(values):
    mantissa, exponent = np.frexp(np.asarray(values, dtype=np.float64))
    whole = (mantissa * 2.0**53).astype(np.int64).astype(object)
    least = int(exponent.min(where=whole != 0, initial=2**20))
    whole = whole * 2 ** np.where(whole == 0, 0, exponent - least).astype(object)
    common = int(np.bitwise_or.reduce(whole, axis=None)) if whole.size else 0
    zeros = max(0, (common & -common).bit_length() - 1)
    return whole // 2**zeros, (least - 53 + zeros) * bool(common)


def add(a, b):
    (x, i), (y, j) = a, b
    return x * 2 ** max(0, i - j) + y * 2 ** max(0, j - i), min(i, j)


def rounded_down(pair):
    if pair[0].dtype != object:
        return pair[0]
    scale, lower = Fraction(2) ** pair[1], []
    for exact in (value * scale for value in pair[0]):
        near = float(exact) if abs(exact) < 2**1000 else -np.inf
        lower.append(near if near <= exact else np.nextafter(near, -np.inf))
    return np.array(lower)


class Affine:
    """W x + b of one or several inputs: a matrix, or triplets of output, input and weight."""

    def __init__(self, arrays, sizes, lift):
        self.ends, total = np.cumsum(sizes)[:-1], sum(sizes)
        self.bias = numbers(arrays, "bias", (None,))
        self.size, self.triplets, most = self.bias.size, None, total
        if "rows" in arrays:
            weight = numbers(arrays, "weight", (None,))
            rows = numbers(arrays, "rows", weight.shape, below=self.size)
            cols = numbers(arrays, "cols", weight.shape, below=total)
            most = np.bincount(rows, minlength=1).max()
            if lift is floats and most > 1 and total * self.size <= 2**23:
                need(len(set(rows * total + cols)) == len(rows), "triplets are repeated")
                dense = np.zeros((self.size, total))
                dense[rows, cols], weight = weight, dense
                weight = dense
            else:
                self.triplets = [(rows, cols, self.size), (cols, rows, total)]
        else:
            weight = numbers(arrays, "weight", (self.size, total))
        self.weight, self.own, self.shift = weight, lift(weight), lift(self.bias)
        self.mixes, self.terms = bool(most > 1), 2 * (total + self.size)

    def through(self, values, weight, back=0):
        """Return W x; or with `back` x W, for rows of the output."""
        if self.triplets is None:
            weight = weight if back else weight.T
            used = (values != 0).any(axis=0) if values.dtype == object else slice(None)
            return values[:, used] @ weight[used] if len(weight[used]) else values @ weight
        target, source, size = self.triplets[back]
        total, order = np.zeros((len(values), size), values.dtype), np.argsort(target)
        first = np.flatnonzero(np.diff(target[order], prepend=-1))
        if len(order):
            terms = (values[:, source] * weight)[:, order]
            total[:, target[order][first]] = np.add.reduceat(terms, first, axis=1)
        return total

    def interval(self, low, high, gamma):
        """Return an interval of the output, and |W| max |z| + 2 |b|, which errors refer to."""
        size = np.abs(self.weight)
        scale = self.through(np.maximum(-low, high) + TINY, size) + 2 * np.abs(self.bias)
        middle = self.through(low / 2 + high / 2, self.weight) + self.bias
        radius = self.through(high / 2 - low / 2, size) + gamma * scale + ROOM
        return middle - radius, middle + radius, scale

    def pull(self, rows, lines, alpha, lift):
        """Return rows of the output as rows of the inputs, and their constants."""
        (here, k), (weight, i), (bias, j) = rows, self.own, self.shift
        parts = np.split(self.through(here, weight, 1), self.ends, axis=1)
        return [(part, k + i) for part in parts], ((here * bias).sum(axis=1), k + j)


class Relu:
    """z where z > 0, else slope * z."""

    n_free = 1  # numbers of a proof that choose the lines of a unit

    def __init__(self, arrays, sizes, lift):
        self.slope, self.size = numbers(arrays, "slope", tuple(sizes)), sizes[0]
        self.kinks, self.convex = (0.0,), self.slope <= 1

    def apply(self, z):
        return np.where(z > 0, z, self.slope * z)

    def slopes(self, low, high):
        """Return slopes of lines below and above where open; else slope and constant."""
        is_open = (low < 0) & (high > 0)
        chord = (high - self.slope * low) / np.where(is_open, high - low, 1.0)
        # Larger by more than rounding, so that all choose the same side.
        nearer = np.where(high > -low * (1 + 2.0**-20), 1.0, self.slope)
        ends = np.where(self.convex, nearer, chord), np.where(self.convex, chord, nearer)
        return *ends, np.where(low >= 0, 1.0, self.slope), 0.0, is_open

    def lines(self, low, high):
        *slopes, linear, level, is_open = self.slopes(low, high)
        corners = np.stack([low, high, *(np.clip(kink, low, high) for kink in self.kinks)])
        values, lines = self.apply(corners), Space(open=is_open)
        for slope, side, name in zip(slopes, (-1, 1), ("low", "high"), strict=True):
            # The least or largest f - slope z, at the ends or at a kink, rounded outwards.
            # Two products and a difference: 3 roundings of their sizes; one more for the rest.
            slack = 4 * UNIT * (np.abs(values) + np.abs(slope * corners)) + TINY
            shift = side * (side * (values - slope * corners) + slack).max(axis=0)
            setattr(lines, name, np.where(is_open, slope, linear))
            setattr(lines, f"{name}_at", np.where(is_open, shift, level))
        return lines

    def wanted(self, low, high):
        """Return which entries of the input are worth a tighter interval."""
        return self.slopes(low, high)[-1]

    def image(self, low, high):
        ends = self.apply(np.stack([low, high, *(np.clip(k, low, high) for k in self.kinks)]))
        largest = np.maximum(-low, high) + max(map(abs, self.kinks), default=0.0) + TINY
        # A line has a slope and a constant of at most 1 + |slope|, and 2 (1 + |slope|) times
        # the largest |z|; twice that, and as much again for the rounding of these ends.
        scale = 8 * (1 + np.abs(self.slope)) * largest
        # Products are rounded, unless with 0 or a power of two from 1 on (of mantissa 1/2).
        is_power = (np.abs(np.frexp(self.slope)[0]) == 0.5) & (np.abs(self.slope) >= 1)
        is_rounded = ~is_power & (np.asarray(self.slope) != 0)
        low, high = ends.min(axis=0), ends.max(axis=0)
        low = np.where(is_rounded, np.nextafter(low, -np.inf), low)
        return low, np.where(is_rounded, np.nextafter(high, np.inf), high), scale

    def pull(self, rows, lines, alpha, lift):
        names = ("low", "low_at", "high", "high_at")
        low, low_at, high, high_at = (getattr(lines, name) for name in names)
        if alpha is not None and self.convex is not None:
            # Any slope between those of the pieces gives such a line, through the kink; below 0
            # stands for the line of the rule.
            slope = self.slope + np.clip(alpha, 0, 1) * (1 - self.slope)
            slope = np.clip(slope, np.minimum(self.slope, 1), np.maximum(self.slope, 1))
            is_free = lines.open & (alpha >= 0)
            below, above = is_free & self.convex, is_free & ~self.convex
            low, low_at = np.where(below, slope, low), np.where(below, 0.0, low_at)
            high, high_at = np.where(above, slope, high), np.where(above, 0.0, high_at)
        (here, k), (slopes, i) = rows, lift(np.stack([low, high]))
        shifts, j = lift(np.stack([low_at, high_at]))
        positive, negative = np.where(here > 0, here, 0), np.where(here < 0, here, 0)
        constant = (positive * shifts[0] + negative * shifts[1]).sum(axis=1)
        return [(positive * slopes[0] + negative * slopes[1], k + i)], (constant, k + j)

    def chords(self, low, high, at_low, at_high):
        """Return between which the slopes of chords to the center lie, that is in [low, high].

        For convex and for concave units they are monotone in both ends. Where all is next to 0,
        products underflow: between the slopes of the pieces they lie in any case.
        """
        ends = []
        for z, center, kink in ((low, at_low, self.slope), (high, at_high, 1.0)):
            right, left = (
                np.maximum(np.maximum(z, center), 0),
                np.minimum(np.minimum(z, center), 0),
            )
            is_wide = right - left > TINY
            chord = (right - self.slope * left) / np.where(is_wide, right - left, 1.0)
            ends.append(np.where(is_wide, chord, kink))
        slack = 8 * UNIT * (1 + np.abs(self.slope))
        least, most = np.minimum(*ends) - slack, np.maximum(*ends) + slack
        is_linear, slope = (low >= 0) | (high <= 0), np.where(low >= 0, 1.0, self.slope)
        return np.where(is_linear, slope, least), np.where(is_linear, slope, most)


class Clamp(Relu):
    """z cut to [low, high]."""

    slope, convex = 0.0, None

    def __init__(self, arrays, sizes, lift):
        self.low, self.high = limits = numbers(arrays, "limits", (2,), finite=False)
        self.size, self.kinks = sizes[0], [limit for limit in limits if np.isfinite(limit)]
        need(self.low <= self.high, "a clamp has crossed limits")
        need(self.low < np.inf and self.high > -np.inf, "a clamp leaves no number")

    def apply(self, z):
        return np.clip(z, self.low, self.high)

    def slopes(self, low, high):
        at_low, at_high = self.apply(low), self.apply(high)
        inside = (low >= self.low) & (high <= self.high)
        is_open = ~inside & (low < self.high) & (high > self.low)
        first, last = is_open & (low < self.low), is_open & (high > self.high)
        chord = (at_high - at_low) / np.where(is_open, high - low, 1.0)
        # From a kink to the farther end, where that is farther than the nearer one; or level.
        a, b = (k if np.isfinite(k) else 0.0 for k in (self.low, self.high))
        right = np.where(high - a > a - low, at_high - a, 0.0) / np.where(first, high - a, 1.0)
        left = np.where(b - low > high - b, b - at_low, 0.0) / np.where(last, b - low, 1.0)
        ends = np.where(first, right, chord), np.where(last, left, chord)
        return *ends, inside * 1.0, np.where(inside, 0.0, at_low), is_open

    def chords(self, low, high, at_low, at_high):
        inside, flat = (
            (low >= self.low) & (high <= self.high),
            (high <= self.low) | (low >= self.high),
        )
        return inside * 1.0, ~flat * 1.0


class Pool:
    """The largest entry of each window: one member lies below, and above where it wins."""

    n_free = 1

    def __init__(self, arrays, sizes, lift):
        self.members = numbers(arrays, "members", (None, None), below=sizes[0])
        self.size, self.n_inputs = len(self.members), sizes[0]
        need(self.members.shape[1], "a window is empty")

    def lines(self, low, high):
        lows, highs = low[:, self.members], high[:, self.members]
        member = self.members[np.arange(self.size), lows.argmax(axis=2)]
        rivals = np.where(self.members == member[..., None], -np.inf, highs).max(axis=2)
        return Space(member=member, open=lows.max(axis=2) < rivals, top=highs.max(axis=2))

    def wanted(self, low, high):
        chosen = np.zeros(low.shape, dtype=bool)
        for k, is_open in enumerate(self.lines(low, high).open):
            chosen[k, self.members[is_open]] = True
        return chosen

    def image(self, low, high):
        low, high = low[:, self.members].max(axis=2), high[:, self.members].max(axis=2)
        return low, high, 2 * np.maximum(-low, high) + TINY

    def pull(self, rows, lines, alpha, lift):
        (here, k), (top, i) = rows, lift(lines.top)
        linear = np.where(lines.open & (here < 0), 0, here)
        part = np.zeros((len(here), self.n_inputs), dtype=here.dtype)
        np.add.at(part, (np.arange(len(here))[:, None], lines.member), linear)
        return [(part, k)], (((here - linear) * top).sum(axis=1), k + i)


KINDS = {"affine": Affine, "relu": Relu, "clamp": Clamp, "maxpool": Pool}
