"""
What the processes of the tour agree on: keys, values, shares, and the records of their reports.

The keys are addresses and URLs such as people have, generated from a seed.  A value says what it
belongs to, so that whoever reads one can tell whether it is the right one.
"""

from __future__ import annotations

import random
import struct
import zlib

__all__ = ["DONE", "READY", "RECORD", "VERSIONS", "make_keys", "make_value", "rewritten_by", "share_of", "version_of"]

# A report: of a writer the number and version of a key whose put has returned, of a reader how many
# lookups it did and how many found a value; or one of the two numbers below, with 0.
RECORD = struct.Struct("<II")
READY = 0xFFFFFFFF
DONE = 0xFFFFFFFE

VERSIONS = 2
"""A key is put once, and a third of them a second time."""

_GIVEN = (
    "ada alba amos anouk bela bruno carla cyril dana dmitri edda emil faye fritz gala gwen hana hugo ida ivo jana "
    "joel kaja kurt lena luca mara milo nadia nils olga otto petra quinn rosa ruben sara sven tara theo ulla vera "
    "viktor wanda xenia yara zeno"
).split()
_FAMILY = (
    "abel adler bauer berg castro conti dahl duval eriksen falk fischer garcia grant haas holm ibsen jansen keller "
    "kovac lang lindt maier moreau nagy novak olsen ortega petrov quist rossi santos silva thorn urban vogel weiss "
    "yilmaz zeman"
).split()
_HOSTS = "example.com example.net example.org mail.example.com mail.example.org post.example.net".split()
_SITES = "www.example.com docs.example.org shop.example.net blog.example.org".split()
_PARTS = "articles archive catalogue help images news notes people projects releases search tags".split()
_TOPICS = "atlas bridge canal delta ember fjord grove harbour island junction kiln lantern meadow north".split()


def _mail(rng: random.Random) -> str:
    person = f"{rng.choice(_GIVEN)}.{rng.choice(_FAMILY)}"
    if rng.random() < 0.6:
        person += str(rng.randrange(1, 1000))
    return f"{person}@{rng.choice(_HOSTS)}"


def _url(rng: random.Random) -> str:
    url = f"https://{rng.choice(_SITES)}/{rng.choice(_PARTS)}/{rng.randrange(1996, 2026)}/{rng.choice(_TOPICS)}"
    if rng.random() < 0.8:
        url += f"-and-{rng.choice(_TOPICS)}-{rng.randrange(1, 10000)}"
    return url


def make_keys(seed: int, count: int) -> list[bytes]:
    """
    Generate the keys.

    Args:
        seed: Any; the same seed and count give the same keys.
        count: >= 0.

    Returns:
        *count* different keys; half are mail addresses, half URLs, and some extend another.
    """
    rng = random.Random(seed)
    keys: dict[bytes, None] = {}
    last = ""
    while len(keys) < count:
        kind = rng.random()
        if last and kind < 0.03:
            text = f"{last}/inbox" if "@" in last else f"{last}?page={rng.randrange(2, 30)}"
        else:
            text = last = _mail(rng) if kind < 0.5 else _url(rng)
        keys[text.encode()] = None
    return list(keys)


def make_value(key: bytes, version: int) -> bytes:
    """
    The value of a key.

    Args:
        key: One of `make_keys`.
        version: 0 .. VERSIONS - 1.

    Returns:
        60 to 123 bytes that fit to no other key and version but by a rare chance.
    """
    check = zlib.crc32(key, version)
    return b"%d %08x " % (version, check) + b"x" * (50 + check % 64 - version)


def version_of(key: bytes, value: bytes) -> int:
    """
    Check a value that was read.

    Args:
        key: What was looked up.
        value: What was found.

    Returns:
        Its version; -1 where no version of the key has this value.
    """
    version = value[0] - 48 if value else -1
    return version if 0 <= version < VERSIONS and value == make_value(key, version) else -1


def share_of(numbers: int, writers: int, writer: int) -> range:
    """
    Which keys a writer loads, as numbers in the list of keys.

    Args:
        numbers: Keys altogether.
        writers: Writers altogether.
        writer: 0 .. writers - 1.

    Returns:
        Every *writers*-th number, so that the writers meet everywhere in the tree.
    """
    return range(writer, numbers, writers)


def rewritten_by(step: int) -> int | None:
    """
    Which key a writer puts a second time after a step.

    Args:
        step: How many keys of its share it had put before.

    Returns:
        The place of that key in its share, or None.
    """
    return step // 3 if step % 3 == 2 else None
