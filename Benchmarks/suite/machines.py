"""The machines that are measured, and how they are started: all with the same guest."""

import json
import os
import shutil
import socket
import struct
import subprocess
import time
import uuid
import zlib
from pathlib import Path

from . import tools
from .tools import Failure

DAEMON = tools.BUILD / "release/qmp-varlinkd"
QEMU = "qemu-system-x86_64"
MEMORY = "256M"

# What systemd-vmspawn 262 gives a guest, in QEMU's own words (its log shows them with SYSTEMD_LOG_LEVEL=debug).
VMSPAWN_DEVICES = [
    "-machine", "q35,cxl=on,hpet=off",
    "-cpu", "max,hv_relaxed,hv-vapic,hv-time",
    "-nic", "none",
    "-object", "rng-random,id=rng0,filename=/dev/urandom",
    "-device", "virtio-rng-pci,id=rng-device0,rng=rng0",
    "-device", "virtio-balloon,id=balloon0,free-page-reporting=on",
    "-device", "vmgenid,id=vmgenid0,guid=5c927d52-0b9a-4968-ac19-8cffe48ea81f",
    "-device", "pcie-root-port,id=rootport,chassis=1,slot=1,addr=0x10.0,multifunction=on",
]
for _port in range(10):
    _address = f"0x10.{_port + 1}" if _port < 7 else f"0x11.{_port - 7}"
    VMSPAWN_DEVICES += [
        "-device",
        f"pcie-root-port,id=spare{_port},chassis={_port + 2},slot={_port + 2},addr={_address}" + (",multifunction=on" if _port == 7 else ""),
    ]


def make_image(path, mebibytes=8):
    """A disk with nothing but a partition table and a root partition in it, which systemd-vmspawn asks for."""
    sectors = mebibytes * 2048
    root = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709").bytes_le
    partition = uuid.UUID("00000000-0000-4000-8000-000000000001").bytes_le
    entry = root + partition + struct.pack("<QQQ", 2048, sectors - 2049, 0) + "root".encode("utf-16le").ljust(72, b"\0")
    entries = entry.ljust(128 * 128, b"\0")

    def header(own, other, table):
        disk = uuid.UUID("00000000-0000-4000-8000-000000000002").bytes_le
        fields = struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, own, other, 34, sectors - 34, disk, table, 128, 128, zlib.crc32(entries))
        return (fields[:16] + struct.pack("<I", zlib.crc32(fields)) + fields[20:]).ljust(512, b"\0")

    protective = bytearray(512)
    protective[446:462] = struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0xEE, 255, 255, 255, 1, sectors - 1)
    protective[510:] = b"\x55\xaa"
    with open(path, "wb") as image:
        image.truncate(sectors * 512)
        image.write(protective + header(1, sectors - 1, 2) + entries)
        image.seek((sectors - 33) * 512)
        image.write(entries + header(sectors - 1, 1, sectors - 33))


class Guest:
    """A kernel and an initrd, made once, and disks: no two machines can use the same."""

    def __init__(self, folder):
        self.kernel, self.initrd = folder / "vmlinuz", folder / "initrd"
        self.append = "console=ttyS0 quiet no_timer_check"
        if not self.kernel.exists() or not self.initrd.exists():
            made = subprocess.run([tools.CHECKOUT / "examples/guest/make-guest", folder], capture_output=True, text=True)
            if made.returncode != 0:
                raise Failure(made.stderr.strip())


class Launch:
    """A command that serves a machine, and where."""

    def __init__(self, command, *, control=None, notify=None, cgroup=None, environment=None, program=None):
        self.command, self.control, self.notify, self.cgroup = command, control, notify, cgroup
        self.environment, self.program = environment or {}, program

    def options(self):
        yield f"--control={self.control}" if self.control else "--qmp"
        if self.notify:
            yield f"--notify={self.notify}"
        if self.cgroup:
            yield f"--cgroup={self.cgroup}"


