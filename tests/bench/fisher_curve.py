"""make bench NAMES=fisher-curve: error of the penalty's gradient against bytes a parameter, for each stored form of the
Fisher information, on three trained models with the displacement that training on another task really made.

  mlp    pipelines/fashion.yaml: Fashion-MNIST, then with permuted pixels (269,322 parameters)
  lstm   next byte of licence texts (embedding 64, lstm 256, linear 256), then of this program's sources (411,904)
  gcn    five descriptors (descriptors.py) of 16,000 metabolites, then of screening compounds (473,349)

The runs are made under build/bench/fisher/ and kept; remove that to make them again. Writes docs/fisher-curve.md and
docs/fisher-curve.svg. `make bench NAMES=resident` uses the same runs.
"""
import glob
import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests"))
from descriptors import descriptors_write  # noqa: E402
from fisher_file import fisher_blocks  # noqa: E402

PROBE = os.path.join(ROOT, "build/release/bin/fisher_probe")
WORK = os.path.join(ROOT, "build/bench/fisher")
METABOLITES = "/usr/share/openms/CHEMISTRY/HMDB2StructMapping.tsv"
COMPOUNDS = "/usr/share/RDKit/Data/Pains/test_data/wehi_mols.csv"
STEPS = (0.08, 0.12, 0.16, 0.24, 0.346, 0.5, 0.7, 1.0)
RATIOS = (0.02, 0.05, 0.1, 0.2)
TASKS = """tasks:
  - {name: A, %s}
  - {name: B, from: A, ewc: [A], %s}
  - {name: B-without-ewc, from: A, comparison_of: B, %s}
"""
LSTM = """name: lstm
seed: 1
data: {prepare: text, source: DIRECTORY/licences, file: DIRECTORY/licences.h5, window: 128}
model: {layers: [{type: embedding, count: 256, out: 64}, {type: lstm, out: 256}, {type: linear, out: 256}]}
training: {batch_size: 16, slice_rows: 8, learning_rate: 3e-3, scheduler_type: onecycle, max_grad_norm: 1}
continual_learning: {ewc_config: {fisher_samples: 512}}
"""
EXACT = "continual_learning.ewc_config.fisher_computation.use_compression=false"


def finetune(run, config, *settings):
    """The run, unless it is there."""
    directory = os.path.join(WORK, run)
    if not os.path.exists(os.path.join(directory, "report/report.json")):
        shutil.rmtree(directory, ignore_errors=True)
        words = [w for s in (EXACT, *settings) for w in ("--set", s)]
        subprocess.run([os.path.join(ROOT, "pipelines/finetune.sh"), "--config", config, "--run", directory, *words],
                       check=True, stdout=subprocess.DEVNULL)
    return directory


def mlp():
    return finetune("mlp", os.path.join(ROOT, "pipelines/fashion.yaml"))


def lstm():
    for name, files in (("licences", glob.glob("/usr/share/common-licenses/*[0-9]") + ["/usr/share/common-licenses/Artistic"]),
                        ("sources", glob.glob(os.path.join(ROOT, "engine/*.c")) + glob.glob(os.path.join(ROOT, "proto/*.c")))):
        os.makedirs(os.path.join(WORK, name), exist_ok=True)
        for f in files:
            if not os.path.islink(f):
                shutil.copy(f, os.path.join(WORK, name))
    config, second = os.path.join(WORK, "lstm.yaml"), "epochs: 3, source: %s/sources, file: %s/sources.h5" % (WORK, WORK)
    with open(config, "w") as f:
        f.write(LSTM.replace("DIRECTORY", WORK) + TASKS % ("epochs: 8", second, second))
    return finetune("lstm", config)


