"""Seeded damage: of any bytes, and of JSON documents as documents.

What is done to an input is a function of its generator, so that every finding can be made again from its number.
"""

import copy
import json
import random
import re
from typing import Any

# What sizes, counts and offsets become: none, one, signs, limits of their types.
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 100_000, 10**9, 0x7FFFFFFF, 0xFFFFFFFF)
_WORTHLESS: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 1e308, 10**18, float("nan"), float("inf")),
    *("", "x", "../../escape", "<script>", "[red]", "\x1b[31m", "a\nb", "é" * 300, [], {}, [[]], {"a": 1}, ["x"] * 50),
)


def damaged(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """`content` with one or a few kinds of damage; spliced with one of `others` in some cases."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if data:
            rng.choice(_KINDS)(data, rng, others)
    return bytes(data)


def damaged_payload(content: bytes, rng: random.Random, pictures: list[tuple[int, int]]) -> bytes:
    """With one to sixteen bits of coded pictures flipped, behind what stands at the start of each."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 16))):
        place, size = rng.choice(pictures)
        at = place + rng.randrange(min(size // 2, 24), size)
        data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
    return bytes(data)


def damaged_times(content: bytes, rng: random.Random, pictures: list[tuple[int, int]]) -> bytes:
    """With other numbers where timestamps, durations and edit lists stand: in MP4's tables, elsewhere at the starts of
    pictures."""
    data = bytearray(content)
    tables = [found.start() for tag in _TIME_TABLES for found in re.finditer(tag, content)] if _is_mp4(content) else []
    for _ in range(rng.choice((1, 1, 2, 6))):
        if tables:
            tag = rng.choice(tables)
            size = int.from_bytes(data[tag - 4 : tag], "big")
            at, value = tag + rng.randrange(4, max(8, min(size, 400)), 4), rng.choice((*_NUMBERS, rng.randrange(1000)))
            data[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "big")
        else:
            at = rng.choice(pictures)[0] + rng.randrange(16)
            data[at : at + 2] = rng.choice((rng.randbytes(2), bytes(2), b"\xff\xff", b"\x80\x00"))
    return bytes(data[: len(content)])


_TIME_TABLES = (b"stts", b"ctts", b"elst", b"mdhd", b"mvhd", b"trun", b"tfdt")


def _is_mp4(content: bytes) -> bool:
    return content[4:8] in (b"ftyp", b"moov", b"wide")


def _flip_bits(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 4, 30))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_bits_of_the_head(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(min(len(data), 400))] ^= 1 << rng.randrange(8)


def _truncate(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    del data[rng.randrange(len(data)) :]


def _drop(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 4, 64, 1000))]


def _blank(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    at = rng.randrange(len(data))
    size = len(data[at : at + rng.choice((4, 16, 256, 4096))])
    data[at : at + size] = bytes([rng.choice((0, 0xFF))]) * size


def _number(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    """A field of four or eight bytes, most often one of the header."""
    size = rng.choice((2, 4, 4, 8))
    end = min(len(data), rng.choice((256, 2048, len(data))))
    at = rng.randrange(end)
    value = rng.choice(_NUMBERS) & ((1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _random(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    at = rng.randrange(len(data))
    data[at : at + rng.choice((1, 8, 200))] = rng.randbytes(rng.choice((1, 8, 200)))


def _repeat(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.choice((16, 500, 5000))] * rng.choice((1, 3))


def _splice(data: bytearray, rng: random.Random, others: list[bytes]) -> None:
    other = rng.choice(others)
    at = rng.randrange(len(data))
    data[at:] = other[min(at, rng.randrange(len(other))) :]


_KINDS = (
    *(_flip_bits, _flip_bits, _flip_bits_of_the_head, _truncate, _drop, _blank, _number, _number, _random),
    *(_repeat, _splice),
)


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    """A JSON document of which one or two values are others, lost or wrapped; sometimes with damaged bytes instead."""
    if rng.random() < 0.2:
        return damaged(content, rng, [content])
    document = json.loads(content)
    for _ in range(rng.choice((1, 1, 2))):
        document = _changed(document, rng)
    return json.dumps(document).encode()


def _changed(value: Any, rng: random.Random) -> Any:
    """Goes down to a random place and puts something else there."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        if rng.random() < 0.15:
            del value[key]
        else:
            value[key] = _changed(value[key], rng)
        return value
    return [value] if rng.random() < 0.1 else copy.deepcopy(rng.choice(_WORTHLESS))  # the next change may go into it
