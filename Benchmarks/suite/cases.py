"""The cases: what is measured of which system, and what the numbers should show."""

from dataclasses import dataclass

from . import machines, size, tools
from .size import DESCRIBE, QUERY_STATUS
from .tools import Failure

OURS, VMSPAWN, BARE = "ours", "vmspawn", "bare"
SYSTEMS = [OURS, VMSPAWN, BARE]


@dataclass(frozen=True)
class Metric:
    case: str
    label: str
    unit: str
    more_is_better: bool = False


# In the table's order.
METRICS = {
    "describe": Metric("describe", "Describe, one connection", "µs"),
    "describe-hop": Metric("describe", "Describe (bare: through a copying hop)", "µs"),
    "describe-fresh": Metric("describe", "Describe, new connection each", "µs"),
    "describe-rate-1": Metric("describe", "Describe, 1 connection", "/s", True),
    "describe-rate-8": Metric("describe", "Describe, 8 connections", "/s", True),
    "describe-rate-64": Metric("describe", "Describe, 64 connections", "/s", True),
    "acquire-greeting": Metric("acquire", "AcquireQMP to greeting", "µs"),
    "acquire-reply": Metric("acquire", "AcquireQMP to first reply", "µs"),
    "acquire-close": Metric("acquire", "half-close to gone", "µs"),
    "connect-greeting": Metric("acquire", "connect, AcquireQMP to greeting", "µs"),
    "sequential-greeting": Metric("acquire", "by hand, one by one, to greeting", "µs"),
    "sequential-close": Metric("acquire", "by hand, one by one, to gone", "µs"),
    "session-compact": Metric("session", "query-status", "µs"),
    "session-hop": Metric("session", "query-status (bare: through a copying hop)", "µs"),
    "session-spaced": Metric("session", "with spaces and CRLF", "µs"),
    "session-id": Metric("session", "with a 40-byte id", "µs"),
    "session-schema": Metric("session", "query-qmp-schema", "µs"),
    "typed": Metric("typed", "QueryStatus", "µs"),
    "execute": Metric("typed", "Execute query-status", "µs"),
    "typed-block": Metric("typed", "QueryBlock", "µs"),
    "execute-block": Metric("typed", "Execute query-block", "µs"),
    "event-1": Metric("events", "event to 1 subscriber", "µs"),
    "event-100": Metric("events", "event to last of 100 subscribers", "µs"),
    "event-1000": Metric("events", "event to last of 1000 subscribers", "µs"),
    "event-session-1": Metric("events", "event to 1 session", "µs"),
    "event-session-100": Metric("events", "event to last of 100 sessions", "µs"),
    "start-none-ready": Metric("start", "no devices: exec to READY", "ms"),
    "start-none": Metric("start", "no devices: exec to first reply", "ms"),
    "start-own": Metric("start", "our own devices: to first reply", "ms"),
    "start-ready": Metric("start", "vmspawn's devices: to READY", "ms"),
    "start-socket": Metric("start", "vmspawn's devices: to socket", "ms"),
    "start-greeting": Metric("start", "vmspawn's devices: to greeting", "ms"),
    "start": Metric("start", "vmspawn's devices: to first reply", "ms"),
    "memory-resident": Metric("size", "resident memory, idle", "KiB"),
    "memory-proportional": Metric("size", "proportional memory, idle", "KiB"),
    "memory-private": Metric("size", "private dirty memory, idle", "KiB"),
    "memory-private-later": Metric("size", "private dirty memory, after all loads", "KiB"),
    "memory-session": Metric("size", "private memory for each idle session", "KiB"),
    "threads": Metric("size", "threads", ""),
    "descriptors": Metric("size", "descriptors, idle", ""),
    "binary": Metric("size", "binary", "KiB"),
    "binary-stripped": Metric("size", "binary, stripped", "KiB"),
    **{f"syscalls/{name}": Metric("counts", f"system calls for a {name}", "") for name in size.OPERATIONS},
    **{f"allocations/{name}": Metric("counts", f"allocations for a {name}", "") for name in size.OPERATIONS},
    **{f"allocated/{name}": Metric("counts", f"bytes allocated for a {name}", "B") for name in size.OPERATIONS},
    "instructions/Describe": Metric("counts", "instructions for a Describe", ""),
    "instructions/session message": Metric("counts", "instructions for a session message", ""),
}

TITLES = {
    "describe": "Typed calls (bare: query-status, so many in flight on one socket)",
    "acquire": "Sessions begin and end (bare: a monitor added by hand, pipelined)",
    "session": "A command's round trip in a session (bare: a socket of the same QEMU)",
    "typed": "QMP's commands as methods (bare: QMP on a socket of the same QEMU)",
    "events": "One event to many (bare: monitors added by hand)",
    "start": "From exec on (bare: QEMU alone, its first query-status)",
    "size": "Size of the daemon",
    "counts": "Work of the daemon for one operation",
}
CASES = list(TITLES)