def gcn():
    config, metabolites = os.path.join(WORK, "gcn.yaml"), os.path.join(WORK, "metabolites.tsv")
    with open(METABOLITES) as f, open(metabolites, "w") as out:
        lines = f.readlines()
        out.writelines(lines[i] for i in numpy.random.default_rng(1).permutation(len(lines))[:16000])
    compounds = os.path.join(WORK, "compounds.tsv")
    with open(COMPOUNDS) as f, open(compounds, "w") as out:
        out.writelines("%s\tx\t%s\t\n" % (line.split('"')[3], line.split('"')[1]) for line in f if line.count('"') == 4)
    second = "epochs: 2, source: %s, file: %s/compounds.h5" % (compounds, WORK)
    descriptors_write(config, "continual_learning: {ewc_config: {fisher_samples: 1024}}\n" +
                      TASKS % ("epochs: 2, inchikey: '3'", second, second))
    return finetune("gcn", config, "data.source=" + metabolites, "data.file=" + os.path.join(WORK, "metabolites.h5"),
                    "prepare.inchikey=")


MODELS = {"mlp": mlp, "lstm": lstm, "gcn": gcn}


def vectors(run, end, directory):
    """The exact diagonal of task A, how far from it the task `end` ended, and the tensors' shapes: as fisher_probe reads
    them."""
    names, values = [], []
    for _, tensors, block in fisher_blocks(os.path.join(run, "fisher/A.h5")):
        names += [t for t in tensors if t not in names]
        values.append(block)
    with h5py.File(os.path.join(run, "checkpoints/task-A.h5")) as a, \
            h5py.File(os.path.join(run, "checkpoints/task-%s.h5" % end)) as b:
        pairs = [(a["parameters/" + n][:], b["parameters/" + n][:]) for n in names]
    os.makedirs(directory, exist_ok=True)
    fisher, moved = numpy.concatenate(values), numpy.concatenate([(y - x).ravel() for x, y in pairs])
    fisher.tofile(os.path.join(directory, "values.f32"))
    with open(os.path.join(directory, "tensors.txt"), "w") as f:
        for n, (x, _) in zip(names, pairs):
            f.write("%s %d %d\n" % (n, x.shape[0] if x.ndim == 2 else 0, x.shape[-1]))
    return fisher.astype(float), moved.astype(float)


def probe(what, directory, name, **settings):
    """What fisher_probe says, and the vector that it left."""
    out = json.loads(subprocess.run([PROBE, what, directory, *("%s=%s" % s for s in settings.items())],
                                    check=True, capture_output=True, text=True).stdout)
    return out, numpy.fromfile(os.path.join(directory, name), numpy.float32).astype(float)


def gradient_error(approximate, fisher, moved):
    return float(numpy.linalg.norm((approximate - fisher) * moved) / numpy.linalg.norm(fisher * moved))


def measure(directory, fisher, moved, **settings):
    """Bytes of the file and error of the penalty's gradient, as shares of a parameter and of its norm."""
    out, stored = probe("store", directory, "decoded.f32", **settings)
    out["real"] = gradient_error(stored, fisher, moved)
    out["value"] = float((stored * moved * moved).sum() / (fisher * moved * moved).sum())
    out["per_parameter"] = out["file_bytes"] / out["parameters"]
    return out


def at_error(directory, fisher, moved, wanted):
    """The coarsest step, to 2 %, whose error does not exceed the wanted one, and what it takes."""
    low, high = 0.05, 2.0
    while high / low > 1.02:
        step = (low * high) ** 0.5
        low, high = (step, high) if measure(directory, fisher, moved, step=step)["real"] <= wanted else (low, step)
    return low, measure(directory, fisher, moved, step=low)


