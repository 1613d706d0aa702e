"""The graph network of pipelines/molecules.yaml with five numbers a molecule as its targets instead of spectra: what the
benchmarks train where the last layer shall be small beside the convolutions."""
import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OTHER = (("compute: ions", "energy: true"), ("atoms_max: 48", "atoms_max: 1023"), ("smiles: '0'", "smiles: '2'\n  inchikey: '3'"),
         ("out: 1000}", "out: 5}"), ("loss: cosine", "loss: huber"), ("learning_rate: 2e-3", "learning_rate: 1e-3"),
         ("metric: cosine", "metric: r2"))


def descriptors_write(path, rest):
    """The pipeline file of a table like openms-common's; `rest`: its tasks and what else it needs."""
    with open(os.path.join(ROOT, "pipelines/molecules.yaml")) as f:
        text = f.read().split("\ntasks:")[0] + "\n"
    for old, new in OTHER:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    with open(path, "w") as out:
        out.write(text + rest)
