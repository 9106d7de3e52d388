"""
What is stored: keys of four shapes, values of two sizes; and what YCSB asks for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

SHAPES = ("random8", "dense8", "mail", "url")
NAMES = "anna ben carla david elif farid greta hugo ines jan kofi lena mara nils olga pablo rosa sven tara uwe".split()
HOSTS = "example.com mail.example.org post.example.net uni.example.edu work.example.io".split()
PARTS = "articles images static users products reviews archive download search category tag page api v1 v2".split()
ASKED = 1_000_000  # look-ups are timed for a second or so
ZIPF = 0.99  # YCSB's constant


@dataclass
class Data:
    """What all peers are given."""

    shape: str
    value: int  # bytes
    keys: list[bytes]
    probes: list[bytes]  # as many of the keys as are asked for, in another order
    misses: list[bytes]
    fresh: list[bytes]  # to be put one by one
    prefixes: list[bytes]  # of some dozens of keys each, where the shape has such

    def pairs(self, keys: list[bytes]) -> list[tuple[bytes, bytes]]:
        """Each key with a value of the workload's size, which begins with the key's end."""
        return [(key, self.value_of(key)) for key in keys]

    def value_of(self, key: bytes) -> bytes:
        """Of the workload's size."""
        return (key[-self.value :]).ljust(self.value, b".")


def _mail(dice: random.Random) -> bytes:
    name = f"{dice.choice(NAMES)}.{dice.choice(NAMES)}{dice.randrange(10_000_000)}"
    return f"{name}@{dice.choice(HOSTS)}".encode()


def _url(dice: random.Random) -> bytes:
    path = "/".join(dice.choice(PARTS) for _ in range(dice.randint(1, 7)))
    return f"https://www.{dice.choice(HOSTS)}/{path}/{dice.randrange(10_000_000):07x}"[:120].encode()


def _distinct(make: Callable[[], bytes]) -> Iterator[bytes]:
    seen = set()
    while True:
        key = make()
        if key not in seen:
            seen.add(key)
            yield key


def make_data(shape: str, value: int, count: int, seed: int) -> Data:
    """
    Keys of a shape, and absent and new ones that are alike.

    Args:
        shape: random8, dense8 (consecutive big-endian numbers), mail or url (30 to 120 bytes, long shared prefixes).
        value: Bytes of each value.
        count: Keys.
        seed: For all choices.
    """
    dice = random.Random(seed)
    fresh, asked = min(count // 2, 500_000), min(count, ASKED)
    total, makers = count + asked + fresh, {"mail": _mail, "url": _url}
    if shape == "dense8":
        every = [number.to_bytes(8, "big") for number in range(total)]
        dice.shuffle(rest := every[count:])
        every[count:] = rest
    elif shape == "random8":
        every = list(islice(_distinct(lambda: dice.randbytes(8)), total))
    else:
        every = list(islice(_distinct(lambda: makers[shape](dice)), total))
    keys, misses = every[:count], every[count : count + asked]
    cut = {"random8": 2, "dense8": 7}.get(shape)
    some = dice.sample(keys, min(count, 2000))
    prefixes = [
        key[:cut] if cut else key[: key.rindex(b"/" if shape == "url" else b".", 0, len(key) - 8) + 1] for key in some
    ]
    return Data(shape, value, keys, dice.sample(keys, asked), misses, every[count + asked :], prefixes)


@cache
def zeta(count: int) -> float:
    """The sum of 1/rank**ZIPF over all ranks: a thousand as they are, the rest by Euler and Maclaurin's formula."""
    few = min(count, 1000)
    head = sum(1 / rank**ZIPF for rank in range(1, few + 1))
    tail = (count ** (1 - ZIPF) - few ** (1 - ZIPF)) / (1 - ZIPF)
    return head + tail + (count**-ZIPF - few**-ZIPF) / 2 + ZIPF * (few ** (-ZIPF - 1) - count ** (-ZIPF - 1)) / 12


def zipfian(count: int, draws: int, dice: random.Random) -> list[int]:
    """
    Ranks drawn with YCSB's zipfian distribution, then scattered over 0..count-1.

    Source: Gray et al., "Quickly generating billion-record synthetic databases", SIGMOD 1994, as YCSB uses it.
    """
    whole, power = zeta(count), 1 / (1 - ZIPF)
    eta = (1 - (2 / count) ** (1 - ZIPF)) / (1 - zeta(2) / whole)
    out = []
    for _ in range(draws):
        share = dice.random()
        if share * whole < 1 + 0.5**ZIPF:
            rank = int(share * whole >= 1)
        else:
            rank = min(count - 1, int(count * (eta * share - eta + 1) ** power))
        out.append(rank * 0x9E3779B97F4A7C15 % (1 << 64) % count)  # scattered
    return out


YCSB = {
    "A": {"read": 50, "update": 50},
    "B": {"read": 95, "update": 5},
    "C": {"read": 100},
    "D": {"read": 95, "insert": 5},  # reads the latest
    "E": {"scan": 95, "insert": 5},
    "F": {"read": 50, "modify": 50},
}


def requests(data: Data, letter: str, draws: int, seed: int) -> list[tuple[str, bytes, int]]:
    """Operation, key and length of a scan, so many times."""
    dice = random.Random(f"{seed} {letter}")
    kinds = dice.choices(list(YCSB[letter]), list(YCSB[letter].values()), k=draws)
    ranks, new, out = zipfian(len(data.keys), draws, dice), iter(data.fresh), []
    latest = list(data.keys[-10_000:])
    for kind, rank in zip(kinds, ranks, strict=True):
        if kind == "insert":
            key = next(new)
            latest.append(key)
        else:
            key = latest[-1 - rank % len(latest)] if letter == "D" else data.keys[rank]
        out.append((kind, key, dice.randint(1, 100) if kind == "scan" else 0))
    return out