class Bench:
    """The machines that run, and what was measured of them."""

    def __init__(self, launches, measurements, quick, fail):
        self.launches, self.measurements, self.quick, self.fail = launches, measurements, quick, fail
        self.machines = {}
        self.round = 0

    def start(self):
        for system in (OURS, VMSPAWN):
            self.attempt(f"start {system}", lambda: self._start(system))

    def _start(self, system):
        name = {OURS: "a", VMSPAWN: "b"}[system]
        qmp = self.launches.folder / f"{name}.qmp"
        extra = ["-qmp", f"unix:{qmp},server=on,wait=off"]
        launch = self.launches.ours(name, machines.VMSPAWN_DEVICES, extra=extra) if system == OURS else self.launches.vmspawn(name, extra=extra)
        self.machines[system] = machines.Machine(launch, tools.RESULTS / f"{system}.log", qmp)
        self.machines[system].hold_socket()

    def close(self):
        for machine in self.machines.values():
            machine.close()

    def attempt(self, what, measure):
        """A measurement that fails fails the run, but not the measurements after it."""
        try:
            measure()
        except Failure as failure:
            self.fail(f"{what}: {failure}")

    def machine(self, system):
        if system not in self.machines:
            raise Failure(f"{system} does not run")
        return self.machines[system]

    def add(self, metric, system, samples):
        self.measurements.add(self.round, metric, system, samples)

    def each(self, what, measures):
        """Runs the measurement of each system, in an order that turns with the rounds."""
        systems = list(measures)
        turn = self.round % len(systems)
        for system in systems[turn:] + systems[:turn]:
            self.attempt(f"{what}, {system}", measures[system])

    def bare(self, measure, beside=None):
        """Measures on the bare socket of our QEMU, whose idle client makes room meanwhile.

        QEMU must have as many monitors as when ours is measured: `beside` says what else there is then, "spare" for the
        monitor that the daemon keeps for a while after a session, "session" for an idle session, and that one."""
        machine = self.machine(OURS)
        if beside == "spare":
            tools.run("sessions", "--count=0", "acquire", machine.control)
        machine.release_socket()
        try:
            if beside == "session":
                with tools.waiting("calls", "session", machine.control, QUERY_STATUS):
                    measure(machine.qmp)
            else:
                measure(machine.qmp)
        finally:
            machine.hold_socket()


def describe(bench):
    count = 100 if bench.quick else 300
    seconds = 0.3 if bench.quick else 1

    def varlink(system):
        def measure():
            control = bench.machine(system).control
            samples, _ = tools.calls(f"--calls={count}", "varlink", control, DESCRIBE)
            bench.add("describe", system, samples)
            if system == OURS:
                bench.add("describe-hop", system, samples)
            samples, _ = tools.calls(f"--calls={count}", "--fresh", "varlink", control, DESCRIBE)
            bench.add("describe-fresh", system, samples)
            for connections in (1, 8, 64):
                _, rate = tools.calls(f"--seconds={seconds}", f"--connections={connections}", "varlink", control, DESCRIBE)
                bench.add(f"describe-rate-{connections}", system, rate)

        return measure

    def raw(socket):
        samples, _ = tools.calls(f"--calls={count}", "qmp", socket, QUERY_STATUS)
        bench.add("describe", BARE, samples)
        through = bench.launches.folder / "hop"
        with tools.hop(through, socket):
            samples, _ = tools.calls(f"--calls={count}", "qmp", through, QUERY_STATUS)
            bench.add("describe-hop", BARE, samples)
        for depth in (1, 8, 64):
            _, rate = tools.calls(f"--seconds={seconds}", f"--depth={depth}", "qmp", socket, QUERY_STATUS)
            bench.add(f"describe-rate-{depth}", BARE, rate)

    bench.each("describe", {OURS: varlink(OURS), VMSPAWN: varlink(VMSPAWN), BARE: lambda: bench.bare(raw)})


def acquire(bench):
    count = f"--count={10 if bench.quick else 30}"

    def add(names, system, lines):
        for name, column in zip(names, tools.columns(lines)):
            if name:
                bench.add(name, system, column)

    all_three = ["acquire-greeting", "acquire-reply", "acquire-close"]

    def ours():
        control = bench.machine(OURS).control
        add(all_three, OURS, tools.run("sessions", count, "acquire", control))
        add(["connect-greeting"], OURS, tools.run("sessions", count, "connect", control))

    def bare(socket):
        add(all_three, BARE, tools.run("sessions", count, "pipelined", socket))
        add(["sequential-greeting", None, "sequential-close"], BARE, tools.run("sessions", count, "bare", socket))

    bench.each("acquire", {OURS: ours, BARE: lambda: bench.bare(bare, beside="spare")})


