"""Who calls: each kind of caller takes turns of its own, with random numbers of its own."""

import asyncio
import os
import random
import select
import socket

from .events import Log
from .wire import PATIENCE, Connection, Ended, Finding, Session, Varlink, call_text

MACHINE = "io.systemd.MachineInstance."
MONITORS = "io.qmpvarlink.Monitors."
ACQUIRE = "io.systemd.QemuMachineInstance.AcquireQMP"


def returns(kind):
    return lambda reply: isinstance(reply.get("return"), kind)


def fails(error_class, text=""):
    return lambda reply: reply.get("error", {}).get("class") == error_class and text in reply["error"]["desc"]


# Commands that change nothing, and what they give.
QUESTIONS = [
    ("query-status", None, lambda reply: reply["return"]["status"] in ("running", "paused")),
    ("query-name", None, lambda reply: reply == {"return": {"name": "soak"}}),
    ("query-version", None, lambda reply: reply["return"]["qemu"]["major"] >= 11),
    ("query-chardev", None, lambda reply: any(described["label"] == "serial" for described in reply["return"])),
    ("qom-list", {"path": "/machine"}, returns(list)),
    ("qom-list", {"path": "/nowhere"}, fails("DeviceNotFound")),
    # A session that may only ask is told that it may not.
    ("query-nothing-there-is", None, lambda reply: reply["error"]["class"] == "CommandNotFound" or "not permitted" in reply["error"]["desc"]),
    ("query-cpus-fast", None, lambda reply: len(reply["return"]) == 1),
]
SCHEMA = ("query-qmp-schema", None, lambda reply: len(reply["return"]) > 500)
PAUSE = [("stop", None, lambda reply: reply == {"return": {}}), ("cont", None, lambda reply: reply == {"return": {}})]
REFUSED = [("stop", None, fails("GenericError", "not permitted")), ("qom-get", {"path": "/", "property": "type"}, fails("GenericError", "not permitted"))]
# Sent and answered out of band: there is no migration to pause.
URGENT = ("MIGRATE-PAUSE", None, lambda reply: "error" in reply)
# Each makes an error, or several, after which QEMU goes on with what follows.
MALFORMED = [b"{]", b"nonsense ", b'{"execute":true}', b"[1,2]", b"null ", b'{"execute": %p}', b"{\x01}", b'{ "a" : }', b"\xff"]


class Soak:
    """What all callers share."""

    def __init__(self, machine, seed, folder):
        self.machine, self.seed, self.folder = machine, seed, folder
        self.path = machine.path
        self.over = asyncio.Event()
        self.findings = []
        self.turns = {}
        self.events = Log()

    def find(self, text):
        self.findings.append(text)
        self.over.set()

    async def rest(self, seconds):
        """Waits, but not longer than the soak goes on."""
        try:
            await asyncio.wait_for(self.over.wait(), seconds)
        except TimeoutError:
            pass

    async def witness(self, ready):
        """Has every event of the machine: out of band, so it is never parked."""
        with await Session.acquire(self.path) as session:
            await session.negotiate(out_of_band=True)
            session.events = self.events
            self.asked = session
            ready.set_result(None)
            while True:
                await session.one()

    async def now(self):
        """How many events have been until now."""
        here = asyncio.get_running_loop().create_future()
        await self.asked.send_commands([("query-name", None, lambda reply: here.done() or here.set_result(None) or True)])
        async with asyncio.timeout(PATIENCE):
            await here
        return len(self.events)


