"""Typed calls with the varlink package, an independent implementation of the protocol and of its IDL parser."""

import sys

import varlink

INTERFACE = "io.systemd.MachineInstance"

with varlink.Client.new_with_address(sys.argv[1]) as client, client.open(INTERFACE) as machine:
    print(machine.Describe()["status"])
    with client.open(INTERFACE) as subscriber:
        events = subscriber.SubscribeEvents(_more=True)
        assert next(events)["event"] == "READY"
        machine.Pause()
        print(machine.Describe()["status"])
        print(next(events)["event"])
    machine.Resume()
    print(machine.Describe()["status"])
