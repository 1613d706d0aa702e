"""Runs the Python tests: harness.py FILE_OR_DIRECTORY... [-k PART]

Every function test_* of every test_*.py is a case. Each runs in a child process of its own, in a fresh directory
that is removed afterwards, under a time limit (120 s; another one by @limit(seconds); TEST_LIMIT_TIMES times that). One more runs at a time than
there are cores, since each waits now and then; those with the longest limits first so that the end is not one of them
on one core. Its output is shown only when it fails, the seconds it took (by the clock, and of the processor by it and
all it waited for) always. skip(reason) ends a case as skipped. shared(name, make) is for what several cases need and
only one need make. Whatever processes a case left in its process group or session are killed. The last line is
"N passed, N failed, N skipped"; the exit code is 1 if any failed.
"""
import fcntl
import importlib.util
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback

LIMIT_S = 120
CODE_SKIPPED = 77
TESTS = os.path.dirname(os.path.abspath(__file__))


def limit(seconds):
    """Decorator: another time limit than LIMIT_S for one case."""
    def mark(function):
        function.limit_s = seconds
        return function
    return mark


def shared(name, make):
    """The path of a file that all cases of this call of the harness share: the first that asks makes it, by make(path),
    while the others wait."""
    path = os.path.join(os.environ["TEST_SHARED"], name)
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            make(path + ".made")
            os.rename(path + ".made", path)
    return path


class Skipped(Exception):
    pass


def skip(reason):
    raise Skipped(reason)


def files_find(paths):
    found = []
    for path in paths:
        if os.path.isdir(path):
            found += [os.path.join(path, n) for n in sorted(os.listdir(path))
                      if n.startswith("test_") and n.endswith(".py")]
        else:
            found.append(path)
    return found


def module_load(path):
    """Import a test file; its own directory and ours are on the path, so it may `from harness import limit`."""
    for directory in (TESTS, os.path.dirname(os.path.abspath(path))):
        if directory not in sys.path:
            sys.path.insert(0, directory)
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases_find(path, part):
    """(name, function) of a file in the order of its source."""
    label = os.path.relpath(path, os.path.dirname(TESTS))
    module = module_load(path)
    cases = [(n, f) for n, f in vars(module).items() if n.startswith("test_") and callable(f)]
    return [(label, n, f) for n, f in cases if not part or part in label or part in n]


def child_run(function, directory, output):
    """In the child: never returns."""
    code = 1
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & has it ignored, and that is inherited
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(directory)
    try:
        function()
        code = 0
    except Skipped as reason:
        print(reason)
        code = CODE_SKIPPED
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def leftovers_kill(directory, pid):
    """End what a case left behind: its session, and processes that name its directory (supervised stages
    live in a session of their own). Supervisors go before what they would start again."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    for _ in range(5):
        left = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            try:
                with open("/proc/%s/cmdline" % name, "rb") as f:
                    words = f.read()
                where = os.readlink("/proc/%s/cwd" % name)
            except OSError:
                continue
            if directory.encode() in words or where == directory or where.startswith(directory + "/"):
                left.append((not words.startswith(b"s6-svscan"), int(name)))
        if not left:
            return
        for _, process in sorted(left):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)


class Case:
    """One case in work: its child, its directory, its output, and when its time is up."""

    def __init__(self, label, name, function):
        self.title = "%s %s" % (label, name)
        self.limit_s = getattr(function, "limit_s", LIMIT_S) * int(os.environ.get("TEST_LIMIT_TIMES", "1"))
        self.directory = os.path.realpath(tempfile.mkdtemp(prefix="finetuned-"))
        self.output = tempfile.TemporaryFile()
        self.started = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            child_run(function, self.directory, self.output.fileno())
        self.descriptor = os.pidfd_open(self.pid)

    def left_s(self):
        return self.started + self.limit_s - time.monotonic()

    def end(self, in_time):
        """Reap the child, killed if it was not in time; prints and returns passed, failed or skipped."""
        os.close(self.descriptor)
        if not in_time:
            os.kill(self.pid, signal.SIGKILL)
        _, status, used = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - self.started
        cpu_s = used.ru_utime + used.ru_stime
        leftovers_kill(self.directory, self.pid)
        shutil.rmtree(self.directory, ignore_errors=True)
        with self.output as output:
            output.seek(0)
            text = output.read().decode(errors="replace")
        if in_time and code == 0:
            print("ok   %s %.1f s (%.1f s of CPU)" % (self.title, seconds, cpu_s))
            return "passed"
        skipped = in_time and code == CODE_SKIPPED
        why = "" if in_time else " (time limit %d s)" % self.limit_s
        print("%s %s%s" % ("SKIP" if skipped else "FAIL", self.title, why))
        for line in text.splitlines():
            print("     " + line)
        return "skipped" if skipped else "failed"


def case_await(running):
    """Wait until one of the cases has ended or its time is up; takes it out, returns its outcome."""
    soonest = max(0, min(c.left_s() for c in running))
    ready = select.select([c.descriptor for c in running], [], [], soonest)[0]
    ended = [c for c in running if c.descriptor in ready]
    case = ended[0] if ended else min(running, key=Case.left_s)
    running.remove(case)
    return case.end(bool(ended))


def cases_run(cases, counts):
    """Run them all, `jobs` at a time."""
    jobs = len(os.sched_getaffinity(0)) + 1
    running = []
    for label, name, function in sorted(cases, key=lambda c: -max(LIMIT_S, getattr(c[2], "limit_s", 0))):
        while len(running) >= jobs:
            counts[case_await(running)] += 1
        running.append(Case(label, name, function))
    while running:
        counts[case_await(running)] += 1


def main(arguments):
    part = None
    if "-k" in arguments:
        at = arguments.index("-k")
        if at + 1 == len(arguments):
            sys.exit("harness.py: -k needs a part of a name")
        part = arguments[at + 1]
        del arguments[at:at + 2]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 100
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    cases = []
    for path in files_find(arguments):
        try:
            found = cases_find(path, part)
        except (Exception, SystemExit):
            traceback.print_exc(file=sys.stdout)
            print("FAIL %s cannot be loaded" % path)
            counts["failed"] += 1
            continue
        if not found and not part:
            print("FAIL %s holds no test" % path)
            counts["failed"] += 1
        cases += found
    with tempfile.TemporaryDirectory(prefix="finetuned-shared-") as directory:
        os.environ["TEST_SHARED"] = directory
        cases_run(cases, counts)
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts)
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    # Test files import this module as `harness`: one instance, so that Skipped is one class.
    sys.modules["harness"] = sys.modules["__main__"]
    sys.exit(main(sys.argv[1:]))
