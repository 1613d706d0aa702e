"""make soak [SOAK_RUNS=50]: pipelines/fashion.yaml, disturbed again and again, must end with the weights of an
undisturbed run.

A script of its own, not part of tests/check.sh: each run takes some seconds. Prints a line a run and a summary;
exits 1 at the first run that differs.
"""
import os
import shutil
import sys
import tempfile

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [TESTS, os.path.join(TESTS, "process")]
from runs import STAGES  # noqa: E402
from test_kill import disturbed, undisturbed  # noqa: E402


def main():
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    total = {stage: 0 for stage in STAGES}
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        os.environ["TEST_SHARED"] = directory  # what its cases share, as under the harness
        whole = undisturbed()
        for i in range(runs):
            report, done = disturbed("run", seed + i, 4)
            total = {stage: total[stage] + done[stage] for stage in STAGES}
            same = report["weights_sha256"] == whole["weights_sha256"] and report["reproducible"]
            print("seed %d: kills %s, %.1f s, %s" % (seed + i, done, report["wall_seconds"],
                                                     "same weights" if same else "OTHER WEIGHTS"), flush=True)
            if not same:
                sys.exit(1)
            shutil.rmtree("run")
        os.chdir("/")
    print("%d runs, kills %s: the same weights each time" % (runs, total))


if __name__ == "__main__":
    main()
