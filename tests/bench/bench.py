"""make bench [NAMES=part,part] [RUNS=n]: our figures beside PyTorch's for the same work, in the same run.

Outputs are compared before anything is timed. PyTorch runs at its better thread setting (1 or 2); where "default"
stands in a name, at its own default (a thread a core).
Runs alternate, medians are shown; ratio is peer / ours (larger is better), bar is the least ratio wanted, or for
a figure without a peer the largest value allowed. Writes build/bench/results.json.
"""
import argparse
import json
import os
import sys

from bench_base import ROOT, results
from bench_engine import bench_fisher, bench_gcn, bench_lstm, bench_step, bench_step_ewc, bench_sweep
from bench_fisher import bench_fisher_curve, bench_fisher_pass, bench_fisher_stream, bench_penalty, bench_resident
from bench_loader import bench_loader
from bench_memory import bench_checkpointing, bench_half
from bench_molecules import bench_molecules
from bench_runs import (bench_busy, bench_continual, bench_fragments, bench_pipeline, bench_recipe, bench_start,
                        bench_steady)

BENCHES = {"loader": bench_loader, "fashion-step": bench_step, "fashion-step-ewc": bench_step_ewc,
           "fashion-fisher": bench_fisher, "fisher-pass": bench_fisher_pass, "fisher-curve": bench_fisher_curve,
           "fisher-stream": bench_fisher_stream, "penalty": bench_penalty, "resident": bench_resident,
           "continual": bench_continual, "fragments": bench_fragments, "lstm-step": bench_lstm, "gcn-step": bench_gcn,
           "gcn-steady": bench_steady, "sweep": bench_sweep, "checkpointing": bench_checkpointing, "half": bench_half,
           "recipe": bench_recipe, "start": bench_start, "busy": bench_busy, "fashion-pipeline": bench_pipeline,
           "molecules": bench_molecules}


def table_print():
    print("%-30s %12s %12s %8s %8s %6s  %s" % ("name", "ours", "peer", "ratio", "bar", "holds", "unit"))
    for r in results:
        peer, ratio = ("-", "-") if r["peer"] is None else ("%.4g" % r["peer"], "%.2f" % r["ratio"])
        print("%-30s %12.4g %12s %8s %8.4g %6s  %s" % (
            r["name"], r["ours"], peer, ratio, r["bar"], "yes" if r["holds"] else "NO", r["unit"]))
    for text in sorted({"%s: %s" % (r["name"].rsplit("-", 1)[0], r["outputs"]) for r in results}):
        print("outputs compared:", text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default="", help="parts of names, separated by commas; default: all")
    parser.add_argument("--runs", type=int, default=3, help="repeats; medians are shown (default 3)")
    arguments = parser.parse_args()
    chosen = [n for n in BENCHES if not arguments.names or any(p in n for p in arguments.names.split(",") if p)]
    if not chosen:
        sys.exit("no benchmark is named like %s; there are: %s" % (arguments.names, ", ".join(BENCHES)))
    for name in chosen:
        print("running", name, "...", file=sys.stderr)
        BENCHES[name](arguments.runs)
    table_print()
    os.makedirs(os.path.join(ROOT, "build/bench"), exist_ok=True)
    with open(os.path.join(ROOT, "build/bench/results.json"), "w") as f:
        json.dump(results, f, indent=1)


if __name__ == "__main__":
    main()
