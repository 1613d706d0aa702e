"""`prepare molecules` on measured data: counts, no molecule in both parts, records checked by hand; damaged sources."""
import importlib.util
import os
import re
import subprocess

import h5py
import numpy

from harness import limit, skip
from runs import ROOT

PREPARE = os.path.join(ROOT, "build/release/bin/prepare")
FINETUNE = os.path.join(ROOT, "pipelines/finetune.sh")
MASSBANK = os.path.join(os.path.dirname(ROOT), "shared/data/massbank/massbank_mh.txt.zst")
WEHI = "/usr/share/RDKit/Data/Pains/test_data/wehi_mols.csv"
HMDB = "/usr/share/openms/CHEMISTRY/HMDB2StructMapping.tsv"
PARTS = ("train", "validation")


def pipeline(source, prepare=""):
    if "no chemistry library" in subprocess.run([PREPARE, "molecules", "--help"], capture_output=True, text=True).stderr:
        skip("this system has no libopenbabel-dev")
    with open("mine.yaml", "w") as f:
        f.write("name: mine\ndata: {prepare: molecules, source: %s, file: %s}\nprepare: {%s}\n" %
                (os.path.abspath(source), os.path.abspath("m.h5"), prepare) +
                "model: {loss: mean_squared_error, layers: [{type: pool, kind: mean}, {type: linear, out: 5}]}\ntasks: [{name: A}]\n")


def prepared(source, prepare="", code=0):
    """What `prepare molecules` says."""
    pipeline(source, prepare)
    out = subprocess.run([PREPARE, "molecules", "--config", "mine.yaml", "--out", "m.h5"], capture_output=True,
                         text=True, timeout=560)
    assert out.returncode == code, out
    return out.stderr


class Graph:
    """The graph made of one row of the source."""

    def __init__(self, f, row):
        part, = [p for p in PARTS if row in f[p + "/source_row"][:]]
        g = f[part]
        i = int(numpy.flatnonzero(g["source_row"][:] == row)[0])
        (n, m), (a, b) = g["node_ptr"][i:i + 2], g["edge_ptr"][i:i + 2]
        self.part, self.nodes, self.edges = part, g["node_features"][n:m], g["edge_features"][a:b]
        self.index, self.targets = g["edge_index"][:, a:b], g["targets"][i]
        self.names = names(f, "node_feature_names")

    def count(self, feature):
        return int(self.nodes[:, self.names.index(feature)].sum())


def names(f, attribute):
    text = f.attrs[attribute]
    return (text.decode() if isinstance(text, bytes) else text).split("\n")


def layout_check(f):
    """The pointers cut all of the data; edges stay inside their graph and come in pairs."""
    for part in PARTS:
        g = f[part]
        n, e = g["node_ptr"][:].astype(int), g["edge_ptr"][:].astype(int)
        assert n[0] == e[0] == 0 and (numpy.diff(n) > 0).all() and (numpy.diff(e) >= 0).all()
        assert n[-1] == len(g["node_features"]) and e[-1] == g["edge_index"].shape[1] == len(g["edge_features"])
        assert len(n) == len(e) == len(g["targets"]) + 1 == len(g["source_row"]) + 1
        index, size = g["edge_index"][:], numpy.repeat(numpy.diff(n), numpy.diff(e))
        assert (index < size).all() and (index[0] != index[1]).all()
        assert (index[0, ::2] == index[1, 1::2]).all() and (index[1, ::2] == index[0, 1::2]).all()
        assert (g["edge_features"][::2] == g["edge_features"][1::2]).all()
        for first, last in ((0, 14), (14, 20), (20, 25), (25, 30)):  # one of each kind is 1
            assert (g["node_features"][:, first:last].sum(1) == 1).all()
        # Bonds of an atom, counted by themselves, are what its columns say.
        degree = numpy.bincount(numpy.repeat(n[:-1], numpy.diff(e)) + index[0], minlength=n[-1])
        assert (g["node_features"][:, 14:20].argmax(1) == numpy.minimum(degree, 5)).all()


def parts_of(f, blocks):
    """{first block of the InChIKey: parts where it is}, for the rows of `blocks`."""
    found = {}
    for part in PARTS:
        for row in f[part + "/source_row"][:].tolist():
            if blocks[row]:
                found.setdefault(blocks[row], set()).add(part)
    return found


