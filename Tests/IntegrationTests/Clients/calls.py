"""Makes calls as the user that it runs as, each on a connection of its own, and prints what became of each: ok, or the error's name."""

import json
import socket
import sys

for line in sys.stdin:
    call = json.loads(line)
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(sys.argv[1])
            connection.sendall(json.dumps(call).encode() + b"\0")
            reply = b""
            while b"\0" not in reply:
                part = connection.recv(65536)
                if not part:
                    break
                reply += part
            print(json.loads(reply.split(b"\0")[0]).get("error", "ok") if reply else "closed")
        except PermissionError:
            print("no connection")
