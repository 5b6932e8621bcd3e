"""What hostile code tries, as scripts for a workspace. Each prints BREACH where it got through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rollmill.workspaces import MIB, ExecResult
from rollmill.workspaces.conformance import SMALL


@dataclass(frozen=True, kw_only=True)
class Attack:
    script: str
    language: str = "bash"
    timeout_s: float = 30.0
    held: Callable[[ExecResult], bool] = lambda result: result.exit_code == 0
    """What the command shows when the limit held, besides printing no BREACH."""

    @property
    def argv(self) -> list[str]:
        if self.language == "bash":
            return ["bash", "-c", self.script]
        return ["python3", "-c", _PRELUDE + self.script]


_PRELUDE = """
import ctypes, fcntl, os, resource, socket, stat, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what, action, *args):
    try:
        got = action(*args)
    except (OSError, ValueError, subprocess.SubprocessError):
        return
    if not (isinstance(got, int) and got < 0):
        print("BREACH", what, got)
def wrote(path, text="x", mode="w"):
    with open(path, mode) as file:
        file.write(text)
def tool(*argv):
    subprocess.run(argv, check=True, timeout=10, stdout=subprocess.DEVNULL)
"""


def python(script: str, **fields: object) -> Attack:
    return Attack(script=script, language="python", **fields)  # type: ignore[arg-type]


def failed(result: ExecResult) -> bool:
    return result.exit_code != 0


def _count(result: ExecResult) -> int:
    return int(result.stdout.split()[-1])


ATTACKS = {
    "fork bomb": Attack(
        script="f() { f | f & }; f 2>/dev/null; sleep 60", timeout_s=2, held=failed
    ),
    "memory hog": python("held = bytearray(1 << 30); print('BREACH')", held=failed),
    "memory in many processes": python(
        """
for _ in range(30):
    if os.fork() == 0:
        held = bytearray(40 << 20)
        time.sleep(2)
        os._exit(7)
codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(30)]
if codes.count(7) * 40 > 384:
    print("BREACH", codes)
"""
    ),
    "memory in files": Attack(
        script="for f in ~/a /tmp/a /workspace/a /dev/shm/a; do head -c 1G /dev/zero > $f; done; "
        f"test $(cat ~/a /tmp/a /workspace/a /dev/shm/a | wc -c) -le {SMALL.memory_bytes}"
    ),
    "disk filler": Attack(
        script="head -c 1G /dev/zero > a",
        held=lambda result: failed(result) and "No space left" in result.stderr,
    ),
    "home filler": Attack(script="head -c 1G /dev/zero > ~/a", held=failed),
    "shared memory filler": Attack(script="head -c 1G /dev/zero > /dev/shm/a", held=failed),
    "inode filler": python(
        """
made = 0
try:
    for made in range(200_000):
        os.mknod(f"{made}")
except OSError as error:
    print(error)
print(made)
""",
        held=lambda result: "No space left" in result.stdout and _count(result) <= SMALL.inodes,
    ),
    "inode filler in shared memory": python(
        """
made = 0
try:
    for made in range(200_000):
        os.mknod(f"/dev/shm/{made}")
except OSError as error:
    print(error)
print(made)
""",
        held=lambda result: "No space left" in result.stdout and _count(result) <= SMALL.inodes,
    ),
    "descriptor hog": python(
        """
attempt("raised", resource.setrlimit, resource.RLIMIT_NOFILE, (100_000, 100_000))
held = []
try:
    while len(held) < 100_000:
        held.append(os.dup(0))
except OSError as error:
    pass
