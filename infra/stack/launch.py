"""What a child runs first: `launch.py PID_FILE PARENT_PID COMMAND...`; it then becomes COMMAND.

It writes its own identity before it turns into the server, so that there is no moment at which a server runs and no
file names it; and it asks the kernel for SIGTERM when the supervisor dies (prctl(2), PR_SET_PDEATHSIG), for the timer
slack that the part wants (PR_SET_TIMERSLACK, inherited by every thread) and for less of the processors than others get.
Standard library only, started with `-I -S`, for it runs before every server.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_TIMERSLACK = 29
TIMER_SLACK = "PART_TIMER_SLACK_NS"
"""Environment variable: how late the kernel may wake a thread of COMMAND that sleeps for a time (else 50 us)."""
NICE = "PART_NICE"
"""Environment variable: by how much COMMAND gives way to others, as of nice(1)."""


def start_ticks(pid: int) -> int:
    """Start of a process in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)). OSError if it is gone."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])


def boot_id() -> str:
    """Differs after every boot of the machine: start ticks alone repeat."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def give_way(nice: int) -> None:
    """Nice this process, and its session: between sessions Linux shares by the autogroup's value alone (sched(7))."""
    os.nice(nice)
    try:
        with open("/proc/self/autogroup", "w", encoding="ascii") as file:
            file.write(str(nice))
    except OSError:
        return  # a kernel without autogroups: nice alone counts there


def main(pid_file: str, parent: int, command: list[str]) -> None:
    """Write PID_FILE (`pid ticks boot`), tie this process to its parent, become `command`."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if slack := os.environ.pop(TIMER_SLACK, ""):
        prctl(PR_SET_TIMERSLACK, ctypes.c_ulong(int(slack)))
    if nice := os.environ.pop(NICE, ""):
        give_way(int(nice))
    if os.getppid() != parent:  # it died before the prctl
        sys.exit(1)
    pid = os.getpid()
    with open(pid_file + ".new", "w", encoding="ascii") as file:
        file.write(f"{pid} {start_ticks(pid)} {boot_id()}\n")
    os.replace(pid_file + ".new", pid_file)
    os.execvp(command[0], command)  # noqa: S606  # the supervisor's own table of commands


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