def session(bench):
    forms = {
        "session-compact": (QUERY_STATUS, 200),
        "session-spaced": ('{ "execute": "query-status", "id": 1 }\r\n', 200),
        "session-id": (f'{{"execute":"query-status","id":"{"0123456789" * 4}"}}', 200),
        "session-schema": ('{"execute":"query-qmp-schema"}', 20),
    }
    for metric, (request, count) in forms.items():
        count = f"--calls={count // 2 if bench.quick else count}"
        measures = {
            OURS: lambda: bench.add(metric, OURS, tools.calls(count, "session", bench.machine(OURS).control, request)[0]),
            BARE: lambda: bench.bare(
                lambda socket: bench.add(metric, BARE, tools.calls(count, "qmp", socket, request)[0]), beside="session"),
        }
        bench.each(metric, measures)

    def through_hop(socket):
        through = bench.launches.folder / "hop"
        with tools.hop(through, socket):
            bench.add("session-hop", BARE, tools.calls(count, "qmp", through, QUERY_STATUS)[0])

    count = f"--calls={100 if bench.quick else 200}"
    bench.each("session-hop", {
        OURS: lambda: bench.add("session-hop", OURS, tools.calls(count, "session", bench.machine(OURS).control, QUERY_STATUS)[0]),
        BARE: lambda: bench.bare(through_hop, beside="session"),
    })


def typed(bench):
    """One query in its three forms, each with its own reply: a typed method, Execute, and QMP itself."""
    count = f"--calls={100 if bench.quick else 300}"
    calls = {
        "typed": '{"method":"io.qmpvarlink.QMP.QueryStatus"}',
        "execute": '{"method":"io.qmpvarlink.QMP.Execute","parameters":{"command":"query-status"}}',
        "typed-block": '{"method":"io.qmpvarlink.QMP.QueryBlock"}',
        "execute-block": '{"method":"io.qmpvarlink.QMP.Execute","parameters":{"command":"query-block"}}',
    }
    for metric, call in calls.items():
        command = '{"execute":"query-block"}' if metric.endswith("block") else QUERY_STATUS
        bench.each(metric, {
            OURS: lambda: bench.add(metric, OURS, tools.calls(count, "varlink", bench.machine(OURS).control, call)[0]),
            BARE: lambda: bench.bare(lambda socket: bench.add(metric, BARE, tools.calls(count, "qmp", socket, command)[0])),
        })


def events(bench):
    def receive(kind, receivers, where):
        count = (20 if receivers == 1 else 10 if receivers < 1000 else 4) // (2 if bench.quick else 1)
        _, last = tools.columns(tools.run("events", f"--receivers={receivers}", f"--events={count}", kind, where))
        return last

    for receivers in (1, 100, 1000):
        metric = f"event-{receivers}"
        bench.each(metric, {
            system: lambda system=system: bench.add(
                metric, system, receive("subscribers", receivers, bench.machine(system).control))
            for system in (OURS, VMSPAWN)
        })
    for receivers in (1, 100):
        metric = f"event-session-{receivers}"
        bench.each(metric, {
            OURS: lambda: bench.add(metric, OURS, receive("sessions", receivers, bench.machine(OURS).control)),
            BARE: lambda: bench.bare(
                lambda socket: bench.add(metric, BARE, receive("monitors", receivers, socket)), beside="spare"),
        })


def start(bench):
    launches = bench.launches

    def started(system, launch, **metrics):
        """Starts it a few times; of what it says, `metrics` names what is wanted, and as what."""
        times = [machines.time_start(launch) for _ in range(1 if bench.quick else 3)]
        for what, metric in metrics.items():
            bench.add(metric, system, [time[what] for time in times])

    def bare(devices, **metrics):
        started(BARE, launches.qemu(devices), **metrics)

    bench.each("start without devices", {
        OURS: lambda: started(OURS, launches.without_devices("sn"), ready="start-none-ready", reply="start-none"),
        BARE: lambda: bare(["-machine", "none"], reply="start-none"),
    })
    bench.each("start with our devices", {
        OURS: lambda: started(OURS, launches.ours("so"), reply="start-own"),
        BARE: lambda: bare(["-machine", "q35", "-cpu", "max"], reply="start-own"),
    })
    bench.each("start with vmspawn's devices", {
        OURS: lambda: started(
            OURS, launches.ours("ss", machines.VMSPAWN_DEVICES), ready="start-ready", reply="start", socket="start-socket"),
        VMSPAWN: lambda: started(VMSPAWN, launches.vmspawn("sv"), reply="start", socket="start-socket"),
        BARE: lambda: bare(machines.VMSPAWN_DEVICES, greeting="start-greeting", reply="start"),
    })


