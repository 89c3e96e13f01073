"""What is sampled each second, and where."""

import os
import re
from pathlib import Path

from .machine import number_of


def descriptors(process):
    return len(os.listdir(f"/proc/{process}/fd"))


def of_process(prefix, process):
    """From the kernel's own counts, which cost the process nothing. In bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return {
        f"{prefix}_rss": number_of(status, "VmRSS") * 1024,
        f"{prefix}_anonymous": number_of(status, "RssAnon") * 1024,
        f"{prefix}_threads": number_of(status, "Threads"),
        f"{prefix}_descriptors": descriptors(process),
    }


def heap(process):
    """How much of the heap is in memory, in bytes."""
    in_heap = False
    with open(f"/proc/{process}/smaps") as maps:
        for line in maps:
            if line.endswith("[heap]\n"):
                in_heap = True
            elif in_heap and line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    return 0


async def in_qemu(observer):
    """How many of each kind of thing QEMU has, by typed calls: they take no monitor of their own, and open and close nothing."""
    chardevs = await observer.execute("query-chardev")
    objects = await observer.execute("qom-list", {"path": "/objects"})
    sets = await observer.execute("query-fdsets")
    nodes = await observer.execute("query-named-block-nodes", {"flat": True})
    devices = await observer.execute("qom-list", {"path": "/machine/peripheral"})
    return {
        "chardevs": len(chardevs),
        "objects": len(objects),
        "monitors": sum("monitor" in described["type"] for described in objects),
        "fdsets": len(sets),
        "fdset_descriptors": sum(len(described["fds"]) for described in sets),
        "nodes": len(nodes),
        "devices": len(devices),
    }


async def translated(observer):
    """How much of QEMU's memory is code that it has translated for its guest, in bytes. It gives none of that back before it has a GiB."""
    text = await observer.execute("human-monitor-command", {"command-line": "info jit"})
    return int(re.search(r"gen code size +(\d+)/", text)[1])


async def sample(machine, observer, code):
    """All but the time and the latencies.

    `code` is what translated() said last: to ask takes QEMU longer than all else."""
    qemu = of_process("qemu", machine.qemu)
    return {
        **of_process("daemon", machine.process.pid),
        "daemon_heap": heap(machine.process.pid),
        **qemu,
        "qemu_code": code,
        "qemu_own": qemu["qemu_anonymous"] - code,
        **await in_qemu(observer),
        "sessions": len((await observer.done("io.qmpvarlink.Sessions.List"))["sessions"]),
    }


# What must be at the end what it was at the beginning.
LEFT = ["daemon_descriptors", "qemu_descriptors", "chardevs", "objects", "monitors", "fdsets", "fdset_descriptors", "nodes", "devices", "sessions"]


def left(found):
    return {name: found[name] for name in LEFT}
