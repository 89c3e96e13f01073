#!/usr/bin/python3
"""Typed calls from Python with the library of varlink.org: needs python3-varlink.

usage: varlink_calls.py ADDRESS        e.g. varlink_calls.py unix:/run/qmp-varlink/NAME/control
"""

import sys

import varlink

if len(sys.argv) != 2:
    sys.exit(__doc__)

with varlink.Client(address=sys.argv[1]) as client:
    # What can be called is asked of the service: there is nothing to generate.
    for name in sorted(client.get_interfaces()):
        print("interface:", name)
    with client.open("io.systemd.MachineInstance") as machine:
        print("status:", machine.Describe()["status"])
    with client.open("io.qmpvarlink.QMP") as qmp:
        print("name:", qmp.QueryName()["name"])
        try:
            qmp.BlockdevDel(nodeName="nowhere")
        except varlink.VarlinkError as error:
            # Every error of QEMU's comes with its class and its own words.
            print("error:", error.error(), error.parameters()["class"])
    with client.open("io.qmpvarlink.Sessions") as sessions:
        print("sessions:", len(sessions.List()["sessions"]))
