"""Varlink and QMP on bare sockets. Whatever comes that must not is a Finding."""

import asyncio
import json
import socket

# How long anything may take. A busy host is slow; what takes longer than this is lost.
PATIENCE = 120


class Finding(Exception):
    """Something that must not be."""


class Ended(Exception):
    """The other side has closed the connection."""


class Connection:
    """A stream socket, and what has come on it and was not taken yet."""

    def __init__(self, connected):
        self.socket = connected
        self.socket.setblocking(False)
        self.buffer = bytearray()
        self.has_ended = False

    @classmethod
    async def to(cls, path):
        connected = socket.socket(socket.AF_UNIX)
        connected.setblocking(False)
        try:
            # A full backlog is told at once; it is empty a moment later.
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        connected.connect(path)
                        return cls(connected)
                    except BlockingIOError:
                        await asyncio.sleep(0.01)
        except BaseException:
            connected.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    async def write(self, data):
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.get_running_loop().sock_sendall(self.socket, data)
        except (BrokenPipeError, ConnectionResetError):
            raise Ended from None

    async def write_with(self, data, descriptors):
        """For data that fits into the socket's buffer."""
        if socket.send_fds(self.socket, [data], descriptors) != len(data):
            raise Finding("a socket takes less than a command at once")

    async def read(self, limit=1 << 16):
        """Waits for more; `has_ended` when there is none."""
        try:
            async with asyncio.timeout(PATIENCE):
                data = await asyncio.get_running_loop().sock_recv(self.socket, limit)
        except ConnectionResetError:
            data = b""
        except TimeoutError:
            raise Finding(f"nothing came for {PATIENCE} s; not taken yet: {bytes(self.buffer[:200])!r}") from None
        self.buffer += data
        self.has_ended = not data

    async def until(self, end):
        """What comes before `end`, and takes both."""
        searched = 0
        while (found := self.buffer.find(end, searched)) < 0:
            if self.has_ended:
                raise Ended
            searched = max(0, len(self.buffer) - len(end) + 1)
            await self.read()
        message = bytes(self.buffer[:found])
        del self.buffer[: found + len(end)]
        return message


def call_text(method, parameters=None, **flags):
    return json.dumps({"method": method, "parameters": parameters or {}, **flags}, separators=(",", ":")).encode() + b"\0"


class Varlink(Connection):
    async def call(self, method, parameters=None, descriptors=(), **flags):
        await self.send(method, parameters, descriptors, **flags)
        return await self.receive()

    async def send(self, method, parameters=None, descriptors=(), **flags):
        text = call_text(method, parameters, **flags)
        if descriptors:
            await self.write_with(text, descriptors)
        else:
            await self.write(text)

    async def receive(self):
        return json.loads(await self.until(b"\0"))

    async def done(self, method, parameters=None, descriptors=(), **flags):
        """The parameters of a reply that must not be an error."""
        try:
            reply = await self.call(method, parameters, descriptors, **flags)
        except Ended:
            raise Finding(f"the connection ended instead of a reply to {method}") from None
        if "error" in reply:
            raise Finding(f"{method} {parameters or ''}: {reply['error']} {reply.get('parameters')}")
        return reply.get("parameters", {})

    async def execute(self, command, arguments=None):
        """A QMP command as a typed call, on the daemon's own monitor."""
        parameters = {"command": command} | ({"arguments": arguments} if arguments else {})
        return (await self.done("io.qmpvarlink.QMP.Execute", parameters))["return"]


def event_key(message):
    """What tells an event from all others of a machine."""
    time = message["timestamp"]
    return time["seconds"], time["microseconds"], message["event"], json.dumps(message.get("data"), sort_keys=True)


class Session(Varlink):
    """A QMP session. Each command has an id; each reply must be the next command's, and what that command gives."""

    def __init__(self, connected):
        super().__init__(connected)
        self.expected = []
        self.out_of_band = {}
        self.last_id = 0
        self.events = []
        # How many events of the machine's this one need not have.
        self.floor = None

    @classmethod
    async def acquire(cls, path, access="full", mode=None):
        session = await cls.to(path)
        parameters = {"access": access} | ({"mode": mode} if mode else {})
        await session.done("io.systemd.QemuMachineInstance.AcquireQMP", parameters, upgrade=True)
        return session

    async def message(self):
        """The next message of QMP: one line, or from a lone brace to a lone brace."""
        line = await self.until(b"\r\n")
        if line == b"{":
            line += await self.until(b"\r\n}\r\n") + b"}"
        try:
            return json.loads(line)
        except ValueError:
            raise Finding(f"this is no message: {line[:300]!r}") from None

    async def negotiate(self, out_of_band=False):
        greeting = await self.message()
        if "QMP" not in greeting:
            raise Finding(f"this is no greeting: {greeting}")
        arguments = {"enable": ["oob"]} if out_of_band else None
        await self.send_commands([("qmp_capabilities", arguments, lambda reply: reply == {"return": {}})])
        await self.replies()

    async def send_commands(self, commands, pretty=False, tail=b"", descriptors=()):
        """Sends (command, arguments, check) in one write, with `tail` behind. A command in capitals is sent out of band."""
        text = b""
        for name, arguments, check in commands:
            self.last_id += 1
            urgent = name.isupper()
            message = {"exec-oob" if urgent else "execute": name.lower() if urgent else name, "id": self.last_id}
            if arguments:
                message["arguments"] = arguments
            text += json.dumps(message, indent=4 if pretty else None).encode() + (b"\n" if pretty else b"")
            if urgent:
                self.out_of_band[self.last_id] = (name, check)
            else:
                self.expected.append((self.last_id, name, check))
        if descriptors:
            await self.write_with(text + tail, descriptors)
        else:
            await self.write(text + tail)

    async def replies(self, errors_allowed=False):
        """Takes messages until no reply is missing. With `errors_allowed`, errors without an id may come between them."""
        reply = None
        while self.expected or self.out_of_band:
            reply = await self.one(errors_allowed) or reply
        return reply

    async def one(self, errors_allowed=False):
        """Takes one message; gives it if it is a reply."""
        try:
            message = await self.message()
        except Ended:
            raise Finding(f"the session ended with {len(self.expected) + len(self.out_of_band)} replies missing") from None
        if "event" in message:
            self.events.append(event_key(message))
            return None
        if "id" not in message and errors_allowed and "error" in message:
            return None
        number = message.pop("id", None)
        if number in self.out_of_band:
            name, check = self.out_of_band.pop(number)
        elif self.expected and self.expected[0][0] == number:
            _, name, check = self.expected.pop(0)
        else:
            waiting = [number for number, _, _ in self.expected[:5]]
            raise Finding(f"a reply with the id {number} came, and next is one of {waiting}: {str(message)[:300]}")
        try:
            is_right = check(message)
        except (KeyError, TypeError):
            is_right = False
        if not is_right:
            raise Finding(f"the reply to {name} is wrong: {str(message)[:300]}")
        return message

    async def finish(self):
        """Sends no more, and waits for the end; nothing but events may come."""
        self.half_close()
        while True:
            try:
                message = await self.message()
            except Ended:
                break
            if "event" not in message:
                raise Finding(f"more came than was asked for: {str(message)[:300]}")
            self.events.append(event_key(message))
        if self.buffer:
            raise Finding(f"the session ended in the middle of a message: {bytes(self.buffer[:300])!r}")