class Launches:
    """The commands that start one guest in the different ways. `folder` holds their sockets, so its path must be short."""

    def __init__(self, folder, guest=None):
        self.folder, self.guest = folder, guest

    def image(self, name):
        path = self.folder / f"{name}.raw"
        if not path.exists():
            make_image(path)
        return path

    def ours(self, name, devices=(), *, extra=(), options=(), boots=True):
        """qmp-varlinkd with our own choice of devices, or with those given."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        arguments = ["--machine", name, "--runtime-directory", folder, "--register=no", "--park-after", "never", "--accel", "tcg", "--memory", MEMORY, *options]
        if boots:
            guest = self.guest
            arguments += ["--image", self.image(name), "--kernel", guest.kernel, "--initrd", guest.initrd, "--append", guest.append]
        return Launch(
            [DAEMON, "run", *arguments, "--", *devices, *extra], control=folder / "control", notify=self.folder / f"{name}.notify",
            program="qmp-varlinkd")

    def without_devices(self, name, *, options=()):
        """qmp-varlinkd with the machine that has nothing in it."""
        return self.ours(name, ["-machine", "none"], options=options, boots=False)

    def for_steps(self, name):
        """The same, with all the time that single steps take."""
        return self.without_devices(name, options=["--response-limit", "600"])

    def vmspawn(self, name, *, extra=()):
        """systemd-vmspawn without a bus and without systemd as the first process.

        --register=no and --keep-unit avoid both; it then asks for the unit that it is in, so it is shown one."""
        if shutil.which("systemd-vmspawn") is None:
            raise Failure("systemd-vmspawn is missing")
        if os.getuid() != 0:
            raise Failure("systemd-vmspawn is measured as root only: it must be shown a unit that it is in")
        cgroup = self.folder / "cgroup"
        cgroup.write_text("0::/user.slice/user-0.slice/user@0.service/app.slice/vmspawn.service\n")
        guest = self.guest
        command = [
            "systemd-vmspawn", "--user", "--quiet", "--register=no", "--keep-unit", "--kvm=no", "--vsock=no", "--tpm=no",
            "--pass-ssh-key=no", "--console=headless", "--firmware=none", f"--machine={name}", f"--ram={MEMORY}", "--cpus=1",
            f"--linux={guest.kernel}", f"--initrd={guest.initrd}", f"--image={self.image(name)}", guest.append,
        ]
        environment = {"XDG_RUNTIME_DIR": str(self.folder)}
        if extra:
            environment["SYSTEMD_VMSPAWN_QEMU_EXTRA"] = " ".join(map(str, extra))
        return Launch(
            command, control=self.folder / "systemd/vmspawn" / name / "control", cgroup=cgroup, environment=environment,
            program="systemd-vmspawn")

    def qemu(self, devices):
        """QEMU alone, its monitor on a descriptor as the daemons have it."""
        guest = self.guest
        command = [
            QEMU, "-no-user-config", "-nodefaults", "-display", "none", "-accel", "tcg", "-m", MEMORY, "-smp", "1",
            "-chardev", "socket,id=qmp,fd=3", "-qmp", "chardev:qmp", *devices,
        ]
        if "none" not in devices:
            command += [
                "-blockdev", f"driver=raw,node-name=disk,file.driver=file,file.filename={self.image('q')}",
                "-device", "virtio-blk-pci,drive=disk,bootindex=1",
                "-kernel", guest.kernel, "-initrd", guest.initrd, "-append", guest.append,
            ]
        return Launch(command)


def time_start(launch):
    """Starts a machine and ends it. Returns the milliseconds to each thing that it said."""
    arguments = [*launch.options(), "--", *launch.command]
    process = subprocess.run(
        [tools.TOOLS / "start", *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env=os.environ | launch.environment, timeout=tools.LIMIT)
    if process.returncode != 0:
        raise Failure(process.stderr.strip())
    return {what: int(time) / 1e6 for what, time in (line.split() for line in process.stdout.splitlines())}


class Machine:
    """A machine that runs until it is closed."""

    def __init__(self, launch, log, qmp=None):
        self.control, self.qmp = launch.control, qmp
        # Where the daemon counts its allocations, if it does.
        self.counts = launch.environment.get("BENCH_ALLOCATIONS")
        self.log = open(log, "w")
        arguments = [*launch.options(), "--keep", "--", *launch.command]
        self.starter = subprocess.Popen(
            [tools.TOOLS / "start", *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=os.environ | launch.environment)
        for line in self.starter.stdout:
            if line.startswith("pid "):
                self.process = int(line.split()[1])
                break
        else:
            self.close()
            raise Failure(f"{launch.program} did not start:\n{Path(log).read_text().strip()[-2000:]}")
        self.held = None
        if DAEMON in launch.command:
            self.wait_for_interface("io.qmpvarlink.QMP")
        # The guest stands still: it takes no time from what is measured, and does not see its power button.
        self.call("io.systemd.MachineInstance.Pause")

    def call(self, method):
        tools.run("calls", "--calls=1", "--warm=0", "varlink", self.control, f'{{"method":"{method}"}}')

    def wait_for_interface(self, name):
        """Waits for what the daemon does beside its service once it is up: understanding what QEMU says of itself."""
        question = json.dumps({"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": name}}).encode() + b"\0"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.control))
                connection.sendall(question)
                if not connection.recv(32).startswith(b'{"error"'):
                    return
            time.sleep(0.05)
        self.close()
        raise Failure(f"the interface {name} did not appear")

    def qemu(self):
        """The process of the QEMU that the daemon has started."""
        children = Path(f"/proc/{self.process}/task/{self.process}/children").read_text().split()
        if len(children) != 1:
            raise Failure(f"the daemon has {len(children)} child processes, not one")
        return int(children[0])

    def hold_socket(self):
        """Keeps an idle client on the bare socket, so that QEMU has as many monitors as when that is measured."""
        self.held = socket.socket(socket.AF_UNIX)
        self.held.connect(str(self.qmp))
        self.held.sendall(b'{"execute":"qmp_capabilities"}')
        received = b""
        while received.count(b"\n") < 2:
            received += self.held.recv(4096)

    def release_socket(self):
        if self.held:
            self.held.close()
        self.held = None

    def close(self):
        # At the end of its input the starter ends the machine.
        self.starter.stdin.close()
        try:
            self.starter.wait(30)
        except subprocess.TimeoutExpired:
            self.starter.terminate()
            self.starter.wait()
        self.starter.stdout.close()
        self.log.close()
