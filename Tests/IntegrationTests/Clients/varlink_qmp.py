"""io.qmpvarlink.QMP with the varlink package, an independent implementation of the protocol and of its IDL parser."""

import sys

import varlink

INTERFACE = "io.qmpvarlink.QMP"

with varlink.Client.new_with_address(sys.argv[1]) as client, client.open(INTERFACE) as qmp:
    print(qmp.QueryStatus()["status"])
    qmp.BlockdevAdd(driver="nullCo", nodeName="disk", size=1 << 40)
    print([node["image"]["virtualSize"] == 1 << 40 for node in qmp.QueryNamedBlockNodes()["return"]])
    print(qmp.QomGet("/machine", "type")["return"]["string"])
    print(qmp.Execute("query-name")["return"]["name"])
    try:
        qmp.BlockdevDel(nodeName="nope")
    except varlink.VarlinkError as error:
        print(error.error(), error.parameters()["class"])
    try:
        qmp.BlockdevAdd(driver="file", nodeName="x", filename="/dev/null", size=1)
    except varlink.VarlinkError as error:
        print(error.error(), error.parameters()["parameter"])
    with client.open(INTERFACE) as subscriber:
        events = subscriber.SubscribeEvents(filter=["RESET"], _more=True)
        print(next(events)["event"])
        qmp.Stop()
        qmp.SystemReset()
        event = next(events)
        print(event["event"], event["reset"]["guest"], event["reset"]["reason"], event["timestamp"]["seconds"] > 0)
