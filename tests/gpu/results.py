"""What `make gpu-check` found, as docs/gpu/RESULTS-<gpu>.json and .md.

A row is a figure next to its bar and to the limit: what the same work would take at the ceilings measured in the same
run. A check has passed, failed, or was skipped with a word. A run of some steps only replaces what those gave before on
the same GPU; each entry has its date and the commit, those of earlier runs only where it was written down."""
import collections
import json
import os
import re
import shutil
import time

HEAD = """# Results on %s

Written by `make gpu-check` (tests/gpu) from real runs, nothing by hand but the notes. *Ratio* is the peer's figure over
ours where a peer is given (larger is better), else our figure over the ceiling; *limit* is the least that the work would
take at the ceilings measured in the same run: operations over the rate of large products, and bytes over that of copies
or, where nothing is written, of reading.
"""

Bar = collections.namedtuple("Bar", "value at_most")


def least(value):
    return Bar(value, False)


def most(value):
    return Bar(value, True)


def row_make(ours, unit, bar, commit, **more):
    """more: peer, form (of the peer), ratio, limit, compared. bar: None or a Bar."""
    if "peer" in more:
        more.setdefault("ratio", more["peer"] / ours)
    row = {"ours": ours, "unit": unit, "holds": None, "date": now(), "commit": commit, **more}
    if bar and "ratio" in more:
        row.update(bar=bar.value, holds=bool(more["ratio"] <= bar.value if bar.at_most else more["ratio"] >= bar.value))
        row.update({"at_most": True} if bar.at_most else {})
    return row


def row_print(name, row):
    print("%-46s ours %-11s peer %-11s ratio %-7s bar %-5s %s" % (
        name, number(row["ours"]), number(row.get("peer")), number(row.get("ratio")), number(row.get("bar")),
        verdict(row["holds"])), flush=True)


class Results:
    def __init__(self, gpu, commit):
        self.gpu, self.commit, self.rows, self.checks, self.facts, self.steps = gpu, commit, {}, {}, {}, {}

    def check(self, name, state, words, seconds):
        """state: passed, failed or skipped."""
        self.checks[name] = {"state": state, "words": words, "seconds": round(seconds, 1), "date": now(), "commit": self.commit}
        print("%-46s %s in %.1f s%s" % (name, state, seconds, ": " + words if words else ""), flush=True)

    def named(self, state):
        return [n for n, c in self.checks.items() if c["state"] == state]

    def missed(self):
        return [n for n, r in self.rows.items() if r["holds"] is False]

    def write(self, directories):
        """The first directory has what was there before; all get both files."""
        stem = os.path.join(directories[0], "RESULTS-" + re.sub(r"[^A-Za-z0-9]+", "-", self.gpu).strip("-"))
        found = {"facts": self.facts, "rows": self.rows, "checks": self.checks, "steps": self.steps}
        if os.path.exists(stem + ".json"):
            with open(stem + ".json") as f:
                old = json.load(f)
            found = {k: {**old.get(k, {}), **v} for k, v in found.items()}
        os.makedirs(directories[0], exist_ok=True)
        with open(stem + ".json", "w") as f:
            json.dump({"gpu": self.gpu, **found}, f, indent=1)
            f.write("\n")
        with open(stem + ".md", "w") as f:
            f.write(page(self.gpu, **found))
        for other in directories[1:]:
            for ending in (".json", ".md"):
                shutil.copy(stem + ending, other)
        return stem + ".md"


def step_line(name, s):
    kernels = sorted(s["kernels"].items(), key=lambda k: -k[1][0] * k[1][1])
    return "- %s: %.1f us, of which nothing runs in %.1f; %s" % (name, s["step"], s["idle"], ", ".join(
        "%s x %.1f `%s`" % (number(count), each, kernel) for kernel, (count, each) in kernels))


def page(gpu, facts, rows, checks, steps):
    lines = [HEAD % gpu, "| machine | |", "| --- | --- |"]
    lines += ["| %s | %s |" % (k, number(v)) for k, v in facts.items()]
    lines += ["", "| what | ours | peer | peer's form | ratio | bar | | limit | of the limit | outputs compared | run |",
              "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name, r in rows.items():
        limit = r.get("limit")
        cells = [name, number(r["ours"]) + " " + r["unit"], number(r.get("peer")), r.get("form", ""), number(r.get("ratio")),
                 ("at most " if r.get("at_most") else "") + number(r.get("bar")), verdict(r["holds"]), number(limit),
                 "%.0f %%" % (100 * limit / r["ours"]) if limit else "", r.get("compared", ""), run_of(r)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| check | | seconds | | run |", "| --- | --- | --- | --- | --- |"]
    lines += ["| %s | %s | %s | %s | %s |" % (n, c["state"], c["seconds"], c["words"].replace("|", "/"), run_of(c))
              for n, c in checks.items()]
    if steps:
        lines += ["", "What the GPU does in a step, while CUPTI looks on, which takes some time itself: how often and how long.", ""]
        lines += [step_line(*step) for step in steps.items()]
    notes = ["- %s: %s" % (n, r["note"]) for n, r in rows.items() if "note" in r]
    return "\n".join(lines + ([""] + notes if notes else [])) + "\n"


def run_of(entry):
    return " ".join(filter(None, [entry["date"], entry.get("commit")]))


def now():
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime())


def number(x):
    if x is None:
        return ""
    return x if isinstance(x, str) else "%d" % x if isinstance(x, int) else "%.4g" % x


def verdict(holds):
    return {None: "", True: "holds", False: "**missed**"}[holds]