class Caller:
    """Takes turns until it is over. A turn ends what it began."""

    # Seconds between two turns, on average.
    pause = 0.2

    def __init__(self, soak, number):
        self.soak, self.number = soak, number
        self.name = type(self).__name__
        self.random = random.Random(f"{soak.seed}/{self.name}/{number}")

    async def run(self):
        while not self.soak.over.is_set():
            await self.guarded()
            await self.soak.rest(self.random.expovariate(1 / self.pause))

    async def guarded(self):
        try:
            await self.turn()
            self.soak.turns[self.name] = self.soak.turns.get(self.name, 0) + 1
        except (Finding, Ended, OSError, TimeoutError, KeyError, ValueError) as error:
            # Without the daemon nothing else is worth telling; see Machine.look.
            self.soak.find(f"{self.name} {self.number}: {type(error).__name__} {error}")

    async def turn(self):
        raise NotImplementedError

    def questions(self, most=8):
        return self.random.choices(QUESTIONS, k=self.random.randint(1, most))

    async def acquire(self, **how):
        return await Session.acquire(self.soak.path, **how)

    async def follow(self, session):
        """From now on the session has every event."""
        session.floor = await self.soak.now()

    async def caught_up(self, session):
        """Asks something; by its reply the session has all events that were before."""
        until = len(self.soak.events)
        await session.send_commands(self.questions(3), pretty=self.random.random() < 0.3)
        await session.replies()
        if session.floor is not None:
            self.soak.events.has(session.events, session.floor, until)

    def remember(self, events, names=None):
        self.soak.events.check(events, names, self.name)


class Calls(Caller):
    """Typed calls, one after the other on one connection, or several at once."""

    pause = 0.3

    async def turn(self):
        with await Varlink.to(self.soak.path) as connection:
            for _ in range(self.random.randint(1, 6)):
                choice = self.random.randrange(6)
                if choice == 0:
                    if set(await connection.done(MACHINE + "Describe")) != {"running", "status"}:
                        raise Finding("Describe is not itself")
                elif choice == 1:
                    if (await connection.done("io.qmpvarlink.QMP.QueryStatus"))["status"] not in ("running", "paused"):
                        raise Finding("QueryStatus is not itself")
                elif choice == 2:
                    if not any(monitor["control"] for monitor in (await connection.done(MONITORS + "List"))["monitors"]):
                        raise Finding("there is no control monitor")
                elif choice == 3:
                    await connection.done("io.qmpvarlink.Sessions.List")
                elif choice == 4:
                    reply = await connection.call("io.qmpvarlink.QMP.BlockdevDel", {"nodeName": f"nowhere-{self.number}"})
                    if reply.get("error") != "io.qmpvarlink.QMP.QMPError" or f"nowhere-{self.number}" not in reply["parameters"]["desc"]:
                        raise Finding(f"an error is not itself: {reply}")
                else:
                    # All at once: each has an answer that is its own.
                    ids = [self.random.randrange(1 << 30) for _ in range(self.random.randint(2, 12))]
                    await connection.write(b"".join(call_text("io.qmpvarlink.QMP.BlockdevDel", {"nodeName": f"n{number}"}) for number in ids))
                    for number in ids:
                        if f"n{number}'" not in (await connection.receive())["parameters"]["desc"].replace('"', "'"):
                            raise Finding("replies to calls are out of order")


class Pauses(Caller):
    """Stops and starts the guest, by typed calls."""

    pause = 1.5

    async def turn(self):
        with await Varlink.to(self.soak.path) as connection:
            await connection.done(MACHINE + "Pause")
            await connection.done(MACHINE + "Resume")


class Speaks(Caller):
    """Sessions of every kind that say much at once."""

    pause = 0.8

    async def turn(self):
        access = self.random.choice(["full", "full", "query"])
        mode = self.random.choice([None, "own", "shared"])
        with await self.acquire(access=access, mode=mode) as session:
            out_of_band = access == "full" and mode != "shared" and self.random.random() < 0.3
            await session.negotiate(out_of_band)
            await self.follow(session)
            for _ in range(self.random.randint(1, 5)):
                commands = self.questions(16)
                if self.random.random() < 0.3:
                    commands += PAUSE if access == "full" else REFUSED
                if self.random.random() < 0.1:
                    commands.append(SCHEMA)
                if out_of_band:
                    commands.insert(0, URGENT)
                await session.send_commands(commands, pretty=self.random.random() < 0.3)
                if self.random.random() < 0.2:
                    # Half-closed behind what is still to be answered.
                    break
                await session.replies()
            else:
                await self.caught_up(session)
                await session.finish()
                return self.remember(session.events)
            session.half_close()
            await session.replies()
            await session.finish()
            self.remember(session.events)


