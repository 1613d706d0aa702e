"""The engine against PyTorch in float64: ten AdamW steps and the per-sample Fisher information, by way of
engine_probe, on real images (Fashion-MNIST) where the package is installed, else on made-up ones.

Bars: relative L2 error of each tensor at most 1e-5, no element off by more than 1e-5 of its tensor's largest. The Fisher
information is held to both. The ten steps are held to both at eps = 1e-5, and at AdamW's default eps = 1e-8 to the
first only, because float32 does not reach the second there. Measured over initial weights of 30 seeds, not selected,
ours beside PyTorch's float32, both against PyTorch's float64:

    eps = 1e-8                           ours    PyTorch float32
    no EWC, no clipping   L2 holds       24/30   26/30
                          elements hold   0/30    0/30     (median 11 and 10 of 269,322 over 1e-5)
    EWC and clipping      L2 holds       30/30   29/30
                          elements hold   5/30    3/30     (median 3 and 2)

Elements: AdamW divides by |g| + eps, and where a gradient cancels to about eps, rounding its terms (1e-10 here) shows
in the step. An eps of 1e-5 keeps lr 1e-10 / eps 30 times under the bar. L2: all misses are runs in which the input of a
relu comes within 2e-7 of zero, so that rounding decides its side. So the initial weights are those of the first seed
with which the reference alone, which knows nothing of our result, keeps all such inputs further away than 1e-6."""
import gzip
import json
import os
import subprocess

from harness import limit, skip

try:
    import numpy as np
    import torch
except ImportError:
    np = torch = None

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROBE = os.environ.get("ENGINE_PROBE", os.path.join(ROOT, "build/release/bin/engine_probe"))
IMAGES = "/usr/share/datasets/fashion-mnist/train-%s-idx%d-ubyte.gz"
WIDTHS = [784, 256, 256, 10]
MODEL = ("inputs=784 loss=softmax_cross_entropy\n"
         "linear out=256\nrelu\nlinear out=256\nrelu\nlinear out=10\n")
BATCH, STEPS, LAMBDA, BAR, MARGIN = 128, 10, 2000.0, 1e-5, 1e-6
# Not the bar of 1e-5, which float32 misses here: largest element, and how many may be over 1e-5.
DEFAULT_EPS = (1e-3, 60)
ADAMW = {"lr": 1e-3, "weight_decay": 1e-2, "betas": (0.9, 0.999)}


def images(rows):
    """uint8 [rows, 784] and their classes."""
    if not os.path.exists(IMAGES % ("images", 3)):
        random = np.random.default_rng(3)
        x = random.integers(0, 256, (rows, 784)) * (random.random((rows, 784)) < 0.5)
        return x.astype(np.uint8), random.integers(0, 10, rows).astype(np.uint8)
    with gzip.open(IMAGES % ("images", 3)) as f:
        x = np.frombuffer(f.read(16 + rows * 784)[16:], np.uint8).reshape(rows, 784)
    with gzip.open(IMAGES % ("labels", 1)) as f:
        y = np.frombuffer(f.read(8 + rows)[8:], np.uint8)
    return x, y


def probe(mode, *settings):
    """Run engine_probe in the current directory."""
    done = subprocess.run([PROBE, mode, "."] + list(settings), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def case_open(rows):
    """Files of a case in the current directory; the features as the engine sees them, float32 / 255."""
    if torch is None:
        skip("python3-torch and python3-numpy are not installed")
    torch.set_num_threads(1)
    x, y = images(rows)
    x.tofile("features")
    y.tofile("targets.u8")
    with open("model.txt", "w") as f:
        f.write(MODEL)
    probe("init", "seed=5")
    return (x.astype(np.float64) * (1 / 255)).astype(np.float32), torch.tensor(y.astype(np.int64))


def vector_split(flat, dtype):
    """The flat vector as the six tensors."""
    tensors, at = [], 0
    for i in range(3):
        for shape in ((WIDTHS[i + 1], WIDTHS[i]), (WIDTHS[i + 1],)):
            count = int(np.prod(shape))
            tensors.append(torch.tensor(flat[at:at + count].reshape(shape)).to(dtype))
            at += count
    assert at == len(flat)
    return tensors


def vector_read(name, dtype):
    return vector_split(np.fromfile(name, np.float32), dtype)


def net_open(dtype):
    net = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256),
                              torch.nn.ReLU(), torch.nn.Linear(256, 10)).to(dtype)
    for p, w in zip(net.parameters(), vector_read("weights.f32", dtype)):
        p.data.copy_(w)
    return net