@limit(300)
def test_massbank_becomes_graphs_with_spectra():
    if not os.path.exists(MASSBANK):
        skip("no MassBank records in ../shared/data")
    said = prepared(MASSBANK)
    assert "skipped_no_peak: 1" in said and "refused" not in said, said
    text = subprocess.run(["zstd", "-q", "-d", "--long=27", "-c", MASSBANK], capture_output=True, check=True).stdout
    records = text.decode().split("//\n")[:-1]
    assert len(records) == 42568
    blocks = [r.split("CH$LINK: INCHIKEY ")[1][:14] if "CH$LINK: INCHIKEY " in r else "" for r in records]
    with h5py.File("m.h5") as f:
        layout_check(f)
        counts = [len(f[p + "/source_row"]) for p in PARTS]
        assert sum(counts) == 42567 and f.attrs["skipped_no_peak"] == 1, counts
        parts = parts_of(f, blocks)
        assert len(parts) == 3215 and all(len(p) == 1 for p in parts.values())
        share = sum(p == {"validation"} for p in parts.values()) / len(parts)
        assert 0.08 < share < 0.12, share
        for part in PARTS:
            top = f[part + "/targets"][:].max(1)
            assert (top == 1).all()
        equol_check(f)
        hexyl_check(f, [i for i, r in enumerate(records) if "ACCESSION: MSBNK-Antwerp_Univ-AN111604\n" in r][0])


def equol_check(f):
    """The first record: OC1=CC=C(C=C1)C2COC3=CC(O)=CC=C3C2, "Ramp 20%-70% (nominal)", 17 peaks in 15 bins."""
    g = Graph(f, 0)
    assert len(g.nodes) == 18 and g.index.shape == (2, 40)
    assert g.count("element_C") == 15 and g.count("element_O") == 3
    assert g.count("aromatic") == 12 and g.count("ring") == 16 and g.count("charge_0") == 18
    assert sum(k * g.count("hydrogens_%d" % k) for k in range(5)) == 14
    assert g.edges.sum(0).tolist() == [16, 0, 0, 24, 34]  # 8 single, 12 aromatic bonds; 3 bonds in no ring
    assert g.count("energy_NCE") == g.count("energy_40") == 18 and g.count("energy_eV") == 0
    wanted = {53: 65729, 55: 96545, 67: 132089, 79: 372367, 105: 1991026, 107: 2414535, 115: 121835, 121: 83678,
              123: 3633633, 133: 2786250, 137: 74817 + 69901, 149: 100718 + 106642, 213: 55102, 216: 85090, 243: 1628595}
    bins = numpy.zeros(1000)
    for k, v in wanted.items():
        bins[k] = numpy.sqrt(v / 3633633)
    assert abs(g.targets - bins).max() < 1e-6


def hexyl_check(f, row):
    """Tri-n-hexyl trimellitate, 20 eV, 11 peaks behind an annotation that is indented as they are."""
    g = Graph(f, row)
    assert g.count("element_C") == 27 and g.count("element_O") == 6 and len(g.nodes) == 33
    assert g.count("aromatic") == g.count("ring") == 6 and g.count("hydrogens_3") == 3
    assert g.count("energy_eV") == g.count("energy_20") == 33
    assert (g.targets > 0).sum() == 11 and g.targets[277] == 1
    assert abs(g.targets[463] - numpy.sqrt(283.9 / 24265)) < 1e-6


