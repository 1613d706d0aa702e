"""The build that scripts begin by themselves: whoever comes while another compiles waits, and finds it done."""
import os
import shutil
import subprocess

from harness import limit
from runs import ROOT

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
