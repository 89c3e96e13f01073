"""Makes an empty disk image with one partition, of the type "root, x86-64": systemd-vmspawn takes no other."""

import struct
import sys
import uuid
import zlib

SECTOR = 512
SECTORS = 16 * 2048
ROOT = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")

name = "root".encode("utf-16-le")
partition = struct.pack("<16s16sQQQ72s", ROOT.bytes_le, uuid.UUID(int=1).bytes_le, 2048, SECTORS - 2049, 0, name)
partitions = partition.ljust(128 * 128, b"\0")


def header(own, other, table):
    """A GPT header, with the checksum of itself in the middle."""
    fields = (own, other, 34, SECTORS - 34, uuid.UUID(int=2).bytes_le, table, 128, 128, zlib.crc32(partitions))
    raw = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, *fields)
    return (raw[:16] + struct.pack("<I", zlib.crc32(raw)) + raw[20:]).ljust(SECTOR, b"\0")


protective = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, SECTORS - 1)
with open(sys.argv[1], "wb") as image:
    image.truncate(SECTORS * SECTOR)
    image.write(bytes(446) + protective + bytes(48) + b"\x55\xaa" + header(1, SECTORS - 1, 2) + partitions)
    image.seek((SECTORS - 33) * SECTOR)
    image.write(partitions + header(SECTORS - 1, 1, SECTORS - 33))
