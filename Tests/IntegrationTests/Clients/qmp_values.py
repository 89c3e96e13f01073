"""Every command that needs no arguments, over Varlink and over raw QMP of the same QEMU: the replies are to say the same.

Knows the schema and the rules for names, and nothing of how the daemon applies them. Prints how many commands gave the same
value, the same error, and were not run, and whatever differs.
"""

import json
import re
import socket
import sys

INTERFACE = "io.qmpvarlink.QMP"

# Not run, and why.
NOT_RUN = {
    "qmp_capabilities": "it is refused, which is tested elsewhere",
    "quit": "it ends the machine",
}
# Run behind all others, because they let the guest run, whose state others show.
LAST = ["cont", "stop", "system_reset", "system_powerdown"]
JSON_KINDS = {bool: "bool", int: "int", float: "float", str: "string", list: "array", dict: "object", type(None): "null"}


class Varlink:
    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(address)
        self.buffer = b""

    def call(self, method, parameters=None, **flags):
        message = {"method": method, "parameters": parameters or {}, **flags}
        self.socket.sendall(json.dumps(message).encode() + b"\0")
        return json.loads(self.until(b"\0"))

    def until(self, end):
        while end not in self.buffer:
            received = self.socket.recv(1 << 16)
            assert received, "the connection ended"
            self.buffer += received
        message, self.buffer = self.buffer.split(end, 1)
        return message


class QMP(Varlink):
    def __init__(self, address):
        super().__init__(address)
        self.call("io.systemd.QemuMachineInstance.AcquireQMP", upgrade=True)
        self.until(b"\n")
        self.execute("qmp_capabilities")

    def execute(self, command):
        self.socket.sendall(json.dumps({"execute": command}).encode())
        while True:
            reply = json.loads(self.until(b"\n"))
            if "event" not in reply:
                return reply


def camel(name):
    head, *tail = [part for part in re.split("[-_.]", name) if part]
    joined = head + "".join(part[0].upper() + part[1:] for part in tail)
    return "n" + joined if joined[0].isdigit() else joined


def pascal(name):
    return camel(name)[0].upper() + camel(name)[1:]


def as_any(value):
    kind = JSON_KINDS[type(value)]
    if kind == "array":
        return {kind: [as_any(element) for element in value]}
    return {kind: True if value is None else value}


class Comparison:
    def __init__(self, schema):
        self.types = {e["name"]: e for e in schema if e["meta-type"] not in ("command", "event")}
        self.differences = []

    def differ(self, path, raw, varlink):
        self.differences.append(f"{path}: {json.dumps(raw)[:200]} is {json.dumps(varlink)[:200]}")

    def same(self, path, raw, varlink):
        if raw != varlink or type(raw) is not type(varlink):
            self.differ(path, raw, varlink)

    def compare(self, type_name, raw, varlink, path):
        described = self.types[type_name]
        kind = described["meta-type"]
        if kind == "builtin" and described["json-type"] == "value":
            self.same(path, as_any(raw), varlink)
        elif kind == "builtin":
            self.same(path, True if raw is None else raw, varlink)
        elif kind == "enum":
            self.same(path, camel(raw), varlink)
        elif kind == "array":
            if not isinstance(varlink, list) or len(raw) != len(varlink):
                return self.differ(path, raw, varlink)
            for index, (one, other) in enumerate(zip(raw, varlink)):
                self.compare(described["element-type"], one, other, f"{path}[{index}]")
        elif kind == "alternate":
            field = JSON_KINDS[type(raw)]
            if list(varlink) != [field]:
                return self.differ(path, raw, varlink)
            branch = next(b["type"] for b in described["members"] if self.json_kind(b["type"]) == field)
            self.compare(branch, raw, varlink[field], path)
        else:
            self.compare_object(described, raw, varlink, path)

    def compare_object(self, described, raw, varlink, path):
        if len(raw) != len(varlink):
            return self.differ(path, raw, varlink)
        members, cases = {}, []
        while described:
            members.update({member["name"]: member["type"] for member in described["members"]})
            selected = raw.get(described.get("tag"))
            cases.append(selected)
            branch = [v["type"] for v in described.get("variants", []) if v["case"] == selected]
            described = self.types[branch[0]] if branch else None
        for name, value in raw.items():
            # A member that cases have with different types is called after a case too.
            fields = [field for field in varlink if field == camel(name)] or [f for f in varlink if f.startswith(camel(name))]
            if len(fields) != 1 or name not in members:
                self.differ(f"{path}.{name}", value, varlink)
            else:
                self.compare(members[name], value, varlink[fields[0]], f"{path}.{name}")

    def json_kind(self, type_name):
        described = self.types[type_name]
        builtin = {"string": "string", "int": "int", "number": "float", "boolean": "bool", "null": "null"}
        return {"enum": "string", "object": "object", "array": "array"}.get(described["meta-type"]) or builtin[described["json-type"]]


def main():
    varlink, qmp = Varlink(sys.argv[1]), QMP(sys.argv[1])
    schema = qmp.execute("query-qmp-schema")["return"]
    types = {e["name"]: e for e in schema if e["meta-type"] == "object"}
    commands = {
        e["name"]: e
        for e in schema
        if e["meta-type"] == "command" and all("default" in m for m in types[e["arg-type"]]["members"])
    }
    values = errors = 0
    for name in sorted(commands, key=lambda name: (name in LAST and LAST.index(name) + 1, name)):
        if name in NOT_RUN:
            continue
        # What changes by itself, such as a count of translated blocks, may take more than one look.
        for attempt in range(3):
            raw, reply = qmp.execute(name), varlink.call(f"{INTERFACE}.{pascal(name)}")
            comparison = Comparison(schema)
            if "error" in raw:
                expected = {"error": f"{INTERFACE}.QMPError", "parameters": raw["error"]}
                comparison.same(name, expected, reply)
            else:
                value = reply.get("parameters", {})
                result = commands[name]["ret-type"]
                comparison.compare(result, raw["return"], value if result in types else value.get("return"), name)
            if not comparison.differences:
                break
        if comparison.differences:
            print("\n".join(comparison.differences))
        elif "error" in raw:
            errors += 1
        else:
            values += 1
    not_run = len([name for name in commands if name in NOT_RUN])
    print(f"{len(commands)} commands: {values} values, {errors} errors, {not_run} not run")


main()