@limit(600)
def test_table_of_114107_molecules():
    """All of them with LONG=1 (a minute); else the first tenth."""
    if not os.path.exists(HMDB):
        skip("Debian's openms-common is not installed")
    with open(HMDB) as f:
        lines = f.readlines()
    assert len(lines) == 114107
    if not os.environ.get("LONG"):
        lines = lines[:len(lines) // 10]
    with open("table.tsv", "w") as f:
        f.writelines(lines)
    rows = [line.rstrip("\n").split("\t") for line in lines]
    said = prepared("table.tsv", "smiles: '2', inchikey: '3', descriptors: log_mass")
    assert "refused" not in said and "skipped" not in said, said
    with h5py.File("m.h5") as f:
        layout_check(f)
        counts = [len(f[p + "/source_row"]) for p in PARTS]
        assert sum(counts) == len(rows), counts
        assert names(f, "target_names") == ["log_mass"]
        # The main layers of an InChI, hydrogens included, are what the first block is a hash of.
        skeleton = ["/".join(part for part in r[3].split("/") if part[:1] not in "btmsip") if r[3][:6] == "InChI=" else ""
                    for r in rows]
        assert all(len(p) == 1 for p in parts_of(f, skeleton).values())
        g = Graph(f, 0)  # CN1C=NC(C[C@H](N)C(O)=O)=C1, C7H11N3O2
        assert len(g.nodes) == 12 and g.count("element_N") == 3 and g.count("aromatic") == 5
        assert abs(10 ** g.targets[0] - 169.0851) < 1e-3
        g = Graph(f, 1)  # NCCCN
        assert len(g.nodes) == 5 and g.index.tolist() == [[0, 1, 1, 2, 2, 3, 3, 4], [1, 0, 2, 1, 3, 2, 4, 3]]
        assert abs(10 ** g.targets[0] - 74.0844) < 1e-3


def fragments_by_rdkit(smiles, energy=None):
    """The bins of fragments.h, from fragments that RDKit makes; None where it reads another molecule than we do,
    or where a peak is on the border of two bins. With an energy those of ions."""
    from rdkit import Chem, RDLogger
    RDLogger.DisableLog("rdApp.*")
    molecule, table, bins = Chem.MolFromSmiles(smiles), Chem.GetPeriodicTable(), numpy.zeros(1000)
    if molecule is None or "N(=O)=O" in smiles or "O=N(=O)" in smiles:  # RDKit gives those nitrogens charges
        return None

    def mass(atoms):
        return sum(table.GetMostCommonIsotopeMass(a.GetAtomicNum()) + a.GetTotalNumHs() * 1.00782503 for a in atoms)

    borders = []

    def add(mz, intensity):
        if abs(mz - round(mz)) < 1e-4:  # where float32 and the digits of a proton decide on the bin
            borders.append(mz)
        if mz < 1000:
            bins[int(mz)] += intensity
    whole = mass(molecule.GetAtoms())
    if energy is not None:
        add(whole + 1.00727647, 64 * 2 ** (-energy / 15))
    for bond in molecule.GetBonds():
        if bond.IsInRing():
            continue
        ends, broken = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()), Chem.RWMol(molecule)
        broken.RemoveBond(*ends)
        for part in Chem.GetMolFrags(broken):
            if not set(part) & set(ends):
                continue
            mz, order = mass(molecule.GetAtomWithIdx(i) for i in part) + 1.00727647, bond.GetBondTypeAsDouble()
            if energy is None:
                add(mz, 1 / order)
            else:
                add(mz - 1.00782503, (mz - 1.00727647) / whole / order)
                add(mz + 1.00782503, (mz - 1.00727647) / whole / order / 5)
    if borders:
        return None
    return numpy.sqrt(bins / bins.max()) if bins.any() else bins


def spectra_compare(rows, taken, energies):
    compared = wrong = 0
    for row, bins in taken.items():
        wanted = fragments_by_rdkit(rows[row], energies.get(row))
        if wanted is not None:
            compared += 1
            wrong += abs(bins - wanted).max() > 1e-5
    assert compared > 0.9 * len(taken) and wrong == 0, (len(taken), compared, wrong)


