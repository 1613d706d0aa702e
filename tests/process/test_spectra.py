"""pipelines/molecules.yaml and then pipelines/spectra.yaml, on small tables and made-up records, the second beginning with
what the first has trained, and both learning; pipelines/fragments.yaml on two small tables."""
import os

from harness import limit
from runs import ROOT, Run, plan_check
from test_molecules import pipeline


def table_write(path):
    with open(path, "w") as f:
        for i in range(400):
            f.write("H%d\tname\t%s%s%s\t\n" % (i, "C" * (i % 17 + 1), ("N", "O", "S", "NN")[i % 4], "C" * (i // 17)))


def records_write(path):
    """A peak for each kind of end of a chain, and one for its length."""
    with open(path, "w") as f:
        for i in range(300):
            smiles = "C" * (i % 19 + 2) + ("O", "N", "S", "NN")[i % 4] + "C" * (i // 19)
            f.write("ACCESSION: T%d\nCH$SMILES: %s\nMS$FOCUSED_ION: PRECURSOR_TYPE [M+H]+\n"
                    "AC$MASS_SPECTROMETRY: COLLISION_ENERGY 20 eV\nPK$NUM_PEAK: 2\nPK$PEAK: m/z int. rel.int.\n"
                    "  %d.5 100 999\n  %d.5 50 500\n//\n" % (i, smiles, 40 + i % 4, 100 + i % 19))


def compounds_write(path):
    with open(path, "w") as f:
        for i in range(200):
            f.write('"c1ccccc1%s%s%s","W%d"\n' % ("C" * (i % 10 + 1), ("N", "O", "S", "Cl")[i % 4], "C" * (i // 10), i))


def tables(file):
    """Both tables, and the settings of a pipeline that has a task metabolites and its data for compounds."""
    table_write("table.tsv")
    compounds_write("compounds.csv")
    names = {"tasks.metabolites.source": "table.tsv", "tasks.metabolites.file": "a.h5", "data.source": "compounds.csv",
             "data.file": file}
    return ["training.threads=2", "prepare.validation_fraction=0.2", "prepare.refused_max=0.3",
            *("%s=%s" % (key, os.path.abspath(name)) for key, name in names.items())]


def run_of(name, config, settings):
    return Run(name, "--config", os.path.join(ROOT, "pipelines", config), *(w for s in settings for w in ("--set", s)))


@limit(120)
def test_spectra_begin_with_what_molecules_have_trained():
    pipeline("none")  # skips where the chemistry library is missing
    records_write("records.txt")
    first = run_of("first", "molecules.yaml", tables("b.h5")).finish()
    metabolites, compounds = first["tasks"]
    assert metabolites["metric"] == "cosine" and metabolites["after_own_training"] > 0.4 and compounds["final"] > 0.35, \
        first["tasks"]
    run = run_of("second", "spectra.yaml",
                 ["training.threads=2", "prepare.validation_fraction=0.2", "data.source=" + os.path.abspath("records.txt"),
                  "data.file=" + os.path.abspath("s.h5"),
                  "model.pretrained=" + os.path.abspath("first/checkpoints/task-compounds.h5")])
    report = run.finish()
    plan_check(report)
    task, = report["tasks"]
    assert task["metric"] == "cosine" and task["final"] > 0.3, task
    with open(run.path("report/report.md")) as f:
        text = f.read()
    assert "pretrained: 23 tensors of" in text and "fresh: none" in text, text


@limit(120)
def test_computed_spectra_are_learned_and_kept():
    """pipelines/fragments.yaml on chains: two tables with other columns, one network, one penalty."""
    pipeline("none")
    run = run_of("run", "fragments.yaml",
                 [*tables("b.h5"), "tasks.metabolites.epochs=6", "tasks.screening.epochs=10",
                  "tasks.screening-without-ewc.epochs=10", "continual_learning.ewc_config.lambda=1e5"])
    report = run.finish()
    plan_check(report)
    first, second = report["tasks"]
    assert "1000 bins of computed spectra" in run.output()
    assert first["metric"] == second["metric"] == "cosine", (first, second)
    assert first["after_own_training"] > 0.5 and second["final"] > 0.5, (first, second)
    assert first["final"] > first["final_without_ewc"] + 0.02, (first, second)
