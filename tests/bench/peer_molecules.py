"""RDKit's side of the molecules benchmark: the same features of the same molecules, written to the same layout.

peer_molecules.py table FILE OUT      a table with the columns smiles and inchikey
peer_molecules.py massbank FILE OUT   MassBank records of [M+H]+ (unpacked), each molecule built once

Features of a batch of molecules are made with numpy at once, which is several times faster than an atom at a time.
Molecules go to train or validation by a hash of their key's first block (of the whole InChI where that is the key: this
RDKit makes no InChIKey), in the source's order. Prints {"molecules", "seconds", "cpu_seconds"}, imports not counted.
"""
import json
import sys
import time
import zlib

import h5py
import numpy
from rdkit import Chem, RDLogger
from rdkit.Chem import rdMolDescriptors

ELEMENTS = [1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53]
ELEMENT_OF = numpy.full(128, len(ELEMENTS))
ELEMENT_OF[ELEMENTS] = range(len(ELEMENTS))
ORDER_OF = {1: 0, 2: 1, 3: 2, 12: 3}
BATCH, BINS = 256, 1000
VALIDATION = 0.1


def atoms_and_bonds(smiles):
    """Plain tuples; None for what RDKit refuses."""
    m = Chem.MolFromSmiles(smiles)
    if m is None:
        return None
    atoms = [(a.GetAtomicNum(), a.GetDegree(), a.GetFormalCharge(), a.GetTotalNumHs(), a.GetIsAromatic(), a.IsInRing(),
              a.GetIsotope()) for a in m.GetAtoms()]
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), ORDER_OF.get(int(b.GetBondType()), 0), b.IsInRing())
             for b in m.GetBonds()]
    return atoms, bonds, rdMolDescriptors.CalcExactMolWt(m), len(Chem.GetMolFrags(m))


def nodes_of(atoms):
    a, rows = numpy.array(atoms), numpy.arange(len(atoms))
    x = numpy.zeros((len(a), 33), numpy.uint8)
    x[rows, ELEMENT_OF[a[:, 0]]] = 1
    x[rows, 14 + numpy.minimum(a[:, 1], 5)] = 1
    x[rows, 22 + numpy.clip(a[:, 2], -2, 2)] = 1
    x[rows, 25 + numpy.minimum(a[:, 3], 4)] = 1
    x[:, 30:32] = a[:, 4:6]
    x[:, 32] = a[:, 6] != 0
    return a, x


def edges_of(bonds):
    b = numpy.array(bonds, numpy.int64).reshape(-1, 4)
    f = numpy.zeros((len(b), 5), numpy.uint8)
    f[numpy.arange(len(b)), b[:, 2]] = 1
    f[:, 4] = b[:, 3]
    index = numpy.stack([b[:, :2].reshape(-1), b[:, 1::-1].reshape(-1)]).astype(numpy.uint16)
    return index, numpy.repeat(f, 2, axis=0)


