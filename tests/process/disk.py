"""A small disk of its own for a case: a tmpfs that nobody else sees and that ends with the case."""
import ctypes
import os
import subprocess

from harness import skip

CLONE_NEWNS = 0x20000


class Disk:
    def __init__(self, directory):
        self.directory = os.path.abspath(directory)

    def fill(self):
        """To its last byte, also what was freed since."""
        with open(os.path.join(self.directory, "filler"), "ab", buffering=0) as f:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        f.write(b"x" * size)
                except OSError:
                    pass

    def empty(self):
        os.remove(os.path.join(self.directory, "filler"))


def disk(directory, mib=64):
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
        skip("this user cannot mount a file system")
    os.makedirs(directory)
    for words in (("--make-rprivate", "/"), ("-t", "tmpfs", "-o", "size=%dm" % mib, "disk", directory)):
        made = subprocess.run(["mount", *words], capture_output=True, text=True)
        if made.returncode:
            skip("this machine mounts no file system: " + made.stderr.strip())
    return Disk(directory)
