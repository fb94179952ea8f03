"""Runs a program in a terminal of 100 by 30: types what comes on standard input, prints what it shows.

Ends with the program's exit code; with 99 where it did not give the terminal back as it was.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios

program, terminal = pty.fork()
if program == 0:
    os.environ["TERM"] = "xterm"
    # Begins when the terminal has its size.
    os.read(0, 1)
    os.execv(sys.argv[1], sys.argv[1:])
# The program's own modes of lines are those of the terminal: they are read here, at the other end.
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
before = termios.tcgetattr(terminal)[:4]
os.write(terminal, b"\n")
sources = [terminal, 0]
after = before
while terminal in sources:
    for ready in select.select(sources, [], [])[0]:
        try:
            read = os.read(ready, 65536)
        except OSError:  # The program has ended.
            read = b""
        if not read:
            sources.remove(ready)
        elif ready == 0:
            os.write(terminal, read)
        else:
            sys.stdout.buffer.write(read)
            sys.stdout.buffer.flush()
            after = termios.tcgetattr(terminal)[:4]
code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
try:
    after = termios.tcgetattr(terminal)[:4]
except termios.error:
    pass
sys.exit(99 if after != before else code)
