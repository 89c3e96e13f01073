"""Runs the programs of Benchmarks/tools, which do everything that is timed."""

import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD = CHECKOUT / ".build"
RESULTS = BUILD / "bench"
TOOLS = RESULTS / "tools"

# The longest that any one step may take, in seconds.
LIMIT = 120


class Failure(Exception):
    """Something could not be measured; says why."""


def build():
    made = subprocess.run(["make", "-s", "-C", CHECKOUT / "Benchmarks/tools", f"OUT={TOOLS}"], capture_output=True, text=True)
    if made.returncode != 0:
        raise Failure(f"the tools do not build:\n{made.stderr}")


def run(tool, *arguments):
    """Runs a tool to its end. Returns the lines it prints."""
    command = [TOOLS / tool, *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise Failure(f"{tool} took longer than {LIMIT} s") from None
    if done.returncode != 0:
        raise Failure(done.stderr.strip() or f"{tool} ended with status {done.returncode}")
    return done.stdout.splitlines()


def columns(lines):
    """Rows of numbers as columns, nanoseconds as microseconds."""
    return [[int(number) / 1000 for number in column] for column in zip(*(line.split() for line in lines))]


def calls(*arguments):
    """Runs `calls`. Returns the microseconds of each call, and how many there were a second."""
    first, *samples = run("calls", *arguments)
    elapsed = int(first.split()[1]) / 1e9
    return [int(sample) / 1000 for sample in samples], len(samples) / elapsed


@contextmanager
def waiting(tool, *arguments):
    """Runs a tool with `--wait`: inside the block it is set up and idle, but for the call of the function that the block
    gets, which returns the lines that the tool printed for its load, and has its process."""
    process = subprocess.Popen(
        [TOOLS / tool, "--wait", *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = Timer(LIMIT, process.kill)
    limit.start()

    def read_until(last):
        lines = []
        while (line := process.stdout.readline()) != last:
            if line == "":
                raise Failure(process.stderr.read().strip() or f"{tool} took longer than {LIMIT} s")
            lines.append(line.rstrip())
        return lines

    def go():
        process.stdin.write("go\n")
        process.stdin.flush()
        return read_until("done\n")

    go.process = process.pid
    try:
        read_until("ready\n")
        yield go
        # At the end of its input it disconnects, and waits for what follows from that.
        process.stdin.close()
        process.wait()
    finally:
        limit.cancel()
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()


@contextmanager
def hop(path, socket):
    """Serves `path` as long as the block runs: a process, which the block gets, that only copies between it and QEMU's socket."""
    process = subprocess.Popen([TOOLS / "hop", str(path), str(socket)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout.readline() != "ready\n":
            raise Failure("hop did not start")
        yield process.pid
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def system_calls(process, load):
    """Counts the system calls of a process while `load` runs. Returns a dictionary of names."""
    counts = RESULTS / "strace.txt"
    tracer = subprocess.Popen(
        ["strace", "-c", "-U", "calls,name", "-f", "-p", str(process), "-o", counts], stderr=subprocess.PIPE, text=True)
    try:
        if "attached" not in (line := tracer.stderr.readline()):
            raise Failure(f"strace: {line.strip()}")
        load()
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        tracer.stderr.close()
    rows = [line.split() for line in counts.read_text().splitlines()]
    return {row[1]: int(row[0]) for row in rows if len(row) == 2 and row[0].isdigit() and row[1] != "total"}


def instructions(process, load, addresses=None):
    """Counts the instructions of a process outside the kernel while `load` runs, by single steps."""
    command = [TOOLS / "steps", str(process)] + ([str(addresses)] if addresses else [])
    counter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if counter.stdout.readline() != "ready\n":
        raise Failure(counter.communicate()[1].strip())
    try:
        load()
    finally:
        output, errors = counter.communicate()
    if counter.returncode != 0:
        raise Failure(errors.strip())
    return int(output.split()[1])


def allocations(counts):
    """How many allocations there were so far, and of how many bytes, by the file that `allocations.so` keeps."""
    content = Path(counts).read_bytes() if os.path.exists(counts) else b""
    if len(content) != 16:
        raise Failure("the allocations are not counted")
    return int.from_bytes(content[:8], "little"), int.from_bytes(content[8:], "little")
