#!/usr/bin/env python3
"""Writes what a program has counted (LLVM's raw profile) as text, which llvm-profdata of any version reads.

    to_text.py RAW TEXT

llvm-profdata reads raw profiles of its own version alone. The raw form is that of LLVM 19 and later (version 10, 64 bits,
little endian): https://llvm.org/docs/InstrProfileFormat.html. Profiles of values are passed over.
"""
import hashlib
import struct
import sys
import zlib

MAGIC, VERSION, OF_THE_COMPILER = b"\x81rforpl\xff", 10, 1 << 56
HEADER, RECORD = struct.Struct("<8s15Q"), struct.Struct("<QQQQQQI3H2xI")
COUNTER_SIZE = 8


def uleb128(data, at):
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def names_of(data):
    """Names by the hashes that records have of them."""
    names, at = {}, 0
    while at < len(data):
        size, at = uleb128(data, at)
        packed, at = uleb128(data, at)
        text = zlib.decompress(data[at:at + packed]) if packed else data[at:at + size]
        at += packed or size
        for name in text.split(b"\x01"):
            names[int.from_bytes(hashlib.md5(name, usedforsecurity=False).digest()[:8], "little")] = name
        while at < len(data) and data[at] == 0:
            at += 1
    return names


def read(data):
    """Whether the compiler placed the counters, and each function's name, hash and counts."""
    (magic, version, ids, records, before, counters, after, bitmap, after_bitmap, names, delta, *_) = HEADER.unpack_from(data)
    if magic != MAGIC or version & 0xFF != VERSION:
        sys.exit(f"this is no raw profile of version {VERSION}")
    first = HEADER.size + ids
    start = first + RECORD.size * records + before
    names_at = start + COUNTER_SIZE * counters + after + bitmap + after_bitmap
    known, functions = names_of(data[names_at:names_at + names]), []
    for index in range(records):
        name, hashed, place, *_, count, _, _, _, _ = RECORD.unpack_from(data, first + RECORD.size * index)
        # Each record says where its counters are from where it stands itself.
        at = start + (place - delta + RECORD.size * index) % (1 << 64)
        functions.append((known.get(name), hashed, struct.unpack_from(f"<{count}Q", data, at)))
    return bool(version & OF_THE_COMPILER), functions


def main():
    raw, text = sys.argv[1:]
    with open(raw, "rb") as file:
        is_of_the_compiler, functions = read(file.read())
    with open(text, "wb") as file:
        if is_of_the_compiler:
            file.write(b":ir\n")
        for name, hashed, counts in functions:
            if name and any(counts):
                file.write(b"%s\n%d\n%d\n%s\n\n" % (name, hashed, len(counts), b"\n".join(b"%d" % count for count in counts)))


if __name__ == "__main__":
    main()
