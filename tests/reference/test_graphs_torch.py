"""Models of graphs against PyTorch in float64, as test_layers_torch.py does for the others. The convolution is written
down from PyTorch Geometric's GCNConv: a list of edges with the remaining self loops, normalised by the degrees of
targets, messages added up by index_add."""
import numpy as np

from harness import limit
from test_engine_torch import probe, torch
from test_layers_torch import ROWS, data_compare, needs_torch, values, weights_set


class Graphs:
    """Graphs of 1 to 12 nodes and 0 to 30 edges, some twice, some from a node to itself; a slice is a batch."""

    def __init__(self, inputs, edge_values, seed=7):
        random = np.random.default_rng(seed)
        nodes, edges = random.integers(1, 13, ROWS), random.integers(0, 31, ROWS)
        self.node_ptr, self.edge_ptr = (np.concatenate([[0], np.cumsum(n)]) for n in (nodes, edges))
        self.x = random.normal(size=(self.node_ptr[-1], inputs)).astype(np.float32)
        self.ends = np.stack([random.integers(0, np.repeat(nodes, edges)) for _ in range(2)])
        self.features = random.normal(size=(self.edge_ptr[-1], edge_values)).astype(np.float32)
        assert (self.ends[0] == self.ends[1]).sum() > 50

    def write(self):
        self.x.tofile("features")
        for name, a in (("node_ptr.u64", self.node_ptr), ("edge_ptr.u64", self.edge_ptr)):
            a.astype(np.uint64).tofile(name)
        for name, a in zip(("sources.u32", "ends.u32"), self.ends):
            a.astype(np.uint32).tofile(name)
        self.features.tofile("edges.f32")

    def __getitem__(self, rows):
        a, b, _ = rows.indices(ROWS)
        n, e = slice(self.node_ptr[a], self.node_ptr[b]), slice(self.edge_ptr[a], self.edge_ptr[b])
        counts, edges = np.diff(self.node_ptr[a:b + 1]), np.diff(self.edge_ptr[a:b + 1])
        shift = np.repeat(self.node_ptr[a:b] - self.node_ptr[a], edges)
        batch = torch.tensor(np.repeat(np.arange(b - a), counts))
        return State(torch.tensor(self.x[n]).double(), torch.tensor(self.ends[:, e] + shift),
                     torch.tensor(self.features[e]).double(), batch, b - a)