class FallsSilent(Caller):
    """Sessions that are parked, and wake."""

    pause = 0.2

    async def turn(self):
        access = self.random.choice(["full", "query"])
        with await self.acquire(access=access) as session:
            await session.negotiate()
            await self.follow(session)
            for _ in range(self.random.randint(1, 4)):
                await self.caught_up(session)
                # Shorter and longer than it takes to be parked.
                await self.soak.rest(self.random.uniform(0.2, 4))
            await self.caught_up(session)
            if self.random.random() < 0.7:
                await session.finish()
            self.remember(session.events)


class Vanishes(Caller):
    """Connections that end at any step of their lives."""

    pause = 0.3

    async def turn(self):
        request = call_text(ACQUIRE, {"mode": self.random.choice(["own", "shared"])}, upgrade=True)
        commands = [b'{"execute":"qmp_capabilities"}'] if self.random.random() < 0.8 else []
        commands += self.random.choices(
            [b'{"execute":"query-version"}', b'{"execute":"query-qmp-schema"}', b'{"execute":"stop"}{"execute":"cont"}', *MALFORMED],
            k=self.random.randint(0, 6))
        load = b"".join(commands) + self.random.choice([b"", b'{"execute":"query-ver', b'"abc', b'{"a":[', b"\xff"])
        with await Connection.to(self.soak.path) as connection:
            try:
                await self.live(connection, request, load)
            except Ended:
                # It is the daemon's to end what is malformed.
                pass
            except Finding as finding:
                raise Finding(f"{finding}; it had sent {request!r} and {load!r}") from None

    async def live(self, connection, request, load):
        step = self.random.randrange(8)
        if step == 0:
            return
        if step == 1:
            return await connection.write(request[: self.random.randrange(len(request))])
        if step == 2:
            # Before the reply, with all of its commands on the way.
            return await connection.write(request + load)
        await connection.write(request)
        if step == 3:
            return
        if b'"error"' in await connection.until(b"\0"):
            raise Finding("no session to vanish from")
        if step == 4:
            # Before the greeting, as far as that can be.
            return
        await connection.write(load)
        if step == 5:
            return
        if step == 6:
            # The rest of the greeting is unread then, so the other side has ECONNRESET; unless it came along with the reply.
            return None if connection.buffer else await connection.read(1)
        connection.half_close()
        while not connection.has_ended:
            await connection.read()


class AddsMonitors(Caller):
    """Monitors at a path, on a socket that is passed and on a chardev."""

    pause = 0.8

    async def turn(self):
        name = f"m{self.number}-{self.random.randrange(1 << 20)}"
        await self.random.choice([self.at_path, self.on_socket, self.on_chardev])(name)

    async def talk(self, session):
        await session.negotiate()
        await session.send_commands(self.questions(), pretty=self.random.random() < 0.3)
        if self.random.random() < 0.3:
            return
        await session.replies()
        if self.random.random() < 0.5:
            await session.finish()
        self.remember(session.events)

    async def at_path(self, name):
        path = str(self.soak.folder / name)
        with await Varlink.to(self.soak.path) as connection:
            await connection.done(MONITORS + "Add", {"id": name, "listen": path, "pretty": self.random.random() < 0.5})
            for _ in range(self.random.randrange(3)):
                with await Session.to(path) as session:
                    await self.talk(session)
            await connection.done(MONITORS + "Remove", {"id": name})
        if os.path.exists(path):
            raise Finding(f"{path} is left of a monitor")

    async def on_socket(self, name):
        ours, theirs = socket.socketpair()
        with Session(ours) as session:
            with theirs, await Varlink.to(self.soak.path) as connection:
                await connection.done(MONITORS + "Add", {"id": name, "fileDescriptorIndex": 0}, descriptors=[theirs.fileno()])
            await self.talk(session)
        # It goes with its client, so it may have gone.
        with await Varlink.to(self.soak.path) as connection:
            reply = await connection.call(MONITORS + "Remove", {"id": name})
            if "error" in reply and reply["error"] != MONITORS + "NoSuchMonitor":
                raise Finding(f"Remove: {reply}")

    async def on_chardev(self, name):
        with await Varlink.to(self.soak.path) as connection:
            await connection.execute("chardev-add", {"id": f"c{name}", "backend": {"type": "null", "data": {}}})
            await connection.done(MONITORS + "Add", {"id": name, "chardev": f"c{name}"})
            await connection.done(MONITORS + "Remove", {"id": name})
            await connection.execute("chardev-remove", {"id": f"c{name}"})


