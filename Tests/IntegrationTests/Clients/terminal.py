"""Runs a program on a terminal of its own: terminal.py [--type TEXT --until TEXT]... -- PROGRAM [ARGUMENT...]

Prints all that the program shows. After each TEXT that is typed, it is read until the next one to wait for is shown. A program that
is at its end, or that has not shown what is waited for after a minute, ends this."""

import os
import pty
import select
import signal
import sys
import time

words = sys.argv[1 : sys.argv.index("--")]
program = sys.argv[sys.argv.index("--") + 1 :]
steps = list(zip(words[1::4], words[3::4]))

process, terminal = pty.fork()
if process == 0:
    os.execvp(program[0], program)
shown = b""


def read(until):
    """Reads until that is shown; returns whether it was."""
    global shown
    begin, end = len(shown), time.monotonic() + 60
    while until is None or until not in shown[begin:]:
        if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            return False
        try:
            data = os.read(terminal, 65536)
        except OSError:
            data = b""
        if not data:
            return until is None
        shown += data
    return True


complete = True
for text, expected in steps:
    os.write(terminal, text.encode())
    complete = complete and read(expected.encode())
if not steps:
    read(None)
else:
    os.kill(process, signal.SIGHUP)
sys.stdout.buffer.write(shown)
status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
sys.exit(0 if steps and complete else 1 if steps else status)