class Margin:
    """The least distance from zero of any relu's input."""

    def __init__(self, net):
        self.least = float("inf")
        for i in (1, 3):
            net[i].register_forward_pre_hook(self.note)

    def note(self, _, inputs):
        self.least = min(self.least, float(inputs[0].abs().min()))


def torch_train(x, y, dtype, eps, ewc, clip):
    """Parameters after STEPS steps, the log of steps, and the margin of the relus."""
    net = net_open(dtype)
    margin = Margin(net)
    optimizer = torch.optim.AdamW(net.parameters(), eps=eps, **ADAMW)
    term = list(zip(vector_read("fisher.f32", dtype), vector_read("star.f32", dtype))) if ewc else []
    x, log = torch.tensor(x).to(dtype), []
    for k in range(STEPS):
        rows = slice(k * BATCH, (k + 1) * BATCH)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x[rows]), y[rows])
        penalty = sum((LAMBDA / 2 * f * (p - s) ** 2).sum() for p, (f, s) in zip(net.parameters(), term))
        (loss + penalty).backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), clip or 1e30)
        optimizer.step()
        log.append((float(loss), float(penalty), float(norm)))
    return [p.detach().double() for p in net.parameters()], np.array(log), margin.least


def tensors_compare(ours, reference, what, element_bar=BAR):
    """Both bars, for every tensor; the number of elements over BAR."""
    over = 0
    for i, (a, b) in enumerate(zip(ours, reference)):
        l2 = float((a.double() - b).norm() / b.norm())
        off = (a.double() - b).abs() / b.abs().max()
        over += int((off > BAR).sum())
        print(f"{what} tensor {i}: relative L2 {l2:.2e}, largest element {float(off.max()):.2e}")
        assert l2 <= BAR, (what, i, l2)
        assert float(off.max()) <= element_bar, (what, i, float(off.max()))
    print(f"{what}: {over} elements over {BAR}")
    return over


def reference_find(x, y, eps, ewc, clip):
    """torch_train in float64 from the first seed whose relus keep their distance from zero."""
    for seed in range(1, 200):
        probe("init", f"seed={seed}")
        if ewc:
            random, weights = np.random.default_rng(1), np.fromfile("weights.f32", np.float32)
            (random.random(weights.size) ** 4 * 1e-3).astype(np.float32).tofile("fisher.f32")
            (weights + random.normal(size=weights.size) * 0.01).astype(np.float32).tofile("star.f32")
        reference, log, margin = torch_train(x, y, torch.float64, eps, ewc, clip)
        if margin > MARGIN:
            return reference, log
    raise AssertionError("no seed keeps the relus away from zero")


def steps_compare(eps, ewc, clip, element_bar, over_max):
    x, y = case_open(BATCH * STEPS)
    reference, log = reference_find(x, y, eps, ewc, clip)
    for threads in (1, 2):
        probe("train", f"threads={threads}", f"steps={STEPS}", f"batch={BATCH}", f"eps={eps}",
              f"clip={clip}", f"lambda={LAMBDA}")
        over = tensors_compare(vector_read("trained.f32", torch.float64), reference, "ours", element_bar)
        assert over <= over_max, over
        ours = np.fromfile("steps.f64").reshape(STEPS, 3)
        assert np.allclose(ours, log, rtol=2e-6, atol=1e-9), (ours, log)


@limit(120)
def test_ten_steps_well_conditioned():
    steps_compare(1e-5, False, 0, BAR, 0)


