"""`prepare molecules` beside RDKit: the same graphs of the same molecules."""
import os
import statistics
import subprocess
import sys
import tempfile

import numpy

from bench_base import HERE, PROBE, PYTHON, SHARED, children_cpu_s, output_of, record

PARTS = ("train/", "validation/")
HMDB = "/usr/share/openms/CHEMISTRY/HMDB2StructMapping.tsv"


def molecules_sources(directory):
    """{name: (kind of source, file, settings for us)}: records, and tables of molecules that differ."""
    sources = {}
    packed, records = os.path.join(SHARED, "massbank/massbank_mh.txt.zst"), os.path.join(directory, "records.txt")
    if os.path.exists(packed):
        subprocess.run(["zstd", "-q", "-d", "--long=27", packed, "-o", records], check=True)
        smiles, pairs = "", {}
        with open(records) as f:
            for line in f:
                if line.startswith("CH$SMILES: "):
                    smiles = line[11:].rstrip()
                elif line.startswith("CH$LINK: INCHIKEY "):
                    pairs.setdefault(smiles, line[18:].rstrip())
        sources["massbank-records"] = ("massbank", records, [])
        sources["massbank-distinct"] = molecules_table(directory, "distinct.tsv", pairs.items())
    if os.path.exists(HMDB):
        with open(HMDB) as f:
            rows = [line.rstrip("\n").split("\t")[2:4] for line in f][::23]
        sources["hmdb"] = molecules_table(directory, "hmdb.tsv", rows)
    return sources


def molecules_table(directory, name, rows):
    path = os.path.join(directory, name)
    with open(path, "w") as f:
        f.writelines("%s\t%s\n" % tuple(r) for r in [("smiles", "inchikey"), *rows])
    return "table", path, ["--set", "prepare.inchikey=inchikey"]


def molecules_ours(source, out, settings):
    config = out + ".yaml"
    with open(config, "w") as f:
        f.write("data: {prepare: molecules, source: %s, file: %s}\n" % (source, out) +
                "model: {layers: [{type: relu}]}\ntasks: [{name: A}]\n")
    cpu = children_cpu_s()
    subprocess.run([os.path.join(os.path.dirname(PROBE), "prepare"), "molecules", "--config", config, "--out", out,
                    "--rebuild", *settings], check=True, stderr=subprocess.DEVNULL)
    return {"cpu_seconds": children_cpu_s() - cpu}


def molecules_sums(path, groups):
    """{row of the source: sums of the columns of its atoms, and of its edges}."""
    import h5py
    found = {}
    with h5py.File(path) as f:
        for g in groups:
            sums = []
            for features, pointer in (("node_features", "node_ptr"), ("edge_features", "edge_ptr")):
                total = numpy.cumsum(f[g + features][:].astype(numpy.int64), axis=0)
                total = numpy.concatenate([numpy.zeros((1, total.shape[1]), numpy.int64), total])
                sums.append(numpy.diff(total[f[g + pointer][:].astype(numpy.int64)], axis=0))
            nodes, edges = sums
            found.update(zip(f[g + "source_row"][:].tolist(),
                             numpy.concatenate([nodes[:, :33], edges], axis=1)))
    return found


def molecules_compare(ours, peer):
    """How many molecules have the same atoms, bonds, elements and aromatic atoms; exits under 99 %."""
    a, b = molecules_sums(ours, PARTS), molecules_sums(peer, PARTS)
    both = sorted(set(a) & set(b))
    a, b, every = numpy.array([a[r] for r in both]), numpy.array([b[r] for r in both]), len(set(a) | set(b))
    parts = {"elements": slice(0, 14), "aromatic": slice(30, 31), "bonds": slice(33, 37), "charge": slice(20, 25),
             "hydrogens": slice(25, 30)}
    same = {n: (a[:, s] == b[:, s]).all(1) for n, s in parts.items()}
    agreed = int((same["elements"] & same["aromatic"] & same["bonds"]).sum())
    if agreed < 0.99 * every:
        sys.exit("molecules: only %d of %d are the same" % (agreed, every))
    return "%d of %d alike in elements, bonds, aromatic atoms; refused by one %d; different: %s" % (
        agreed, every, every - len(both), ", ".join("%s %d" % (n, (~v).sum()) for n, v in same.items()))


def bench_molecules(runs):
    """Differences are models, not mistakes: five-bonded nitrogen, which RDKit makes charged; the bond that two fused
    rings share, which RDKit leaves single where only the outer cycle is aromatic; three odd aromatic systems."""
    with tempfile.TemporaryDirectory() as directory:
        for name, (kind, source, settings) in molecules_sources(directory).items():
            ours, peer = os.path.join(directory, name + ".h5"), os.path.join(directory, name + "-peer.h5")
            mine, theirs = [], []
            for _ in range(runs):
                mine.append(molecules_ours(source, ours, settings))
                theirs.append(output_of(PYTHON, os.path.join(HERE, "peer_molecules.py"), kind, source, peer))
            compared, count = molecules_compare(ours, peer), theirs[0]["molecules"]
            record("molecules-%s-cpu" % name, "CPU us a molecule; RDKit, numpy and h5py", *(
                statistics.median(t["cpu_seconds"] for t in side) / count * 1e6 for side in (mine, theirs)), 5.0,
                compared)
            record("molecules-%s-size" % name, "MB for 300,000 of them", os.path.getsize(ours) / count * 0.3, None, None,
                   compared, smaller_bar=2000)