@limit(120)
def test_computed_spectra_are_what_rdkit_breaks():
    """Each 40th of Debian's screening compounds and each 400th of its metabolites, at most 60 atoms each."""
    sources = [s for s in ((WEHI, ",", 0, 40), (HMDB, "\t", 2, 400)) if os.path.exists(s[0])]
    if not sources or not importlib.util.find_spec("rdkit"):
        skip("Debian's python3-rdkit, or both rdkit-data and openms-common, are not installed")
    rows = []
    for path, delimiter, column, step in sources:
        with open(path) as f:
            rows += [line.split(delimiter)[column].strip('"') for line in f][::step]
    with open("t.csv", "w") as f:
        f.writelines(row + "\n" for row in rows)
    said = prepared("t.csv", "smiles: '0', compute: fragments, atoms_max: 60")
    assert "targets: 1000 bins of computed spectra" in said, said
    with h5py.File("m.h5") as f:
        layout_check(f)
        assert f.attrs["spectra"] in ("computed", b"computed") and f.attrs["bin_da"] == 1
        taken = dict(pair for p in PARTS for pair in zip(f[p + "/source_row"][:].tolist(), f[p + "/targets"][:]))
        sizes = numpy.concatenate([numpy.diff(f[p + "/node_ptr"][:].astype(int)) for p in PARTS])
        assert sizes.max() <= 60 and f.attrs["skipped_atoms_max"] > 0 and f.attrs["skipped_no_peak"] >= 0
        assert len(taken) + sum(f.attrs[k] for k in f.attrs if k[:8] in ("skipped_", "refused_")) == len(rows)
    spectra_compare(rows, taken, {})
    said = prepared("t.csv", "smiles: '0', compute: ions, atoms_max: 40")
    assert "bins of computed spectra of ions" in said and "skipped_no_peak" not in said, said
    with h5py.File("m.h5") as f:
        layout_check(f)
        columns = names(f, "node_feature_names")
        energies, units = {}, set()
        for p in PARTS:
            first = f[p + "/node_features"][:][f[p + "/node_ptr"][:-1].astype(int)]
            classes = first[:, columns.index("energy_0"):]
            assert (classes.sum(1) == 1).all() and (first[:, columns.index("energy_plain"):].sum(1) == 2).all()
            energies.update(zip(f[p + "/source_row"][:].tolist(), (5 + 10 * classes.argmax(1)).tolist()))
            units |= set(first[:, columns.index("energy_plain"):columns.index("energy_0")].argmax(1).tolist())
        taken = dict(pair for p in PARTS for pair in zip(f[p + "/source_row"][:].tolist(), f[p + "/targets"][:]))
    assert units == {0, 1, 2} and set(energies.values()) == set(range(5, 106, 10)), (units, set(energies.values()))
    spectra_compare(rows, taken, energies)


@limit(60)
def test_so_many_rows_are_taken():
    smiles_write("t.csv")
    prepared("t.csv", "compute: fragments, rows_max: 25")
    with h5py.File("m.h5") as f:  # row 0 is CO; 20, CN, and 40, CF, are like it; no molecule here has no bond
        assert sorted(r for p in PARTS for r in f[p + "/source_row"][:].tolist()) == list(range(25))
    assert "2 graphs to train" in prepared("t.csv", "rows_max: 2, validation_fraction: 0.000001", 100)


