#!/usr/bin/python3
"""QEMU's own client library on a connection that was upgraded from Varlink: needs python3-qemu-qmp.

usage: qemu_qmp_session.py PATH        e.g. qemu_qmp_session.py /run/qmp-varlink/NAME/control
"""

import asyncio
import json
import socket
import sys

from qemu.qmp import ExecuteError, QMPClient


def acquire(path):
    """A socket that speaks QMP: what qemu.qmp connects to."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    call = {"method": "io.systemd.QemuMachineInstance.AcquireQMP", "parameters": {}, "upgrade": True}
    connection.sendall(json.dumps(call).encode() + b"\0")
    reply = b""
    while not reply.endswith(b"\0"):
        # Byte by byte: what follows the reply is QMP already, and not for us.
        byte = connection.recv(1)
        if not byte:
            sys.exit(f"the connection ended after {reply!r}")
        reply += byte
    message = json.loads(reply[:-1])
    if "error" in message:
        sys.exit(f"{message['error']}: {message.get('parameters')}")
    return connection


async def main(path):
    qmp = QMPClient("example")
    await qmp.connect(acquire(path))
    print("status:", (await qmp.execute("query-status"))["status"])
    with qmp.listener(("STOP", "RESUME")) as events:
        await qmp.execute("stop")
        print("event:", (await events.get())["event"])
        await qmp.execute("cont")
        print("event:", (await events.get())["event"])
    try:
        await qmp.execute("no-such-command")
    except ExecuteError as error:
        print("error:", error.error.error.class_)
    await qmp.disconnect()


if len(sys.argv) != 2:
    sys.exit(__doc__)
asyncio.run(main(sys.argv[1]))