if torch is not None:
    class State:
        """A batch on its way through the layers: x is of the nodes until a pool."""

        def __init__(self, x, ends, features, batch, graphs):
            self.x, self.ends, self.features, self.batch, self.graphs = x, ends, features, batch, graphs
            loops = torch.arange(len(x)).repeat(2, 1)
            stored = ends[0] == ends[1]
            self.all = torch.cat([ends[:, ~stored], loops], 1)
            degree = torch.zeros(len(x)).double().index_add(0, self.all[1], torch.ones(self.all.shape[1]).double())
            root = degree ** -0.5
            self.norm = root[self.all[0]] * root[self.all[1]]
            self.edge_norm = root[ends[0]] * root[ends[1]]

        def to(self, x):
            self.x = x
            return self

    class GCN(torch.nn.Module):
        def __init__(self, inputs, out, residual=False, edges=0):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(out, inputs))
            self.bias = torch.nn.Parameter(torch.zeros(out))
            self.edge_weight = torch.nn.Parameter(torch.zeros(out, edges)) if edges else None
            self.residual = residual

        def forward(self, s):
            h = s.x @ self.weight.T
            y = torch.zeros_like(h).index_add(0, s.all[1], s.norm[:, None] * h[s.all[0]]) + self.bias
            if self.edge_weight is not None:
                y = y.index_add(0, s.ends[1], s.edge_norm[:, None] * (s.features @ self.edge_weight.T))
            return s.to(y + s.x if self.residual else y)

    class OfX(torch.nn.Module):
        """A layer of nodes or of vectors."""

        def __init__(self, inside):
            super().__init__()
            self.inside = inside

        def forward(self, s):
            return s.to(self.inside(s.x))

    class Readout(torch.nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind = kind

        def forward(self, s):
            total = torch.zeros(s.graphs, s.x.shape[1]).double().index_add(0, s.batch, s.x)
            count = torch.bincount(s.batch, minlength=s.graphs)[:, None]
            if self.kind == "max":
                return s.to(torch.stack([s.x[s.batch == g].max(0)[0] for g in range(s.graphs)]))
            return s.to({"sum": total, "mean": total / count, "mean_sum": torch.cat([total / count, total], 1)}[self.kind])

    class Last(torch.nn.Module):
        def forward(self, s):
            return s.x


def graphs_open(lines, layers, loss_name, targets, inputs, edge_values):
    """Files of a case: the network with the engine's fresh weights, graphs and targets."""
    torch.set_num_threads(1)
    graphs = Graphs(inputs, edge_values)
    graphs.write()
    y = targets(np.random.default_rng(4), ROWS)
    y.tofile("targets." + ("u8" if y.dtype == np.uint8 else "f32"))
    with open("model.txt", "w") as f:
        f.write("graphs inputs=%d edge_inputs=%d loss=%s\n%s" % (inputs, edge_values, loss_name, "\n".join(lines)))
    probe("init", "seed=5")
    net = torch.nn.Sequential(*[n if isinstance(n, (GCN, Readout)) else OfX(n) for n in layers], Last()).double()
    weights_set(net)
    return net, graphs, torch.tensor(y if y.dtype == np.uint8 else y.astype(np.float64))


def graphs_compare(lines, layers, loss_name, loss, targets, inputs, edge_values=0):
    net, graphs, y = graphs_open(lines, layers, loss_name, targets, inputs, edge_values)
    data_compare(net, loss, graphs, y)


@limit(200)
def test_convolutions_and_readouts():
    needs_torch()
    nn = torch.nn
    squared = ("mean_squared_error", nn.MSELoss(), values(3))
    for lines, layers, edge_values in (
            (("gcn out=9", "relu", "gcn out=9 residual=true", "relu", "pool kind=mean", "linear out=3"),
             [GCN(6, 9), nn.ReLU(), GCN(9, 9, True), nn.ReLU(), Readout("mean"), nn.Linear(9, 3)], 0),
            (("gcn out=5 edges=true", "tanh", "gcn out=7 edges=true", "pool kind=sum", "linear out=3"),
             [GCN(6, 5, edges=4), nn.Tanh(), GCN(5, 7, edges=4), Readout("sum"), nn.Linear(7, 3)], 4),
            (("linear out=8", "layernorm", "gcn out=8 residual=true edges=true", "gelu", "pool kind=mean_sum", "linear out=3"),
             [nn.Linear(6, 8), nn.LayerNorm(8), GCN(8, 8, True, 2), nn.GELU(), Readout("mean_sum"), nn.Linear(16, 3)], 2),
            (("gcn out=8", "gelu", "batchnorm", "gcn out=8 residual=true", "tanh", "batchnorm", "pool kind=sum", "linear out=3"),
             [GCN(6, 8), nn.GELU(), nn.BatchNorm1d(8), GCN(8, 8, True), nn.Tanh(), nn.BatchNorm1d(8), Readout("sum"),
              nn.Linear(8, 3)], 0),
            (("gcn out=70", "sigmoid", "pool kind=max", "linear out=3"),
             [GCN(6, 70), nn.Sigmoid(), Readout("max"), nn.Linear(70, 3)], 0)):
        graphs_compare(lines, layers, *squared, 6, edge_values)


@limit(200)
def test_losses_of_graphs():
    """Spectra by their cosine, as molecules are trained, and a class a graph."""
    needs_torch()
    nn, F = torch.nn, torch.nn.functional

    def cosine(z, y):
        return (1 - F.cosine_similarity(z, y)).mean()
    layers = [GCN(5, 12), nn.ReLU(), GCN(12, 12, True), nn.ReLU(), Readout("mean"), nn.Linear(12, 6)]
    lines = ("gcn out=12", "relu", "gcn out=12 residual=true", "relu", "pool kind=mean", "linear out=6")
    graphs_compare(lines, layers, "cosine", cosine, values(6, 0), 5)

    def classes(random, rows):
        return random.integers(0, 6, rows).astype(np.uint8)
    graphs_compare(lines, layers, "softmax_cross_entropy", lambda z, y: F.cross_entropy(z, y.long()), classes, 5)