class AddsStorage(Caller):
    """Drives that come by a descriptor, are replaced, and go when the guest lets go of them."""

    pause = 3.0
    CONFIGS = ["virtio-blk", "virtio-scsi", "scsi-cd"]
    # QEMU 11.1.2 keeps some 10 KiB for good of each NVMe drive that is unplugged, by hand as well as by us. If they are few, it can be
    # seen what else is kept.
    NVME_SHARE = 1 / 20

    async def turn(self):
        config = "nvme" if self.random.random() < self.NVME_SHARE else self.CONFIGS[self.number % len(self.CONFIGS)]
        name = f"drive-{self.number}"
        with await Varlink.to(self.soak.path) as connection:
            await self.pass_image(connection, "AddStorage", {"name": name, "config": config}, 1 << 20)
            if self.random.random() < 0.4:
                await self.pass_image(connection, "ReplaceStorage", {"name": name}, 2 << 20)
            await self.soak.rest(self.random.uniform(0, 1))
            async with asyncio.timeout(PATIENCE):
                while True:
                    reply = await connection.call(MACHINE + "RemoveStorage", {"name": name})
                    error = reply.get("error")
                    if error == MACHINE + "NoSuchStorage":
                        break
                    # While the guest has not let go of it, it is busy.
                    if error is not None and reply.get("parameters", {}).get("errnoName") != "EBUSY":
                        raise Finding(f"RemoveStorage: {reply}")
                    await asyncio.sleep(0.1)

    async def pass_image(self, connection, method, parameters, size):
        path = str(self.soak.folder / f"image-{self.number}-{method}")
        image = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(image, size)
            await connection.done(MACHINE + method, {"fileDescriptorIndex": 0, **parameters}, descriptors=[image])
        finally:
            os.close(image)


class PassesDescriptors(Caller):
    """Sessions that hand QEMU descriptors, and take them back or leave that to the daemon."""

    pause = 0.6

    async def turn(self):
        with await self.acquire(mode=self.random.choice(["own", "shared"])) as session:
            await session.negotiate()
            end, other = os.pipe()
            try:
                await session.send_commands([("add-fd", None, lambda reply: "fdset-id" in reply["return"])], descriptors=[end])
                number = (await session.replies())["return"]["fdset-id"]
            finally:
                os.close(end)
                os.close(other)
            await session.send_commands([("remove-fd", {"fdset-id": number}, lambda reply: reply == {"return": {}})])
            await session.replies()
        with await self.acquire(mode="own") as session:
            await session.negotiate()
            end, other = os.pipe()
            try:
                await session.send_commands([("getfd", {"fdname": "passed"}, lambda reply: reply == {"return": {}})], descriptors=[end])
                await session.replies()
            finally:
                os.close(end)
                os.close(other)
            # QEMU keeps it beyond its monitor; the daemon has it closed.
            if self.random.random() < 0.5:
                await session.finish()


class Subscribes(Caller):
    """Subscribers that come and go, some of them with a filter, and some that read nothing for a while."""

    pause = 0.3
    FILTERS = [None, None, ["STOP", "RESUME"], ["RESUME"]]

    async def turn(self):
        names = self.random.choice(self.FILTERS)
        events = []
        with await Varlink.to(self.soak.path) as connection:
            await connection.send(MACHINE + "SubscribeEvents", {"filter": names} if names else {}, more=True)
            if (await connection.receive())["parameters"]["event"] != "READY":
                raise Finding("an event came before READY")
            floor = await self.soak.now()
            await self.soak.rest(self.random.uniform(0, 5) if self.random.random() < 0.5 else 0)
            until = min(len(self.soak.events), floor + self.random.randrange(12))
            while not self.soak.events.covers(events, names, floor, until):
                events.append(self.key(await connection.receive()))
        self.remember(events, names)

    def key(self, message):
        if "error" in message or message["parameters"]["event"] == "OVERFLOW":
            raise Finding(f"a subscription failed: {message}")
        return Log.key(message["parameters"])


