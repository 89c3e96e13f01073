"""Whose time an operation takes: how long the client, the daemon and QEMU have a processor for it, and wait for one."""

import time
from contextlib import contextmanager
from pathlib import Path

from . import tools
from .size import DESCRIBE, QUERY_STATUS

SPACED = '{ "execute": "query-status", "id": 1 }\r\n'
ROUNDS = 5


def _processor_time(process):
    """The seconds that all threads of a process have had a processor, and have waited for one."""
    ran = waited = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        try:
            fields = (task / "schedstat").read_text().split()
        except OSError:
            continue
        ran += int(fields[0])
        waited += int(fields[1])
    return ran / 1e9, waited / 1e9


class Share:
    """The microseconds of one operation: from end to end, on a processor for each process, and in all of them from being woken to
    running. The parts are more than the whole where they overlap: QEMU reads in one thread and executes in another."""

    def __init__(self, elapsed, processes, waited):
        self.elapsed, self.processes, self.waited = elapsed, processes, waited


def _measure(tool, options, socket, rest, count, processes):
    with tools.waiting(tool, *options, socket, *rest) as go:
        processes = {"client": go.process} | processes
        before = {name: _processor_time(process) for name, process in processes.items()}
        start = time.monotonic()
        go()
        elapsed = time.monotonic() - start
        after = {name: _processor_time(process) for name, process in processes.items()}
    each = 1e6 / count
    return Share(
        elapsed * each, {name: (after[name][0] - before[name][0]) * each for name in processes},
        sum(after[name][1] - before[name][1] for name in processes) * each)


@contextmanager
def _on_the_socket(machine, beside_session):
    """The bare socket of our QEMU, which has as many monitors as when a session is measured."""
    machine.release_socket()
    try:
        if beside_session:
            with tools.waiting("calls", "session", machine.control, QUERY_STATUS):
                yield machine.qmp
        else:
            yield machine.qmp
    finally:
        machine.hold_socket()


def measure(machine, folder):
    """Names of ways to have something done, each with the Share that is the median by time of some rounds, in which they take turns.

    The machine has a QMP socket besides, on which an idle client is."""
    qemu = {"QEMU": machine.qemu()}
    both = {"daemon": machine.process} | qemu
    hop = folder / "hop"
    calls, sessions = 400, 60

    def call(protocol, request, socket=machine.control, processes=both):
        return _measure("calls", [f"--calls={calls}", protocol], socket, [request], calls, processes)

    def directly(request):
        with _on_the_socket(machine, beside_session=True) as socket:
            return call("qmp", request, socket, qemu)

    def through_hop(request):
        with _on_the_socket(machine, beside_session=True) as socket, tools.hop(hop, socket) as process:
            return call("qmp", request, hop, {"hop": process} | qemu)

    def by_hand():
        with _on_the_socket(machine, beside_session=False) as socket:
            return _measure("sessions", [f"--count={sessions}", "pipelined"], socket, [], sessions, qemu)

    ways = {
        "Describe": lambda: call("varlink", DESCRIBE),
        "query-status in a session": lambda: call("session", QUERY_STATUS),
        "query-status on a socket of QEMU's": lambda: directly(QUERY_STATUS),
        "query-status through a copying hop": lambda: through_hop(QUERY_STATUS),
        "with spaces and CRLF in a session": lambda: call("session", SPACED),
        "with spaces and CRLF on a socket": lambda: directly(SPACED),
        "with spaces and CRLF through a hop": lambda: through_hop(SPACED),
        "a session, from call to end": lambda: _measure("sessions", [f"--count={sessions}", "acquire"], machine.control, [], sessions, both),
        "a monitor by hand, from call to end": by_hand,
    }
    measured = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            measured[name].append(way())
    return {name: sorted(shares, key=lambda share: share.elapsed)[ROUNDS // 2] for name, shares in measured.items()}
