"""PyTorch's side of a comparison (peer.py) as a server: it is started early, beside checks that time nothing, makes all its
forms ready, and waits. A timed step then asks it for one form after the other."""
import json
import os
import select
import subprocess
import sys
import time

from check import END_S, MARK, Failed, marked_kill

HERE = os.path.dirname(os.path.abspath(__file__))
FORM_S = 8  # a form that takes longer to be timed is none


def peers_environment(**more):
    """Without the libraries of ours."""
    return {**os.environ, "LD_LIBRARY_PATH": os.environ.get("GPU_CHECK_LIBRARY_PATH", ""), **more}


class Peer:
    """forms: those that are ready, with what the peer says of each; absent: why others are not."""

    def __init__(self, directory, name, command):
        self.name, self.directory, self.forms, self.absent, self.facts = name, directory, {}, {}, {}
        os.makedirs(directory)
        self.errors, self.pending = open(os.path.join(directory, "errors"), "w+"), b""
        environment = peers_environment(**{MARK: directory, "TORCHINDUCTOR_CACHE_DIR": os.path.join(directory, "inductor"),
                                           "TORCHINDUCTOR_COMPILE_THREADS": "2"})
        # what it compiles leaves the checks beside it their time
        self.process = subprocess.Popen(["nice", *(str(c) for c in command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        bufsize=0, start_new_session=True, env=environment, cwd=directory)

    def told(self, until):
        """The next line that it says, by that time."""
        while b"\n" not in self.pending:
            ready = select.select([self.process.stdout], [], [], max(0, until - time.monotonic()))[0]
            more = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            if not more:
                self.close()
                raise Failed("%s %s: %s" % (self.name, "ended" if ready else "hung", self.last_words()))
            self.pending += more
        line, self.pending = self.pending.split(b"\n", 1)
        return json.loads(line)

    def last_words(self):
        with open(self.errors.name, errors="replace") as f:
            return " ".join(f.read().strip().splitlines()[-1:])

    def ready_await(self, until):
        """Failed: it was not in time, or ended."""
        while not self.facts:
            told = self.told(until)
            if "form" in told:
                self.forms[told["form"]] = told
            elif "absent" in told:
                self.absent[told["absent"]] = told["why"]
            else:
                self.facts = told

    def seconds(self, form, steps, repeats):
        """Of one step in that form; Failed where it cannot, which another form may."""
        if self.process.returncode is not None:
            raise Failed("%s has ended" % self.name)
        self.process.stdin.write(json.dumps({"form": form, "steps": steps, "repeats": repeats}).encode() + b"\n")
        told = self.told(time.monotonic() + FORM_S)
        if "seconds" not in told:
            raise Failed(told["why"])
        return told["seconds"]

    def times(self, steps, repeats):
        """Seconds of a step by form, of all that can be timed; what cannot is said."""
        found = {}
        for form in self.forms:
            try:
                found[form] = self.seconds(form, steps, repeats)
            except (Failed, OSError) as e:
                self.absent[form] = str(e)
        for form, why in self.absent.items():
            print("  not timed: %s (%s)" % (form, why))
        for form, seconds in sorted(found.items(), key=lambda x: x[1]):
            print("  PyTorch, %s: %.1f us" % (form, seconds * 1e6), flush=True)
        return found

    def close(self):
        """Harmless twice."""
        marked_kill(self.directory)
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:  # a driver holds it
            pass


def peer_start(directory, name, precision, case, device, size, limit_s):
    """name: dense, lstm, gcn, fisher, sweep or ceilings; case: the directory of its files; size: what sweep and ceilings take."""
    own = os.path.join(directory, "peers", "%s-%s" % (name, precision))
    return Peer(own, "%s %s of PyTorch" % (name, precision),
                [sys.executable, os.path.join(HERE, "peer.py"), name, case, device, precision, size, limit_s])
