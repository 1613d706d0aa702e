"""PyTorch's side of the optimizer benchmark: peer_sweep.py DIR THREADS STEPS KIND. One linear layer of 4096 x 4096,
one row a batch. KIND train: whole steps with penalty and clipping from weights.f32, features, targets.f32, fisher.f32
and star.f32, as a PyTorch user writes them; writes peer.f32. adamw: AdamW alone, on gradients that are there; ewc: the
penalty by autograd, clipping and AdamW. Prints seconds and CPU seconds; of AdamW's two forms the faster one."""
import json
import os
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = sys.argv[2]  # torch.set_num_threads does not reach it
import numpy  # noqa: E402
import torch  # noqa: E402

WIDTH, LAMBDA = 4096, 2000.0


def main():
    directory, threads, steps, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(threads)

    def read(name):
        return torch.from_numpy(numpy.fromfile(os.path.join(directory, name), numpy.float32))
    layer = torch.nn.Linear(WIDTH, WIDTH)
    parameters = list(layer.parameters())

    def split(flat):
        return [flat[:WIDTH * WIDTH].reshape(WIDTH, WIDTH).contiguous(), flat[WIDTH * WIDTH:]]
    for p, w in zip(parameters, split(read("weights.f32"))):
        p.data.copy_(w)
    fisher, star = split(read("fisher.f32")), split(read("star.f32"))

    def penalty():
        return LAMBDA / 2 * sum((f * (p - s) ** 2).sum() for f, p, s in zip(fisher, parameters, star))

    def clip_exactly():
        """For the comparison: clip_grad_norm_ sums 16.8 million squares in float32, and errs by 5e-4."""
        norm = sum(p.grad.double().pow(2).sum() for p in parameters).sqrt().item()
        for p in parameters:
            p.grad.mul_(min(1.0, 1.0 / (norm + 1e-6)))

    def run(foreach):
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, eps=1e-5, foreach=foreach)
        x, y = read("features").reshape(-1, WIDTH), read("targets.f32").reshape(-1, WIDTH)
        if kind != "train":
            for p in parameters:
                p.grad = torch.randn_like(p)
            optimizer.step()  # makes the moments
        wall, cpu = time.perf_counter(), time.process_time()
        for k in range(steps):
            if kind == "train":
                optimizer.zero_grad(set_to_none=True)
                torch.nn.functional.mse_loss(layer(x[k % len(x)][None]), y[k % len(x)][None]).backward()
            if kind != "adamw":
                penalty().backward()
                clip_exactly() if kind == "train" else torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        return time.perf_counter() - wall, time.process_time() - cpu
    timings = [run(foreach) for foreach in ((False,) if kind == "train" else (False, True))]
    wall, cpu = (min(t[i] for t in timings) for i in (0, 1))
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu}))
    if kind == "train":
        torch.cat([p.detach().reshape(-1) for p in parameters]).numpy().tofile(os.path.join(directory, "peer.f32"))


if __name__ == "__main__":
    main()