def model_curve(name, make):
    directory = os.path.join(WORK, name + "-vectors")
    fisher, moved = vectors(make(), "B-without-ewc", directory)
    rows = [("log_rank1", "step %g" % s, measure(directory, fisher, moved, step=s)) for s in STEPS]
    rows += [("lowrank", "ratio %g" % r, measure(directory, fisher, moved, form="lowrank", ratio=r)) for r in RATIOS]
    rows += [(form, "", measure(directory, fisher, moved, form=form)) for form in ("int4", "int8", "gzip", "float32")]
    bars = {wanted: at_error(directory, fisher, moved, wanted / 100) for wanted in (5, 10)}
    spread = fisher[fisher > 0]
    return {"name": name, "parameters": len(fisher), "zeros": float((fisher == 0).mean()),
            "spread": float(numpy.log(spread).std()), "rows": rows, "bars": bars}


def resident(name):
    """What trainerd holds of the file that fisherd makes unless it is told otherwise: bytes a parameter, and the error of
    the penalty's gradient, storing included, where task B trained without the penalty and where it trained with it."""
    os.makedirs(WORK, exist_ok=True)
    run, directory = MODELS[name](), os.path.join(WORK, name + "-vectors")
    errors = {}
    for end in ("B-without-ewc", "B"):
        fisher, moved = vectors(run, end, directory)
        _, stored = probe("store", directory, "decoded.f32")
        out, held = probe("resident", directory, "resident.f32")
        errors[end] = {"all": gradient_error(held, fisher, moved), "stored": gradient_error(stored, fisher, moved),
                       "held": gradient_error(held, stored, moved)}
    return out["bytes"] / out["parameters"], errors


def table_write(models):
    with open(os.path.join(ROOT, "docs/fisher-curve.md"), "w") as f:
        f.write("Made by `make bench NAMES=fisher-curve`. Bytes are those of the whole file; the error is that of the "
                "penalty's\ngradient, norm((stored - F) x displacement) / norm(F x displacement), with the displacement that "
                "training on the\nother task made; beside it the one that the file records, for a displacement equally "
                "large everywhere, and the\npenalty's value as a share of the exact one.\n")
        for m in models:
            f.write("\n**%s**: %s parameters, %.0f %% of F zero, deviation of ln F %.1f; %s.\n\n" % (
                m["name"], format(m["parameters"], ","), 100 * m["zeros"], m["spread"],
                ", ".join("%.3f bytes a parameter at %d %% (step %.3f)" % (r["per_parameter"], wanted, step)
                          for wanted, (step, r) in m["bars"].items())))
            f.write("| form | | bytes a parameter | error | recorded | value |\n|---|---|---:|---:|---:|---:|\n")
            for form, what, r in m["rows"]:
                f.write("| %s | %s | %.3f | %.2f %% | %.2f %% | %.4f |\n" % (form, what, r["per_parameter"], 100 * r["real"],
                                                                        100 * r["error"], r["value"]))


def plot_write(models):
    script = ["set terminal svg size 960,330 font 'sans,11'", "set output '%s'" % os.path.join(ROOT, "docs/fisher-curve.svg"),
              "set termoption noenhanced", "set multiplot layout 1,3", "set logscale xy", "set xrange [0.05:2]", "set yrange [0.1:100]", "set grid",
              "set xlabel 'bytes a parameter'", "set ylabel 'error of the gradient, %'", "set key bottom left"]
    for m in models:
        script.append("set title '%s'" % m["name"])
        script.append("plot " + ", ".join("'-' with linespoints title '%s'" % form for form in ("log_rank1", "lowrank", "int4, int8")))
        for forms in (("log_rank1",), ("lowrank",), ("int4", "int8")):
            script += ["%.4f %.4f" % (r["per_parameter"], 100 * r["real"]) for f, _, r in m["rows"] if f in forms] + ["e"]
    subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, check=True)


def curves():
    os.makedirs(WORK, exist_ok=True)
    models = [model_curve(name, make) for name, make in MODELS.items()]
    table_write(models)
    plot_write(models)
    return models


if __name__ == "__main__":
    for model in curves():
        print(model["name"], {wanted: (round(step, 4), round(r["per_parameter"], 4)) for wanted, (step, r) in model["bars"].items()})
