"""OLE compound files, written for the tests of what is in them."""

from __future__ import annotations

import struct

SECTOR, MINI, CUTOFF = 512, 64, 4096
FREE, END, FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def compound(streams: dict[str, bytes]) -> bytes:
    """A file with these streams; 'a/b' is the stream b in the storage a."""
    nodes: list[tuple[str, int, bytes]] = [("Root Entry", -1, b"")]  # name, parent, content
    places = {"": 0}
    for path, content in streams.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) not in places:
                places[folder] = len(nodes)
                nodes.append((parts[depth - 1], places["/".join(parts[: depth - 1])], b""))
        places[path] = len(nodes)
        nodes.append((parts[-1], places["/".join(parts[:-1])], content))

    sectors: list[bytes] = []
    fat: list[int] = []

    def chain(content: bytes) -> int:
        """Puts it into sectors of its own; the number of the first."""
        first = len(sectors)
        pieces = [content[at : at + SECTOR].ljust(SECTOR, b"\0") for at in range(0, len(content), SECTOR)]
        sectors.extend(pieces)
        fat.extend([*range(first + 1, first + len(pieces)), END] if pieces else [])
        return first if pieces else END

    mini, mini_fat, starts = b"", list[int](), dict[int, int]()
    for number, (_, _, content) in enumerate(nodes):
        if number and len(content) >= CUTOFF:
            starts[number] = chain(content)
        elif content:
            starts[number] = len(mini_fat)
            count = -(-len(content) // MINI)
            mini_fat += [*range(len(mini_fat) + 1, len(mini_fat) + count), END]
            mini += content.ljust(count * MINI, b"\0")
    starts[0] = chain(mini)
    mini_fat_at = chain(struct.pack(f"<{len(mini_fat)}I", *mini_fat).ljust(-len(mini_fat) % 128 * 4, b"\xff"))
    mini_sectors = -(-len(mini_fat) // 128)
    directory_at = chain(_directory(nodes, set(streams), places, starts, len(mini)))
    fat_sectors = 1
    while (len(sectors) + fat_sectors) > fat_sectors * 128:
        fat_sectors += 1
    fat_at = len(sectors)
    fat += [FAT] * fat_sectors
    table = struct.pack(f"<{len(fat)}I", *fat).ljust(fat_sectors * SECTOR, b"\xff")
    difat = [*range(fat_at, fat_at + fat_sectors), *[FREE] * (109 - fat_sectors)]
    head = struct.pack(
        "<8s16xHHHHH6xIIIIIIIII109I", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0x3E, 3, 0xFFFE, 9, 6, 0, fat_sectors,
        directory_at, 0, CUTOFF, mini_fat_at, mini_sectors, END, 0, *difat,
    )  # fmt: skip
    return head + b"".join(sectors) + table


def _directory(
    nodes: list[tuple[str, int, bytes]], streams: set[str], places: dict[str, int], starts: dict[int, int], mini: int
) -> bytes:
    leaves = {places[path] for path in streams}
    entries = b""
    for number, (name, parent, content) in enumerate(nodes):
        after = [one for one in range(number + 1, len(nodes)) if nodes[one][1] == parent]
        inside = [one for one in range(len(nodes)) if nodes[one][1] == number]
        kind = 5 if number == 0 else 2 if number in leaves else 1
        coded = name.encode("utf-16-le") + b"\0\0"
        entries += struct.pack(
            "<64sHBBIII16xI16xIQ", coded, len(coded), kind, 1, FREE, after[0] if after else FREE,
            inside[0] if inside else FREE, 0, starts.get(number, END), mini if number == 0 else len(content),
        )  # fmt: skip
    return entries