print(len(held))
""",
        held=lambda result: 0 < _count(result) <= SMALL.open_files,
    ),
    "core dump": Attack(
        script="ulimit -c unlimited && echo BREACH; sh -c 'kill -SEGV $$'; find / -xdev -name "
        "'core*' -newer /proc/self -user agent 2>/dev/null | sed s/^/BREACH/"
    ),
    "output flood": Attack(
        script="head -c 1G /dev/zero | tr '\\0' 'x'",
        timeout_s=300,
        held=lambda result: (
            result.stdout_bytes == 1024 * MIB
            and len(result.stdout) < SMALL.output_bytes + 200
            and result.exit_code == 0
        ),
    ),
    "output for ever": Attack(
        script="yes", timeout_s=1.5, held=lambda result: result.timed_out and result.truncated
    ),
    "a daemon that outlives its command": Attack(
        script="(trap '' TERM HUP; setsid nohup sleep 4321 > /dev/null 2>&1 &) ; "
        "python3 -c 'import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and "
        "os._exit(0); time.sleep(4321)'"
    ),
    "killing everybody": Attack(
        script="trap '' TERM; kill -9 -1; kill -TERM -1 && echo BREACH everybody; "
        "for p in /proc/[0-9]*; do p=${p#/proc/}; "
        "[ $p = 1 ] || [ $p = $$ ] || { kill -0 $p && echo BREACH $p; }; done; true"
    ),
    "killing the runner": python(
        """
for signal in range(1, 65):
    try:
        os.kill(1, signal)
    except OSError:
        pass
attempt("traced", libc.ptrace, 16, 1, 0, 0)
for name in ("mem", "environ", "fd/0", "fd/1", "root/etc", "cwd"):
    attempt(name, os.open, f"/proc/1/{name}", os.O_RDWR if name == "mem" else os.O_RDONLY)
for name in ("exe", "root", "cwd", "fd/0", "fd/3"):
    attempt(name, os.readlink, f"/proc/1/{name}")
"""
    ),
    "whoever starts commands": python(
        """
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) not in (1, os.getpid()):
        number = int(name)
        attempt("killed", os.kill, number, 19)
        attempt("limits", resource.prlimit, number, resource.RLIMIT_NOFILE, (3, 3))
        attempt("priority", os.setpriority, os.PRIO_PROCESS, number, 19)
        attempt("affinity", os.sched_setaffinity, number, {0})
        attempt("traced", libc.ptrace, 16, number, 0, 0)
        for file in ("mem", "environ", "fd/0", "fd/3", "oom_score_adj"):
            attempt(file, os.open, f"/proc/{name}/{file}", os.O_RDWR)
"""
    ),
    "the threads of whoever starts commands": python(
        """
end = time.monotonic() + 1
while time.monotonic() < end:
    for number in map(int, os.listdir("/proc/1/task")):
        for signal in (9, 11, 19, 32, 33, 40):
            libc.tgkill(1, number, signal)
        attempt("priority", os.setpriority, os.PRIO_PROCESS, number, 19)
        attempt("affinity", os.sched_setaffinity, number, {0})
        attempt("policy", os.sched_setscheduler, number, os.SCHED_IDLE, os.sched_param(0))
        attempt("limits", resource.prlimit, number, resource.RLIMIT_NOFILE, (3, 3))
        attempt("traced", libc.ptrace, 16, number, 0, 0)
"""
    ),
    "the runner's limits": python(
        """
attempt("limits", resource.prlimit, 1, resource.RLIMIT_NOFILE, (3, 3))
attempt("priority", os.setpriority, os.PRIO_PROCESS, 1, 19)
attempt("first to go", wrote, "/proc/1/oom_score_adj", "1000")
attempt("affinity", os.sched_setaffinity, 1, {0})
"""
    ),
    "links out": python(
        """
os.symlink("/", "root")
os.symlink("/proc/1/root", "init")
attempt("symlink", wrote, "root/etc/passwd", "x", "a")
attempt("other root", os.listdir, "init/root")
for target in ("/etc/passwd", "/usr/bin/env", "/proc/1/environ"):
    attempt("hard link", os.link, target, "/tmp/hard")
for path in ("root/../../../etc/shadow", "/etc/shadow", "/etc/gshadow"):
    attempt(path, lambda: open(path).read())
attempt("the home of root", os.listdir, "/root")
"""
    ),
    "device nodes": python(
        """
for name, kind, number in (("null", stat.S_IFCHR, (1, 3)), ("disk", stat.S_IFBLK, (8, 0)),
                           ("mem", stat.S_IFCHR, (1, 1)), ("vda", stat.S_IFBLK, (254, 0))):
    attempt(name, os.mknod, name, kind | 0o666, os.makedev(*number))
