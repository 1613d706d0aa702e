"""What scripts do by themselves before they run: packages, and the build: whoever comes while another compiles waits, and
finds it done."""
import os
import shutil
import subprocess

from harness import limit
from runs import ROOT

PIPELINES = os.path.join(ROOT, "pipelines")
MAKEFILE = "all: program\nprogram:\n\t@echo begun >>log; echo half >program; sleep 2.5; echo whole >program\n"


@limit(60)
def test_one_process_compiles_at_a_time():
    os.mkdir("pipelines")
    shutil.copy(os.path.join(ROOT, "pipelines/common.sh"), "pipelines")
    with open("Makefile", "w") as f:
        f.write(MAKEFILE)
    build = ["bash", "-c", ". pipelines/common.sh; programs_build; cat program"]
    both = [subprocess.Popen(build, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate()[0] for process in both)
    assert said[0].startswith("build: another process compiles; waiting for it\n"), said
    assert said[1].startswith("build: compiling (once)\nbuild: done in "), said
    assert all(text.endswith("\nwhole\n") for text in said), said
    with open("log") as f:
        assert f.read() == "begun\n"


@limit(60)
def test_all_packages_that_a_pipeline_needs_are_asked_for_at_once():
    """On a system that has none of them, by a user who may not install."""
    shutil.copytree(PIPELINES, "pipelines")
    for name in ("launch.sh", "fragments.yaml", "molecules.yaml"):  # where this system may have the sources
        with open(os.path.join("pipelines", name)) as f:
            text = f.read()
        with open(os.path.join("pipelines", name), "w") as f:
            f.write(text.replace("/usr/share/", "/usr/share/none/"))
    os.mkdir("bin")
    for name, text in (("dpkg-query", ""), ("apt-cache", "echo '  Candidate: 1'"), ("id", "echo 1000"),
                       ("sudo", "exit 1")):
        with open(os.path.join("bin", name), "w") as f:
            f.write("#!/bin/sh\n%s\n" % text)
        os.chmod(os.path.join("bin", name), 0o755)

    def asked(*words):
        done = subprocess.run(["pipelines/finetune.sh", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              env={**os.environ, "PATH": os.path.abspath("bin") + ":" + os.environ["PATH"]})
        assert done.returncode == 100 and "apt-get install" in done.stderr, done
        return set(done.stderr.split())
    plain = asked("--config", "pipelines/fashion.yaml")
    assert "gcc" in plain and "r-base-core" not in plain
    for words in ((), ("--config", "pipelines/molecules.yaml")):
        assert asked(*words) - plain == {"rdkit-data", "openms-common"}, words
    assert asked("--config", "pipelines/bars.yaml") - plain == {"r-base-core", "r-cran-timeseries"}
    assert asked("--config", "pipelines/bars.yaml", "--set", "data.source=mine.csv") == plain