class ReadsSlowly(Caller):
    """A client that asks for much and reads it in small pieces."""

    pause = 2.0

    async def turn(self):
        with await self.acquire(mode=self.random.choice(["own", "shared"])) as session:
            await session.negotiate()
            await session.send_commands([SCHEMA] * 3 + self.questions())
            for _ in range(self.random.randrange(40)):
                await session.read(self.random.randrange(1, 20_000))
                await self.soak.rest(0.02)
            await session.replies()
            await session.finish()
            self.remember(session.events)


class NeverReads(Caller):
    """A client that leaves everything unread is ended, and takes nobody with it."""

    pause = 15.0

    async def turn(self):
        with await self.acquire(mode=self.random.choice(["own", "shared"])) as session:
            await session.negotiate()
            await session.send_commands([SCHEMA] * 16)
            # Only when the daemon has closed its side has the socket hung up, whatever is unread.
            watch = select.poll()
            watch.register(session.socket, 0)
            async with asyncio.timeout(PATIENCE):
                while not watch.poll(0):
                    await asyncio.sleep(0.1)


class Babbles(Caller):
    """Bad input, at every layer."""

    pause = 0.3

    async def turn(self):
        await self.random.choice([self.in_session, self.in_session, self.in_varlink, self.in_json])()

    async def in_session(self):
        with await self.acquire(mode=self.random.choice(["own", "shared"])) as session:
            await session.negotiate()
            for _ in range(self.random.randint(1, 4)):
                await session.write(b"".join(self.random.choices(MALFORMED, k=self.random.randint(1, 3))))
                await session.send_commands(self.questions(2))
                await session.replies(errors_allowed=True)
            session.half_close()
            try:
                while True:
                    await session.message()
            except Ended:
                pass

    async def in_varlink(self):
        with await Varlink.to(self.soak.path) as connection:
            for method, parameters, expected in [
                ("io.systemd.MachineInstance.Nothing", {}, "org.varlink.service.MethodNotFound"),
                ("io.nothing.Interface.Method", {}, "org.varlink.service.MethodNotFound"),
                (MACHINE + "AddStorage", {"name": 7}, "org.varlink.service.InvalidParameter"),
                (MACHINE + "RemoveStorage", {"name": "nobody's"}, MACHINE + "NoSuchStorage"),
                (MONITORS + "Add", {"id": "9", "chardev": "c"}, "org.varlink.service.InvalidParameter"),
                (MONITORS + "Remove", {"id": "nothing"}, MONITORS + "NoSuchMonitor"),
                (ACQUIRE, {}, "org.varlink.service.ExpectedUpgrade"),
                (MACHINE + "SubscribeEvents", {}, "org.varlink.service.ExpectedMore"),
            ]:
                reply = await connection.call(method, parameters)
                if reply.get("error") != expected:
                    raise Finding(f"{method} with {parameters}: {reply}")

    async def in_json(self):
        bad = self.random.choice([b"{\0", b"nonsense\0", b'{"method":7}\0', b"[]\0", b'{"method":"a"}\0', b"{" * 5000 + b"\0", b"\0\0\0", b"\xff" * 100 + b"\0"])
        with await Connection.to(self.soak.path) as connection:
            try:
                await connection.write(bad)
                connection.half_close()
            except (Ended, OSError):
                return
            # An error or the end, but soon.
            while not connection.has_ended:
                await connection.read()


# How many of each there are at once.
CALLERS = {
    Calls: 3, Pauses: 1, Speaks: 3, FallsSilent: 8, Vanishes: 4, AddsMonitors: 2, AddsStorage: 4, PassesDescriptors: 1, Subscribes: 3,
    ReadsSlowly: 1, NeverReads: 1, Babbles: 2,
}