for path in ("/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/fuse", "/dev/kvm",
             "/dev/net/tun", "/dev/loop-control"):
    attempt(path, os.open, path, os.O_RDWR)
"""
    ),
    "mounting": python(
        """
attempt("mount", libc.mount, b"none", b"/workspace", b"tmpfs", 0, b"size=1g")
attempt("remount", libc.mount, b"none", b"/", None, 32, None)
attempt("umount", libc.umount2, b"/workspace", 2)
attempt("pivot", libc.syscall, 155, b"/workspace", b"/workspace")
attempt("chroot", os.chroot, "/workspace")
for flag in (0x10000000, 0x00020000, 0x40000000, 0x20000000):
    if os.fork() == 0:
        attempt(f"unshare {flag:x}", libc.unshare, flag)
        os._exit(0)
    os.wait()
attempt("setns", lambda: libc.setns(os.open("/proc/1/ns/mnt", os.O_RDONLY), 0))
attempt("mount as oneself", tool, "unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt")
"""
    ),
    "the kernel's switches": python(
        """
for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches",
             "/proc/sys/kernel/hostname", "/sys/kernel/uevent_helper", "/sys/power/state",
             "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/memory/cgroup.procs",
             "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/pids/pids.max"):
    attempt(path, wrote, path)
for folder, folders, files in os.walk("/proc"):
    folders[:] = [name for name in folders if not name.isdigit() and "self" not in name]
    for path in (os.path.join(folder, name) for name in files):
        if os.path.isfile(path) and os.access(path, os.W_OK) and "/pressure/" not in path:
            print("BREACH", path)
attempt("hostname", socket.sethostname, "mine")
attempt("module", libc.syscall, 175, 0, 0, b"")
attempt("reboot", libc.reboot, 0x1234567)
attempt("bpf", libc.syscall, 321, 0, 0, 0)
attempt("swapoff", libc.swapoff, b"/dev/sda")
"""
    ),
    "clouds and sockets of the host": python(
        """
for host in ("169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254",
             "metadata.google.internal", "172.17.0.1", "host.docker.internal", "8.8.8.8"):
    attempt(host, lambda: socket.create_connection((host, 80), 3).close())
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock",
             "/run/dbus/system_bus_socket", "/run/systemd/private"):
    attempt(path, lambda: socket.socket(socket.AF_UNIX).connect(path))
attempt("raw", socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)
attempt("packet", socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 3)
attempt("send", lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)))
"""
    ),
    "clock changes": python(
        """
class Time(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]
attempt("settime", time.clock_settime, time.CLOCK_REALTIME, 0.0)
attempt("settimeofday", libc.settimeofday, ctypes.byref(Time(1, 0)), None)
attempt("date", tool, "date", "-s", "2001-01-01")
attempt("adjtimex", libc.adjtimex, (ctypes.c_ulong * 64)(0x0001))
if time.time() < 1.7e9:
    print("BREACH clock")
"""
    ),
    "setuid files": python(
        """
import shutil
shutil.copy("/bin/bash", "sh")
os.chmod("sh", 0o6755)
got = subprocess.run(["./sh", "-p", "-c", "id -u; id -ru"], capture_output=True, text=True)
if got.stdout.split() != ["1000", "1000"]:
    print("BREACH", got)
attempt("chown", os.chown, "sh", 0, 0)
attempt("setuid", os.setuid, 0)
attempt("setgroups", os.setgroups, [0])
everything = (ctypes.c_uint * 6)(*[0xFFFFFFFF] * 6)
attempt("capset", libc.syscall, 126, (ctypes.c_uint * 2)(0x20080522, 0), everything)
for program in ("/bin/su", "/usr/bin/passwd", "/usr/bin/chfn", "/bin/mount"):
    if os.path.exists(program):
        done = subprocess.run([program], input="", capture_output=True, text=True, timeout=10,
                              preexec_fn=os.setsid)
        status = open("/proc/self/status").read()
        if "NoNewPrivs:\\t1" not in status:
            print("BREACH new privileges")
"""
    ),
}  # fmt: skip