class Group:
    """What belongs to one part; appended a batch at a time."""

    def __init__(self, group, targets):
        self.file, self.rows, self.batch = group, [], []
        self.pointers = {"node_ptr": [0], "edge_ptr": [0]}
        for name, shape, kind in (("node_features", (0, 33), "u1"), ("edge_index", (2, 0), "u2"),
                                  ("edge_features", (0, 5), "u1"), ("targets", (0, targets), "f4")):
            chunk = tuple(n or (64 if name == "targets" else 8192) for n in shape)
            self.file.create_dataset(name, shape, kind, maxshape=tuple(n or None for n in shape), chunks=chunk,
                                     compression=1, shuffle=True)

    def append(self, name, data):
        s, axis = self.file[name], int(name == "edge_index")
        s.resize(s.shape[axis] + data.shape[axis], axis)
        s[(slice(None),) * axis + (slice(-data.shape[axis], None),)] = data

    def add(self, row, graph, target=None):
        self.batch.append((graph, target))
        self.rows.append(row)
        if len(self.batch) == BATCH:
            self.flush()

    def flush(self):
        if not self.batch:
            return
        graphs = [g for g, _ in self.batch]
        a, x = nodes_of([atom for g in graphs for atom in g[0]])
        index, f = edges_of([bond for g in graphs for bond in g[1]])
        n, e = numpy.array([len(g[0]) for g in graphs]), numpy.array([len(g[1]) for g in graphs])
        for name, counts in (("node_ptr", n), ("edge_ptr", 2 * e)):
            p = self.pointers[name]
            p.extend((p[-1] + numpy.cumsum(counts)).tolist())
        if self.batch[0][1] is None:
            start = numpy.cumsum(n) - n
            hetero, aromatic, hydrogens = (numpy.add.reduceat(v.astype(int), start) / n for v in (
                (a[:, 0] != 1) & (a[:, 0] != 6), a[:, 4], a[:, 3]))
            target = numpy.stack([numpy.log10([g[2] for g in graphs]), e - n + [g[3] for g in graphs],
                                  hetero, aromatic, hydrogens], 1)
        else:
            target = numpy.stack([t for _, t in self.batch])
        for name, data in (("node_features", x), ("edge_index", index), ("edge_features", f),
                           ("targets", target.astype("f4"))):
            self.append(name, data)
        self.batch = []

    def close(self):
        self.flush()
        for name, p in self.pointers.items():
            self.file.create_dataset(name, data=numpy.array(p, "u8"), compression=1, shuffle=True)
        self.file.create_dataset("source_row", data=numpy.array(self.rows, "u8"), compression=1, shuffle=True)


class Writer:
    def __init__(self, path, targets):
        self.file = h5py.File(path, "w")
        self.parts = [Group(self.file.create_group(name), targets) for name in ("train", "validation")]

    def add(self, key, row, graph, target=None):
        block = key if key.startswith("InChI=") else key[:14]
        self.parts[zlib.crc32(block.encode()) < VALIDATION * 2 ** 32].add(row, graph, target)

    def close(self):
        for part in self.parts:
            part.close()
        self.file.close()
        return sum(len(part.rows) for part in self.parts)


def table(path, out):
    w = Writer(out, 5)
    with open(path) as f:
        for row, line in enumerate(f.read().splitlines()[1:]):
            smiles, key = line.split("\t")[:2]
            graph = atoms_and_bonds(smiles)
            if graph:
                w.add(key, row, graph)
    return w.close()


def massbank(path, out):
    w, built, row, smiles, key, adduct, peaks = Writer(out, BINS), {}, 0, "", "", "", []
    with open(path) as f:
        for line in f:
            if line[0] == " ":
                peaks.append(line)
            elif line.startswith("CH$SMILES: "):
                smiles = line[11:].rstrip()
            elif line.startswith("CH$LINK: INCHIKEY "):
                key = line[18:].rstrip()
            elif line.startswith(("MS$FOCUSED_ION: PRECURSOR_TYPE ", "MS$FOCUSED_ION: ION_TYPE ")):
                adduct = line.split()[-1]
            elif line.startswith("PK$PEAK"):
                peaks = []
            elif line.startswith("//"):
                if smiles not in built:
                    built[smiles] = atoms_and_bonds(smiles)
                mz, intensity = numpy.array([p.split()[:2] for p in peaks], float).T
                bins = numpy.bincount(mz[mz < BINS].astype(int), intensity[mz < BINS], minlength=BINS)
                if adduct == "[M+H]+" and built[smiles] and bins.max() > 0:
                    w.add(key, row, built[smiles], numpy.sqrt(bins / bins.max()))
                row, smiles, key, adduct = row + 1, "", "", ""
    return w.close()


def main():
    RDLogger.DisableLog("rdApp.*")
    wall, cpu = time.perf_counter(), time.process_time()
    molecules = {"table": table, "massbank": massbank}[sys.argv[1]](sys.argv[2], sys.argv[3])
    print(json.dumps({"molecules": molecules, "seconds": time.perf_counter() - wall,
                      "cpu_seconds": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