@limit(120)
def test_ten_steps_well_conditioned_with_ewc_and_clipping():
    steps_compare(1e-5, True, 1.0, BAR, 0)


@limit(120)
def test_ten_steps_at_the_default_eps():
    steps_compare(1e-8, False, 0, *DEFAULT_EPS)


@limit(120)
def test_ten_steps_at_the_default_eps_with_ewc_and_clipping():
    steps_compare(1e-8, True, 1.0, *DEFAULT_EPS)


def fisher_by_formula(x, y):
    """Sum over samples of the squared gradient in float64: (delta^2)^T (x^2), a layer at a time."""
    w = [t.numpy() for t in vector_read("weights.f32", torch.float64)]
    inputs, sums = [x.astype(np.float64)], [None] * 6
    for i in range(3):
        z = inputs[i] @ w[2 * i].T + w[2 * i + 1]
        inputs.append(np.maximum(z, 0))
    delta = np.exp(z - z.max(1, keepdims=True))
    delta /= delta.sum(1, keepdims=True)
    delta[np.arange(len(y)), y.numpy()] -= 1
    for i in (2, 1, 0):
        sums[2 * i], sums[2 * i + 1] = (delta ** 2).T @ inputs[i] ** 2, (delta ** 2).sum(0)
        delta = delta @ w[2 * i] * (inputs[i] > 0)
    return [torch.tensor(s) for s in sums]


def fisher_by_loop(x, y):
    """The same the plain way: one sample, one backward."""
    net = net_open(torch.float64)
    sums = [torch.zeros_like(p) for p in net.parameters()]
    x = torch.tensor(x).double()
    for i in range(len(y)):
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(x[i:i + 1]), y[i:i + 1]).backward()
        for s, p in zip(sums, net.parameters()):
            s += p.grad ** 2
    return sums


def fisher_compare(reference, *settings):
    probe("fisher", *settings)
    ours = vector_read("fisher_sums.f32", torch.float64)
    tensors_compare(ours, reference, "Fisher")
    return np.fromfile("fisher_sums.f32", np.float32)


@limit(120)
def test_fisher_of_64_samples_against_a_batch_1_loop():
    x, y = case_open(64)
    loop, formula = fisher_by_loop(x, y), fisher_by_formula(x, y)
    for a, b in zip(loop, formula):
        assert float((a - b).norm() / a.norm()) < 1e-12
    fisher_compare(loop)


@limit(120)
def test_fisher_of_4096_samples():
    x, y = case_open(4096)
    reference = fisher_by_formula(x, y)
    whole = fisher_compare(reference, "threads=1", "batch=256")
    blocks = fisher_compare(reference, "threads=2", "batch=256", "block=50001")
    assert np.array_equal(whole, blocks)


@limit(120)
def test_factored_fisher_of_images():
    """Row and column sums are the exact ones, and how far their product is off, on real images and fresh weights."""
    x, y = case_open(1024)
    exact = fisher_by_formula(x, y)
    probe("fisher", "factored=1", "batch=256")
    flat, at, off, all_of_it = np.fromfile("factors.f32", np.float32).astype(np.float64), 0, 0.0, 0.0
    for s in (t.numpy() for t in exact):
        if s.ndim == 1:
            assert np.linalg.norm(flat[at:at + len(s)] - s) < BAR * np.linalg.norm(s)
            at += len(s)
            continue
        rows, columns = flat[at:at + s.shape[0]], flat[at + s.shape[0]:at + sum(s.shape)]
        for ours, theirs in ((rows, s.sum(1)), (columns, s.sum(0))):
            assert np.linalg.norm(ours - theirs) < BAR * np.linalg.norm(theirs)
        off += np.linalg.norm(np.outer(rows, columns) / rows.sum() - s) ** 2
        all_of_it += np.linalg.norm(s) ** 2
        at += sum(s.shape)
    share = (off / all_of_it) ** 0.5
    print("factored: %.3f off" % share)
    assert 0.05 < share < 0.5