def size_before(bench):
    """What the daemons hold before they have had any other load."""
    for system in (OURS, VMSPAWN):

        def measure():
            process = bench.machine(system).process
            held = size.memory(process)
            bench.add("memory-resident", system, held["Rss"])
            bench.add("memory-proportional", system, held["Pss"])
            bench.add("memory-private", system, held["Private_Dirty"])
            bench.add("threads", system, size.threads(process))
            bench.add("descriptors", system, size.descriptors(process))

        bench.attempt(f"size, {system}", measure)

    def binaries():
        for name, kibibytes in zip(("binary", "binary-stripped"), size.binary_sizes(machines.DAEMON)):
            bench.add(name, OURS, kibibytes)

    bench.attempt("size of the binary", binaries)
    bench.attempt("memory for a session", lambda: bench.add("memory-session", OURS, size.memory_for_sessions(bench.machine(OURS))))


def size_after(bench):
    for system in (OURS, VMSPAWN):
        bench.attempt(
            f"memory, {system}",
            lambda: bench.add("memory-private-later", system, size.memory(bench.machine(system).process)["Private_Dirty"]))


def counts(bench):
    """What each daemon does for one operation: on machines of their own, since these are measured under tracers."""
    launches = bench.launches

    def on_machine(launch, system, measure):
        machine = machines.Machine(launch, tools.RESULTS / f"{system}-counts.log")
        try:
            measure(machine)
        finally:
            machine.close()

    for system in (OURS, VMSPAWN):
        operations = [name for name in size.OPERATIONS if system == OURS or "session" not in name]

        def work(machine):
            for name in operations:
                bench.add(f"syscalls/{name}", system, sum(size.system_calls(machine, name).values()))
                if f"instructions/{name}" in METRICS:
                    bench.add(f"instructions/{name}", system, size.instructions(machine, name))

        def memory(machine):
            for name in operations:
                number, volume = size.allocations(machine, name)
                bench.add(f"allocations/{name}", system, number)
                bench.add(f"allocated/{name}", system, volume)

        launch = launches.for_steps("cs") if system == OURS else launches.vmspawn("cs")
        bench.attempt(f"system calls and instructions, {system}", lambda: on_machine(launch, system, work))
        launch = launches.without_devices("ca") if system == OURS else launches.vmspawn("ca")
        bench.attempt(f"allocations, {system}", lambda: on_machine(size.counting_allocations(launch), system, memory))


# What is measured once, before the rounds; in each round; and once, after them.
BEFORE = {"size": size_before}
ROUNDS = {"describe": describe, "acquire": acquire, "session": session, "typed": typed, "events": events, "start": start}
AFTER = {"size": size_after, "counts": counts}


@dataclass(frozen=True)
class Target:
    """What the numbers should show. `look` returns what they do show, as text, and whether that is enough."""

    text: str
    look: object


def _at_most(limit, value, unit=""):
    return lambda found: (f"{value(found):.2f}{unit}", value(found) <= limit)


def _at_least(limit, value):
    return lambda found: (f"{value(found):.2f}", value(found) >= limit)


def _overhead(found):
    ratio, difference = found.ratio("describe", OURS, BARE), found.difference("describe", OURS, BARE)
    return f"{ratio:.2f}, {difference:+.0f} µs", ratio <= 1.2 or difference <= 60


def _below_one(found):
    ratio = found.ratio("session-spaced", OURS, BARE)
    return f"{ratio:.2f}", ratio < 1


TARGETS = [
    Target("Describe on one connection: ≤ 0.8 × vmspawn's", _at_most(0.8, lambda m: m.ratio("describe", OURS, VMSPAWN))),
    Target("Describe, 64 connections: ≥ 5 × vmspawn's rate", _at_least(5, lambda m: m.ratio("describe-rate-64", OURS, VMSPAWN))),
    Target("Describe over raw query-status: ≤ 1.2 ×, or ≤ 60 µs", _overhead),
    Target("AcquireQMP to greeting: ≤ 1.1 × pipelined by hand", _at_most(1.1, lambda m: m.ratio("acquire-greeting", OURS, BARE))),
    Target("session round trip, compact: ≤ 1.1 × direct", _at_most(1.1, lambda m: m.ratio("session-compact", OURS, BARE))),
    Target("session round trip, spaces and CRLF: < 1.0 × direct", _below_one),
    Target("exec to first Describe: ≤ 0.6 × vmspawn's, same guest", _at_most(0.6, lambda m: m.ratio("start", OURS, VMSPAWN))),
    Target("private memory, idle: ≤ vmspawn's", _at_most(1, lambda m: m.ratio("memory-private", OURS, VMSPAWN))),
    Target("one thread", _at_most(1, lambda m: m.median("threads", OURS))),
    Target("private memory for each idle session: ≤ 8 KiB", _at_most(8, lambda m: m.median("memory-session", OURS), " KiB")),
]
