"""What a step's kernels take, from the times that libkernel-times.so (kernel_times.c) writes."""
import os
import re
import subprocess

from cases import BINARIES

LIBRARY = os.path.join(os.path.dirname(BINARIES), "lib", "libkernel-times.so")


def times_read(path):
    """(begin, end, name) of each, in ns, in the order in which they began."""
    with open(path) as f:
        found = [line.rstrip("\n").split(" ", 2) for line in f]
    return sorted((int(begin), int(end), name) for begin, end, name in found)


def steps_cut(times):
    """Lists of times, a step each: what is behind the last kernel of one is the next one's. The last step's last kernel must be
    one that is in each step once."""
    last, found, step = times[-1][2], [], []
    for one in times:
        step.append(one)
        if one[2] == last:
            found.append(step)
            step = []
    return found


def names_plain(names):
    """Of mangled ones: template arguments stay, those of functions go."""
    try:
        said = subprocess.run(["c++filt"], input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        said = names
    return dict(zip(names, (re.sub(r"\(.*", "", re.sub(r"^void ", "", n.replace("(int)", "")))[:60] for n in said)))


def busy_ns(times):
    """Of the time between the first and the last of them, that in which one ran."""
    sum_ns, until = 0, 0
    for begin, end, _ in times:
        sum_ns += max(0, end - max(begin, until))
        until = max(until, end)
    return sum_ns


def step_summary(times, steps):
    """Of the last `steps` steps, all asked for one after the other, us a step: {"step": .., "idle": .., "kernels":
    {name: [how often, us each]}}."""
    cut = steps_cut(times)[-steps - 1:]
    begin, last = cut[0][-1][1], [one for step in cut[1:] for one in step]  # from the end of the step before
    per = {}
    for one in last:
        count, sum_ns = per.get(one[2], (0, 0))
        per[one[2]] = count + 1, sum_ns + one[1] - one[0]
    plain, all_ns, kernels = names_plain(list(per)), last[-1][1] - begin, {}
    for name, (count, sum_ns) in per.items():  # of which several may have the same plain one
        before = kernels.get(plain[name], (0, 0))
        kernels[plain[name]] = before[0] + count, before[1] + sum_ns
    return {"step": all_ns / steps / 1e3, "idle": (all_ns - busy_ns(last)) / steps / 1e3,
            "kernels": {name: [count / steps, sum_ns / count / 1e3] for name, (count, sum_ns) in kernels.items()}}
