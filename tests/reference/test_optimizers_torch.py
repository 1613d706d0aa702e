"""Optimizers and parameter groups against PyTorch in float64, 20 steps, by way of engine_probe: SGD with and without
momentum, Nesterov and weight decay, a backbone with a rate of its own, a frozen one.

Bars: relative L2 error of each tensor at most 1e-5, and of its change (what the 20 steps made) at most 1e-4, so that
an optimizer that hardly moves does not pass."""
from harness import limit
from test_engine_torch import BAR, net_open, probe, torch, vector_read, case_open

STEPS, BATCH = 20, 64
KINDS = {"adamw": 0, "sgd momentum": 1, "sgd": 2}


def torch_optimizer(kind, net, lr, wd, momentum, nesterov, backbone, backbone_lr):
    groups = [{"params": [p for layer in list(net)[:backbone] for p in layer.parameters()], "lr": backbone_lr},
              {"params": [p for layer in list(net)[backbone:] for p in layer.parameters()]}]
    groups = [g for g in groups if g["params"]]
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=lr, weight_decay=wd, eps=1e-5)
    return torch.optim.SGD(groups, lr=lr, weight_decay=wd, momentum=momentum, nesterov=nesterov)


def compare(kind, lr=0.05, wd=1e-2, momentum=0.0, nesterov=False, clip=0.0, backbone=0, backbone_lr=0.0, freeze=False):
    x, y = case_open(BATCH * STEPS)
    net, before = net_open(torch.float64), vector_read("weights.f32", torch.float64)
    for layer in list(net)[:backbone if freeze else 0]:
        for p in layer.parameters():
            p.requires_grad = False
    optimizer = torch_optimizer(kind, net, lr, wd, momentum, nesterov, backbone, backbone_lr)
    x = torch.tensor(x).double()
    for k in range(STEPS):
        rows = slice(k * BATCH, (k + 1) * BATCH)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        torch.nn.utils.clip_grad_norm_([p for p in net.parameters() if p.grad is not None], clip or 1e30)
        optimizer.step()
    settings = {"optimizer": KINDS[kind], "lr": lr, "wd": wd, "momentum": momentum, "nesterov": int(nesterov),
                "clip": clip, "backbone": backbone, "backbone_lr": backbone_lr, "freeze": int(freeze), "eps": 1e-5,
                "steps": STEPS, "batch": BATCH}
    probe("train", *("%s=%s" % s for s in settings.items()))
    for i, (ours, p, start) in enumerate(zip(vector_read("trained.f32", torch.float64), net.parameters(), before)):
        p = p.detach()
        l2, moved = float((ours - p).norm() / p.norm()), float((p - start).norm())
        change = float((ours - p).norm()) / moved if moved else 0.0
        print("tensor %d: relative L2 %.1e, of the change %.1e" % (i, l2, change))
        assert l2 <= BAR and change <= 1e-4, (i, l2, change)
        if not moved:
            assert freeze and torch.equal(ours, start), i


def test_sgd():
    compare("sgd")


def test_sgd_with_momentum_and_clipping():
    compare("sgd momentum", momentum=0.9, clip=0.5)


def test_sgd_with_nesterov():
    compare("sgd momentum", momentum=0.9, nesterov=True, wd=0)


@limit(60)
def test_backbone_with_a_rate_of_its_own():
    compare("adamw", lr=1e-3, backbone=3, backbone_lr=1e-4)
    compare("sgd momentum", momentum=0.8, clip=1.0, backbone=2, backbone_lr=0.01)


@limit(60)
def test_frozen_backbone():
    """The norm that clips is that of what is trained."""
    compare("adamw", lr=1e-3, clip=0.5, backbone=3, backbone_lr=1e-4, freeze=True)
    compare("sgd momentum", momentum=0.9, nesterov=True, clip=0.5, backbone=2, freeze=True)
