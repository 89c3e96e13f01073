"""The daemon, its QEMU and its guest."""

import asyncio
import os
import socket
import subprocess
from pathlib import Path

from .wire import Finding, Varlink

CHECKOUT = Path(__file__).resolve().parents[3]
# The guest boots without KVM, on a host that is busy with other things.
BOOT_PATIENCE = 300

OPTIONS = [
    # Sessions are parked soon, and those that read nothing are ended soon: both are to happen often.
    "--park-after", "1", "--unread-limit", "2", "--max-active-monitors", "32", "--memory", "192M", "--log-level", "notice",
    # QEMU may be slow on a busy host: what is lost shows by PATIENCE.
    "--register", "no", "--stop-timeout", "0", "--response-limit", "100",
]
QEMU_OPTIONS = [
    "-serial", "chardev:serial", "-chardev",
    # The guest's memory is there from the start, so that QEMU's own can be seen.
    "socket,id=serial,path={folder}/console,server=on,wait=off", "-mem-prealloc",
]


class Failure(Exception):
    """The soak cannot begin, or cannot end."""


def number_of(text, field):
    for line in text.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return None


def started_at(process):
    """What tells a process from another one with its id."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]


class Machine:
    """One daemon with its QEMU, and nothing that starts either again."""

    def __init__(self, daemon, folder, log):
        self.folder, self.log = Path(folder), log
        self.program = daemon
        self.path = str(self.folder / "control")
        self.process = self.qemu = self.identity = None

    async def start(self):
        made = await asyncio.create_subprocess_exec(
            CHECKOUT / "examples/guest/make-guest", self.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        _, errors = await made.communicate()
        if made.returncode:
            raise Failure(f"no guest could be made: {errors.decode().strip()}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self.folder / "notify"))
            notify.setblocking(False)
            command = [
                # Whatever ends this program ends the machine.
                "setpriv", "--pdeathsig", "TERM", self.program, "run", "--machine", "soak", "--runtime-directory", str(self.folder),
                "--kernel", str(self.folder / "vmlinuz"), "--initrd", str(self.folder / "initrd"),
                "--append", "console=ttyS0 quiet no_timer_check", *OPTIONS, "--", *QEMU_OPTIONS,
            ]
            command = [str(part).format(folder=self.folder) for part in command]
            with open(self.log, "wb") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify")})
            await self.boot(notify)
        self.identity = started_at(self.process.pid), started_at(self.qemu)

    async def boot(self, notify):
        loop = asyncio.get_running_loop()
        ended = asyncio.ensure_future(self.process.wait())

        async def ready():
            said = b""
            # The interface that is made of QEMU's schema comes a moment after the others.
            while b"io.qmpvarlink.QMP" not in said:
                said += await loop.sock_recv(notify, 4096)
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            self.qemu = next(int(child) for child in children if Path(f"/proc/{child}/comm").read_text().startswith("qemu"))
            self.console, _ = await asyncio.open_unix_connection(str(self.folder / "console"))
            await self.console.readuntil(b"guest: up")
            # What the guest says is to keep nobody waiting.
            self.listening = asyncio.ensure_future(self.listen())

        starting = asyncio.ensure_future(ready())
        await asyncio.wait([starting, ended], timeout=BOOT_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done() or starting.exception():
            starting.cancel()
            why = "it ended" if ended.done() else starting.exception() if starting.done() else f"not up after {BOOT_PATIENCE} s"
            raise Failure(f"the machine did not start: {why}; see {self.log}")

    async def listen(self):
        while await self.console.read(4096):
            pass

    def look(self):
        """Both processes are the ones that were started."""
        for name, process, identity in zip(("the daemon", "QEMU"), (self.process.pid, self.qemu), self.identity or ()):
            try:
                same = started_at(process) == identity
            except OSError:
                same = False
            if not same:
                raise Finding(f"{name} has ended; the daemon's status is {self.process.returncode}, its log is {self.log}")

    async def stop(self):
        """Ends the machine, and gives the daemon's status."""
        if self.process is None:
            return None
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 60)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
                raise Finding("the daemon did not end when asked to") from None
        return self.process.returncode

    async def connect(self):
        return await Varlink.to(self.path)
