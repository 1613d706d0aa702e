"""A pipeline file in the sections of other programs, finetuning and gpu_optimization, trains what one in our own does."""
import os
import re
import subprocess

import h5py
import numpy

from harness import limit
from small_run import BINARIES, trained

LAYERS = "    - {type: linear, out: 32}\n    - {type: relu}\n    - {type: linear, out: 5}\n"
OWN = """name: sections
data: {file: x.h5, scale: 0.01, drop_last: true}
model:
  layers:
%s
training:
  batch_size: 32
  learning_rate: 2e-3
  scheduler_type: onecycle
  warmup_pct: 0.2
  max_grad_norm: 0.5
  gradient_accumulation_steps: 2
  use_gradient_checkpointing: true
  use_swa: true
  swa_start_epoch: 2
  threads: 2
loader: {use_chunk_loader: true, num_workers: 2, prefetch_factor: 2}
tasks:
  - {name: finetuning, epochs: 3}
""" % LAYERS
OTHER = """name: sections
data: {file: x.h5, scale: 0.01}
model:
  layers:
%s
pretraining:
  enabled: false
  epochs: 100
finetuning:
  epochs: 3
  batch_size: 32
  learning_rate: 2e-3
  scheduler: {scheduler_type: onecycle, warmup_pct: 0.2}
  swa: {use_swa: true, swa_start_epoch: 2}
  max_grad_norm: 0.5
gpu_optimization:
  gradient_accumulation_steps: 2
  use_gradient_checkpointing: true
  use_chunk_loader: true
  num_workers: 2
  prefetch_factor: 2
  drop_last: true
  threads: 2
""" % LAYERS


def weights(run):
    with h5py.File(run.path("checkpoints/task-finetuning.h5")) as f:
        return {n: d[:] for n, d in f["parameters"].items()}


@limit(60)
def test_the_sections_of_others_train_the_same():
    runs = [trained(directory, pipeline=text)[0] for directory, text in (("own", OWN), ("other", OTHER))]
    own, other = (weights(run) for run in runs)
    assert set(own) == set(other) and all(numpy.array_equal(own[n], other[n]) for n in own)
    effective = [open(run.path("pipeline.yaml")).read() for run in runs]
    assert effective[0] == effective[1]
    assert not re.search("^(finetuning|gpu_optimization|pretraining)", effective[1], flags=re.M)


@limit(20)
def test_a_pretraining_and_unknown_keys_are_refused():
    for text, has in ((OTHER.replace("enabled: false", "enabled: true"), "pretraining is a run of its own"),
                      (OTHER.replace("batch_size", "batchsize").replace("use_swa", "swa"), "2 unknown options, each")):
        with open("p.yaml", "w") as f:
            f.write(text)
        done = subprocess.run([os.path.join(BINARIES, "prepare"), "run", "--config", "p.yaml", "--run", "r"],
                              capture_output=True, text=True)
        assert done.returncode == 100 and has in done.stderr, done
        assert not os.path.exists("r")
