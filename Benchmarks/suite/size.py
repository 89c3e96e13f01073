"""What a process holds, and what it does for one operation: numbers that a noisy machine does not change."""

import re
import subprocess
from pathlib import Path

from . import tools
from .tools import Failure

DESCRIBE = '{"method":"io.systemd.MachineInstance.Describe"}'
QUERY_STATUS = '{"execute":"query-status"}'
# What is counted, by the words of the table and of the thresholds: how the load is made, and how often the thing happens.
# A session's message is a command on its way to QEMU, or a reply on its way back.
OPERATIONS = {
    "Describe": lambda count: (("calls", f"--calls={count}", "varlink"), (DESCRIBE,), count),
    "session message": lambda count: (("calls", f"--calls={count}", "session"), (QUERY_STATUS,), 2 * count),
    "subscriber's event": lambda count: (("events", f"--events={count}", "--receivers=50", "subscribers"), (), 50 * (count + 1)),
    "session's event": lambda count: (("events", f"--events={count}", "--receivers=20", "sessions"), (), 20 * (count + 1)),
}


def memory(process):
    """Resident, proportional and private dirty memory, in KiB."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return {name: int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M)[1]) for name in ("Rss", "Pss", "Private_Dirty")}


def threads(process):
    return sum(1 for _ in Path(f"/proc/{process}/task").iterdir())


def descriptors(process):
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def binary_sizes(binary):
    """In KiB, as built and without symbols."""
    stripped = tools.RESULTS / "stripped"
    if subprocess.run(["strip", "-o", stripped, binary], capture_output=True).returncode != 0:
        raise Failure(f"{binary} cannot be stripped")
    sizes = binary.stat().st_size / 1024, stripped.stat().st_size / 1024
    stripped.unlink()
    return sizes


def memory_for_sessions(machine, fewer=10, more=100):
    """How many KiB of private memory each idle session takes, from the difference between few and many."""
    private = {}
    for count in (fewer, more):
        with tools.waiting("calls", "--calls=1", "--warm=1", f"--connections={count}", "session", machine.control, QUERY_STATUS) as go:
            private[count] = memory(machine.process)["Private_Dirty"]
            go()
    return (private[more] - private[fewer]) / (more - fewer)


def _loaded(machine, operation, count, look):
    """Has `look` observe the machine's daemon while the operation happens. Returns the result, and how often it happened."""
    (tool, *options), rest, times = OPERATIONS[operation](count)
    if tool == "calls":
        options = [f"--settled={machine.process}", *options]
    with tools.waiting(tool, *options, machine.control, *rest) as go:
        return look(go), times


# So many of each operation make an average.
COUNTS = {"Describe": 400, "session message": 400, "subscriber's event": 50, "session's event": 50}


def system_calls(machine, operation):
    """For one operation, by name."""
    counts, times = _loaded(machine, operation, COUNTS[operation], lambda go: tools.system_calls(machine.process, go))
    return {name: calls / times for name, calls in counts.items()}


def instructions(machine, operation, tries=3, addresses=None):
    """For one operation: the least of several tries, since a timer or a hash table that grows may come in between. Single
    steps are slow: some three seconds for one Describe."""
    totals = []
    for _ in range(tries):
        total, times = _loaded(machine, operation, 1, lambda go: tools.instructions(machine.process, go, addresses))
        totals.append(total / times)
    return min(totals)


def counting_allocations(launch):
    """The same launch, of a daemon that `allocations` can be asked of."""
    file = tools.RESULTS / f"{launch.program}.allocations"
    file.unlink(missing_ok=True)
    launch.environment |= {"LD_PRELOAD": str(tools.TOOLS / "allocations.so"), "BENCH_ALLOCATIONS": str(file), "BENCH_PROGRAM": launch.program}
    return launch


def allocations(machine, operation):
    """For one operation: how many, and of how many bytes."""

    def look(go):
        before = tools.allocations(machine.counts)
        go()
        return [after - was for after, was in zip(tools.allocations(machine.counts), before)]

    differences, times = _loaded(machine, operation, COUNTS[operation], look)
    return [difference / times for difference in differences]
