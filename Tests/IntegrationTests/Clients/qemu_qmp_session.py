"""qemu.qmp, QEMU's own client library, on a socket that came out of a Varlink upgrade."""

import asyncio
import json
import os
import socket
import sys

from qemu.qmp import ExecuteError, QMPClient


def acquire(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    call = {"method": "io.systemd.QemuMachineInstance.AcquireQMP", "parameters": {}, "upgrade": True}
    connection.sendall(json.dumps(call).encode() + b"\0")
    reply = b""
    while not reply.endswith(b"\0"):
        # Byte by byte: what follows the reply is QMP already.
        byte = connection.recv(1)
        assert byte, f"the connection ended after {reply!r}"
        reply += byte
    assert "error" not in json.loads(reply[:-1]), reply
    return connection


async def main():
    client = QMPClient("test")
    await client.connect(acquire(sys.argv[1]))
    print(client.greeting.QMP.version["qemu"]["major"] >= 11)
    print(await client.execute("query-status"))
    with client.listener("STOP") as listener:
        await client.execute("stop")
        print((await listener.get())["event"])
    await client.execute("cont")
    try:
        await client.execute("nope")
    except ExecuteError as error:
        print(error.error.error.class_)
    replies = await asyncio.gather(*(client.execute("query-name") for _ in range(10)))
    print(len(replies))
    # A descriptor on its way to QEMU, through the session.
    read_end, write_end = os.pipe()
    client.send_fd_scm(read_end)
    await client.execute("getfd", {"fdname": "passed"})
    await client.execute("closefd", {"fdname": "passed"})
    print("descriptor passed")
    await client.disconnect()


asyncio.run(main())