@limit(60)
def test_each_task_has_a_table_of_its_own():
    smiles_write("t.csv")
    with open("t.csv") as f:
        rows = [line.rstrip().split(",")[::-1] for line in f][1:]
    with open("u.tsv", "w") as f:
        f.writelines("x\t%s\t%s\n" % tuple(row) for row in rows)
    pipeline("t.csv", "rows_max: 30")
    with open("mine.yaml") as f:
        text = f.read()
    with open("mine.yaml", "w") as f:
        f.write(text.replace("[{name: A}]", "[{name: A}, {name: B, source: %s, file: %s, smiles: '1', rows_max: 25}]" %
                             (os.path.abspath("u.tsv"), os.path.abspath("u.h5"))))
    said = subprocess.run([FINETUNE, "--config", "mine.yaml", "--check-data"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60)
    assert said.returncode == 0 and all("/%s\n  train/node_ptr" % n in said.stdout for n in ("m.h5", "u.h5")), said
    for name, count in (("m.h5", 30), ("u.h5", 25)):
        with h5py.File(name) as f:
            layout_check(f)
            assert sum(len(f[p + "/source_row"]) for p in PARTS) == count
    said = subprocess.run([PREPARE, "molecules", "--config", "mine.yaml", "--task", "C", "--out", "u.h5"],
                          capture_output=True, text=True)
    assert said.returncode == 100 and said.stderr.endswith(': mine.yaml has no task "C"\n'), said


def smiles_write(path, rows=60):
    with open(path, "w") as f:
        f.write("name,smiles\n" + "".join("n%d,%s%s\n" % (i, "C" * (i % 20 + 1), "ONF"[i // 20]) for i in range(rows)))


@limit(60)
def test_finetune_prepares_molecules_and_rebuilds_when_something_changed():
    smiles_write("t.csv")
    pipeline("t.csv")

    def made(*arguments):
        out = subprocess.run([FINETUNE, "--config", "mine.yaml", "--check-data", *arguments], stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, timeout=60)
        assert "prepare molecules: " in out.stderr, out
        return "up to date" not in out.stderr
    assert made()
    with h5py.File("m.h5") as f:
        layout_check(f)
        fingerprint = f.attrs["fingerprint"]
    assert not made()
    assert made("--rebuild-cache")
    assert made("--set", "prepare.descriptors=rings")
    assert made("--set", "prepare.split_seed=2")
    assert made("--set", "prepare.energy=true")
    with h5py.File("m.h5") as f:  # the columns that spectra have, empty
        assert f["train/node_features"].shape[1] == 52 and not f["train/node_features"][:, 33:].any()
        assert names(f, "node_feature_names")[33] == "energy_plain" and len(names(f, "node_feature_names")) == 52
    assert made()
    with h5py.File("m.h5") as f:
        assert f.attrs["fingerprint"] == fingerprint
    smiles_write("t.csv", 50)
    assert made()
    with h5py.File("m.h5", "a") as f:
        for part in PARTS:
            graphs = len(f[part + "/node_ptr"]) - 1
            f[part + "/w"] = numpy.ones(graphs, "f4")
            if part + "/targets" not in f:
                f[part + "/targets"] = numpy.zeros((graphs, 1), "f4")
            f[part + "/targets"][0] = numpy.nan
    words = [PREPARE, "check", "--config", "mine.yaml", "--set", "model.missing_targets=true"]
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert b"no finite float32" in subprocess.run(words[:4], capture_output=True).stderr
    with h5py.File("m.h5", "a") as f:
        f["train/w"][3] = -1
    said = subprocess.run(words + ["--set", "data.weights=w"], capture_output=True, text=True)
    assert said.returncode == 100 and "train/w has a weight in row 3 that is negative" in said.stderr, said


@limit(60)
def test_molecules_are_counted_that_have_a_graph():
    smiles_write("t.csv")
    with open("t.csv") as f:
        lines = f.read().splitlines()
    lines = ["%s,%s" % (line, "key" if i == 0 else "") for i, line in enumerate(lines)]
    lines += ["bad,C1CC,QUSNBJAOOMFDIB-UHFFFAOYSA-N", "twice,CO,"]
    with open("t.csv", "w") as f:
        f.write("\n".join(lines) + "\n")
    said = prepared("t.csv", "inchikey: key, refused_max: 0.1, validation_fraction: 0.3")
    counts = re.findall(r"(\d+) graphs of (\d+) molecules", said)
    assert [sum(int(c[k]) for c in counts) for k in (0, 1)] == [61, 60], said


@limit(60)
def test_bad_sources_get_a_sentence_and_keep_the_old_file():
    smiles_write("t.csv")
    prepared("t.csv")
    with open("m.h5", "rb") as f:
        before = f.read()

    def refused(source, *words, prepare=""):
        said = prepared(source, prepare, 100)
        assert said.count("\n") == 1 and all(w in said for w in words), (words, said)
        with open("m.h5", "rb") as f:
            assert f.read() == before, "the old file was touched"
        assert not [n for n in os.listdir(".") if ".tmp" in n]

    refused("absent.csv", "absent.csv", "No such file")
    refused("t.csv", "no column", "structure", "prepare.smiles", prepare="smiles: structure")
    refused("t.csv", "no column", "9", prepare="smiles: '9'")
    refused("t.csv", "prepare.descriptors", "colour", prepare="descriptors: colour")
    # The names are no molecules.
    refused("t.csv", "60 of 60 molecules cannot be used", "refused_max", "t.csv, line 2", prepare="smiles: name")
    with open("empty.csv", "w"):
        pass
    refused("empty.csv", "no row")
    with open("one.csv", "w") as f:
        f.write("smiles\nCCO\nOCC\n")
    refused("one.csv", "2 graphs to train with and 0", prepare="validation_fraction: 0.000001")
    with open("cut.txt", "w") as f:
        f.write("ACCESSION: X1\nCH$SMILES: CCO\n")
    refused("cut.txt", "cut.txt", "X1", "before the file does")
    subprocess.run(["zstd", "-q", "-f", "t.csv"], check=True)
    refused("t.csv.zst", "compressed")
