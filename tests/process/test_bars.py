"""`prepare bars`: every row against a slow reckoning written apart, no look into the future, no leak between the
parts, cuts, formats, and a sentence for each bad file."""
import csv
import datetime
import math
import os
import subprocess

import h5py
import numpy

from harness import limit, skip
from runs import ROOT, Run, plan_check

PREPARE = os.path.join(ROOT, "build/release/bin/prepare")
DATA = os.path.join(os.path.dirname(ROOT), "shared/data/bars")
SECONDS = {"M1": 60, "M5": 300, "M15": 900, "H1": 3600, "H4": 14400, "D1": 86400}


def prepared(source, *options, out="bars.h5", code=0):
    with open("bars.yaml", "w") as f:
        f.write("data: {prepare: bars, source: %s, file: %s}\nmodel: {layers: [{type: linear, out: 3}]}\n"
                "tasks: [{name: A}]\n" % (os.path.abspath(source), out))
    done = subprocess.run([PREPARE, "bars", "--config", "bars.yaml", "--out", out,
                           *(w for o in options for w in ("--set", "prepare." + o))],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done
    return done.stderr


def bars_make(count=3000, seed=1, volume=True):
    """One-minute bars with single ones missing, and two holes: rows of time, open, high, low, close, volume."""
    rng = numpy.random.default_rng(seed)
    time, price, bars = 1660557960 // 60 * 60, 1.25, []
    for i in range(count):
        time += 60 * (1 + (rng.random() < 0.1) * int(rng.integers(1, 6)) + (90 if i in (1100, 1900) else 0))
        prices = price * numpy.exp(numpy.cumsum(rng.normal(0, 1e-3, 4)))
        bars.append((time, prices[0], max(prices), min(prices), prices[3], int(rng.integers(0, 500)) if volume else 0))
        price = prices[3]
    return bars


def bars_write(path, bars, volume=True):
    with open(path, "w") as f:
        f.write("Time,Open,High,Low,Close%s\n" % (",Volume" if volume else ""))
        for t, *v in bars:
            moment = datetime.datetime.fromtimestamp(t, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
            f.write(",".join([moment, *("%.17g" % x for x in (v if volume else v[:4]))]) + "\n")


class Reckoning:
    """Rows by definition, each from the bars up to its decision alone. Slow."""

    def __init__(self, bars, frames, gap, horizon, longer=True):
        self.bars, self.frames, self.horizon, self.longer = bars, frames, horizon, longer
        self.length = min(b[0] - a[0] for a, b in zip(bars, bars[1:]))
        self.stretch = [0]
        for a, b in zip(bars, bars[1:]):
            self.stretch.append(self.stretch[-1] + ((b[0] - a[0]) // self.length - 1 > gap))
        self.groups = {f: [(self.stretch[i], b[0] // SECONDS[f]) for i, b in enumerate(bars)] for f, _ in frames}

    def window(self, frame, count, i):
        """The last `count` complete bars at the end of bar i as features, and the first bar of the file in them."""
        groups, now = self.groups[frame], self.bars[i][0] + self.length
        found, k = [], i
        while k >= 0 and len(found) <= count:
            first = k
            while first > 0 and groups[first - 1] == groups[k]:
                first -= 1
            if k < i or (groups[k][1] + 1) * SECONDS[frame] <= now:
                found.append((first, k))
            k = first - 1
        found.reverse()
        if len(found) < count:
            return None, None
        values = []
        for n in range(len(found) - count, len(found)):
            first, last = found[n]
            part = self.bars[first:last + 1]
            base = part[0][1]
            if n > 0 and self.stretch[found[n - 1][1]] == self.stretch[first]:
                base = self.bars[found[n - 1][1]][4]
            values.append([math.log(part[0][1] / base), math.log(max(b[2] for b in part) / base),
                           math.log(min(b[3] for b in part) / base), math.log(part[-1][4] / base),
                           math.log1p(sum(b[5] for b in part))])
        return values, found[len(found) - count][0]

    def row(self, i):
        """(features a timeframe, targets, first bar of the file shown), or None if there is no such row."""
        if i + self.horizon >= len(self.bars) or self.stretch[i + self.horizon] != self.stretch[i]:
            return None
        features, firsts = [], []
        shortest = min(self.frames, key=lambda f: SECONDS[f[0]])[0]
        for frame, count in self.frames:
            values, first = self.window(frame, count, i)
            if values is None or ((frame == shortest or not self.longer) and self.stretch[first] != self.stretch[i]):
                return None
            features.append(values)
            firsts.append(first)
        close = self.bars[i][4]
        return features, [math.log(self.bars[i + k][4] / close) for k in range(1, self.horizon + 1)], min(firsts)


def index_of(bars, length, times):
    place = {b[0] + length: i for i, b in enumerate(bars)}
    return [place[int(t)] for t in times]


def rows_compare(path, bars, reckoning, features=5, every=1, scale=1):
    with h5py.File(path) as f:
        for part in ("train", "validation"):
            names = f[part + "/features"].attrs["timeframes"]
            assert (names if isinstance(names, str) else names.decode()).split() == [n for n, _ in reckoning.frames]
            indexes = index_of(bars, reckoning.length, f[part + "/times"][:])
            targets = f[part + "/targets"][:]
            windows = [f[part + "/features/" + n][:] for n, _ in reckoning.frames]
            for r in range(0, len(indexes), every):
                wanted = reckoning.row(indexes[r])
                assert wanted is not None, (part, r)
                for got, want in zip(windows, wanted[0]):
                    assert numpy.allclose(got[r], numpy.array(want)[:, :features], rtol=2e-6, atol=1e-9), (part, r)
                assert numpy.allclose(targets[r], scale * numpy.array(wanted[1]), rtol=2e-6, atol=1e-9), (part, r)


@limit(120)
def test_rows_are_those_of_an_independent_reckoning():
    bars = bars_make()
    bars_write("bars.csv", bars)
    for longer, purge, scale in ((True, "windows", 1), (False, "windows", 100), (True, "targets", 1)):
        frames, stride = [("M5", 12), ("M1", 30), ("M15", 5)], 3
        said = prepared("bars.csv", "timeframes=M5:12 M1:30 M15:5", "horizon=7", "gap_bars=20", "stride=%d" % stride,
                        "gap_windows=" + ("longer" if longer else "none"), "purge=" + purge,
                        "target_scale=%d" % scale)
        assert "3000 bars of M1" in said and "in 3 stretches" in said, said
        reckoning = Reckoning(bars, frames, 20, 7, longer)
        possible = [i for i in range(len(bars)) if reckoning.row(i) is not None]
        rows = possible[::stride]
        evaluated = rows[len(rows) - round(len(rows) * 0.1):]
        last = reckoning.row(evaluated[0])[2] - 2 if purge == "windows" else evaluated[0]
        trained = [i for i in rows if i < evaluated[0] and i + 7 <= last]
        lost = len(rows) - len(evaluated) - len(trained)
        assert len(trained) > 100 and lost > 0
        assert "%d rows between them (%.1f %%) are left out" % (lost, 100 * lost / len(rows)) in said, said
        assert ("prepare.purge: targets or shorter" in said) == (purge == "windows"), said
        with h5py.File("bars.h5") as f:
            assert index_of(bars, 60, f["train/times"][:]) == trained
            assert index_of(bars, 60, f["validation/times"][:]) == evaluated
            assert f["train/features/M15"].shape == (len(trained), 5, 5) and f["train/features/M15"].dtype == "f4"
        rows_compare("bars.h5", bars, reckoning, every=7, scale=scale)
    for stride, most in ((30, 0.5), (31, 1)):  # one behind the other, or with bars left out between
        prepared("bars.csv", "timeframes=M5:12 M1:30", "horizon=7", "gap_bars=20", "stride=%d" % stride, "purge=targets")
        with h5py.File("bars.h5") as f:
            for part in ("train", "validation"):
                rows, begins = index_of(bars, 60, f[part + "/times"][:]), f[part + "/begins"][:]
                wanted = [1] + [int(reckoning.stretch[a] != reckoning.stretch[b] or reckoning.window("M1", 30, b)[1] > a + 1)
                                for a, b in zip(rows, rows[1:])]
                assert begins.tolist() == wanted and begins.dtype == "u1", (stride, part, begins, wanted)
                assert sum(wanted) <= max(2, most * len(wanted)), (stride, part, wanted)


@limit(60)
def test_bars_may_begin_anywhere_in_the_interval_of_the_clock():
    """Days from 22:00 to 22:00, in days and by four hours; minutes at the seventh second."""
    for length, begin, frames, gap in ((86400, 22 * 3600, [("D1", 5)], 3), (14400, 22 * 3600, [("H4", 6), ("D1", 3)], 12),
                                       (60, 7, [("M1", 9), ("M5", 4)], 5)):
        minutes = bars_make(300)
        bars = [((t - minutes[0][0]) // 60 * length + 11000 * 86400 + begin, *v) for t, *v in minutes]
        bars_write("bars.csv", bars)
        prepared("bars.csv", "timeframes=" + " ".join("%s:%d" % f for f in frames), "horizon=2", "gap_bars=%d" % gap)
        rows_compare("bars.h5", bars, Reckoning(bars, frames, gap, 2))
        with h5py.File("bars.h5") as f:
            assert len(f["train/times"]) > 100 and (f["train/times"][:] % length == begin % length).all()


@limit(60)
def test_the_future_changes_no_feature():
    bars = bars_make()
    bars_write("bars.csv", bars)
    options = ("timeframes=M1:30 M15:5 M5:12", "horizon=7", "gap_bars=20")
    prepared("bars.csv", *options)
    for last in (700, 1503, 2800):
        other = bars[:last + 1] + [(t, 3 * o, 9 * h, 0.1 * l, 2 * c, v + 77) for t, o, h, l, c, v in bars[last + 1:]]
        bars_write("other.csv", other)
        prepared("other.csv", *options, out="other.h5")
        same = different = 0
        with h5py.File("bars.h5") as a, h5py.File("other.h5") as b:
            for part in ("train", "validation"):
                indexes = numpy.array(index_of(bars, 60, a[part + "/times"][:]))
                assert (a[part + "/times"][:] == b[part + "/times"][:]).all()
                before, known = indexes <= last, indexes + 7 <= last
                for name in ("M1", "M5", "M15"):
                    x, y = a[part + "/features/" + name][:], b[part + "/features/" + name][:]
                    assert (x[before] == y[before]).all(), (last, name)
                    assert (x[indexes > last + 15] != y[indexes > last + 15]).any((1, 2)).all(), (last, name)
                x, y = a[part + "/targets"][:], b[part + "/targets"][:]
                assert (x[known] == y[known]).all()
                assert (x[before & ~known] != y[before & ~known]).any(1).all()
                same, different = same + int(known.sum()), different + int((~before).sum())
        assert same and different


@limit(60)
def test_no_target_of_the_parts_overlaps():
    """Change every bar of the evaluated targets: no row to train may notice. The last one's targets end just there."""
    bars = bars_make()
    bars_write("bars.csv", bars)
    options = ("timeframes=M1:30 M15:5", "horizon=40", "gap_bars=20", "validation_fraction=0.3")
    prepared("bars.csv", *options)
    with h5py.File("bars.h5") as f:
        decided = index_of(bars, 60, f["validation/times"][:1])[0]
        assert index_of(bars, 60, f["train/times"][-1:])[0] + 40 == decided
    other = bars[:decided + 1] + [(t, 3 * o, 9 * h, 0.1 * l, 2 * c, v + 77) for t, o, h, l, c, v in bars[decided + 1:]]
    bars_write("other.csv", other)
    prepared("other.csv", *options, out="other.h5")
    with h5py.File("bars.h5") as a, h5py.File("other.h5") as b:
        for name in ("features/M1", "features/M15", "targets", "times"):
            assert (a["train/" + name][:] == b["train/" + name][:]).all(), name
        assert (a["validation/targets"][0] != b["validation/targets"][0]).all()


@limit(60)
def test_nothing_evaluated_was_a_target_with_purged_windows():
    """Change every bar that a training row has as a target or shows: no evaluated row may notice."""
    bars = bars_make()
    bars_write("bars.csv", bars)
    options = ("timeframes=M1:30 M15:5", "horizon=40", "gap_bars=20", "validation_fraction=0.3", "purge=windows")
    prepared("bars.csv", *options)
    with h5py.File("bars.h5") as f:
        last = index_of(bars, 60, f["train/times"][-1:])[0] + 40
        assert last < index_of(bars, 60, f["validation/times"][:1])[0] - 30
    other = [(t, 3 * o, 9 * h, 0.1 * l, 2 * c, v + 77) for t, o, h, l, c, v in bars[:last + 1]] + bars[last + 1:]
    bars_write("other.csv", other)
    prepared("other.csv", *options, out="other.h5")
    with h5py.File("bars.h5") as a, h5py.File("other.h5") as b:
        for name in ("features/M1", "features/M15", "targets", "times"):
            assert (a["validation/" + name][:] == b["validation/" + name][:]).all(), name


@limit(60)
def test_normalise_uses_the_training_rows_only():
    bars = bars_make()
    bars_write("bars.csv", bars)
    options = ("timeframes=M1:30 M15:5", "horizon=7", "gap_bars=20")
    prepared("bars.csv", *options)
    prepared("bars.csv", *options, "normalise=standard", out="normal.h5")
    with h5py.File("bars.h5") as a, h5py.File("normal.h5") as b:
        assert b["normalise/mean"].shape == (2, 5)
        for i, name in enumerate(("M1", "M15")):
            raw = a["train/features/" + name][:].astype("f8")
            mean, deviation = raw.mean((0, 1)), raw.std((0, 1))
            assert numpy.allclose(b["normalise/mean"][i], mean, rtol=1e-6, atol=1e-9)
            assert numpy.allclose(b["normalise/standard_deviation"][i], deviation, rtol=1e-6)
            for part in ("train", "validation"):
                wanted = (a["%s/features/%s" % (part, name)][:].astype("f8") - mean) / deviation
                assert numpy.allclose(b["%s/features/%s" % (part, name)][:], wanted, atol=1e-4)
        assert (a["train/targets"][:] == b["train/targets"][:]).all()


@limit(60)
def test_formats_that_are_told_apart():
    bars = bars_make(400)

    def moment(t, form):
        return datetime.datetime.fromtimestamp(t, datetime.timezone.utc).strftime(form)

    def written(line, header=""):
        with open("form.csv", "w") as f:
            f.write(header + "".join(line(t, *("%.17g" % x for x in v)) + "\n" for t, *v in bars))
        return prepared("form.csv", "timeframes=M1:30 M5:6", "horizon=5", "gap_bars=200", "missing=drop", out="form.h5")

    bars_write("bars.csv", bars)
    prepared("bars.csv", "timeframes=M1:30 M5:6", "horizon=5", "gap_bars=200")
    sets = ("features/M1", "features/M5", "targets", "times")
    with h5py.File("bars.h5") as f:
        wanted = {p + s: f[p + s][:] for p in ("train/", "validation/") for s in sets}
    forms = {
        "dots, no names": lambda: written(lambda t, *v: moment(t, "%Y.%m.%d,%H:%M,") + ",".join(v)),
        "one column of digits": lambda: written(lambda t, *v: moment(t, "%Y%m%d %H%M%S;") + ";".join(v)),
        "terminal's export": lambda: written(
            lambda t, *v: moment(t, "%Y.%m.%d\t%H:%M:%S\t") + "\t".join(v) + "\t0\t13",
            "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"),
        "Unix time in ms, other columns and order": lambda: written(
            lambda t, o, h, l, c, v: "%d000,%s,x,%s,%s,%s,%s,%d" % (t, c, v, o, h, l, t + 59),
            "open_time,close,symbol,volume,open,high,low,close_time\n"),
        "Unix time": lambda: written(lambda t, *v: "%d|" % t + "|".join(v)),
        "ISO with zones, quoted": lambda: written(
            lambda t, *v: '"' + moment(t + 7200, "%Y-%m-%dT%H:%M:%S.000+02:00") + '",' + ",".join(v),
            "\ufeffGmt time,Open,High,Low,Close,Volume\r\n"),
        "dropped bars": lambda: written(
            lambda t, *v: moment(t, "%Y-%m-%d %H:%MZ,") + ",".join(v) + moment(t + 1, "\n%Y-%m-%d %H:%M:%SZ,") + ",,,,"),
    }
    for name, make in forms.items():
        said = make()
        assert ("400 bars with missing values were dropped (prepare.missing), the first in line 2 of" in said) == (name == "dropped bars"), said
        with h5py.File("form.h5") as f:
            for key, values in wanted.items():
                assert (f[key][:] == values).all(), (name, key)
    # As many windows as there may be.
    prepared("bars.csv", "timeframes=M1:3 M2:2 M3:2 M4:2 M5:2 M6:2", "horizon=5", out="most.h5")
    with h5py.File("most.h5") as f:
        assert len(f["validation/features"]) == 6 and f["train/features/M6"].shape[1:] == (2, 5)
    # Without a volume there is one feature less.
    bars_write("bars.csv", bars, volume=False)
    prepared("bars.csv", "timeframes=M1:30 M5:6", "horizon=5", "gap_bars=200")
    with h5py.File("bars.h5") as f:
        assert (f["train/features/M5"][:] == wanted["train/features/M5"][:, :, :4]).all()
        assert len(f.attrs["columns"].split("\n" if isinstance(f.attrs["columns"], str) else b"\n")) == 4


@limit(60)
def test_bad_files_have_a_sentence_and_leave_the_old_one():
    bars = bars_make(400)
    bars_write("bars.csv", bars)
    good = open("bars.csv").read().splitlines()
    options = ("timeframes=M1:30 M5:6", "horizon=5", "gap_bars=200")
    prepared("bars.csv", *options)
    before = open("bars.h5", "rb").read()

    def refused(text, *words, options=options):
        with open("bad.csv", "w") as f:
            f.write(text if isinstance(text, str) else "\n".join(text) + "\n")
        said = prepared("bad.csv", *options, code=100)
        assert said.count("\n") == 1 and all(w in said for w in words), (words, said)
        assert open("bars.h5", "rb").read() == before and not [n for n in os.listdir(".") if ".tmp" in n]

    def line(number, old, new, count=1):
        lines = list(good)
        lines[number - 1] = lines[number - 1].replace(old, new, count)
        assert lines != good
        return lines

    def field(number, column, value):
        lines = list(good)
        fields = lines[number - 1].split(",")
        fields[column - 1] = value
        lines[number - 1] = ",".join(fields)
        return lines

    refused("", "fewer than 5 columns")
    refused("a,b,c\n", "fewer than 5 columns")
    refused(good[:1], "0 bars")
    refused(good[:2], "1 bars")
    refused(good[:60], "gives 0 rows and at least 2 are needed", "59 bars of M1", options=("timeframes=M1:300",))
    refused(line(1, "Open", "Opening"), "line 1, column 1", '"Time" is no moment')
    refused(line(1, "High", "Top"), "line 1 names columns, and none is high")
    refused(line(1, "Time", "Moment"), "none is the time")
    refused(line(1, "Volume", "Open"), "line 1, column 6 (Open)", "column 2 is the first")
    refused(line(1, "Volume", "timestamp"), "line 1, column 1 (Time)", "second column of the time")
    refused(field(7, 1, "15/08/2022 10:06"), "line 7, column 1 (Time)", "15/08/2022", "year first")
    refused(field(7, 1, "08/09/22"), "line 7, column 1 (Time)", "one way only")
    refused(field(7, 1, "2022-02-30 10:00"), "line 7, column 1 (Time)", "2022-02-30")
    refused(field(7, 1, "2022-08-15 24:00"), "line 7, column 1 (Time)")
    refused(field(7, 1, ""), "line 7, column 1 (Time)")
    refused(good[:7] + good[5:], "line 8, column 1 (Time)", "not after the bar before it")
    refused(good[:1] + good[:0:-1], "line 3, column 1 (Time)", "order of time")
    refused(field(9, 4, "-1"), "line 9, column 4 (Low)", "-1 is no price")
    refused(field(9, 3, "1e-3"), "line 9, column 2 (Open)", "above the bar's high")
    refused(field(9, 4, "7"), "line 9, column 2 (Open)", "below the bar's low")
    refused(field(9, 5, "x"), "line 9, column 5 (Close)", '"x" is no number')
    refused(field(9, 5, ""), "line 9, column 5 (Close)", "prepare.missing")
    refused(field(9, 5, "inf"), "line 9, column 5 (Close)", "finite")
    refused(field(9, 6, "-3"), "line 9, column 6 (Volume)", "-3 is no volume")
    refused(line(9, ",", ",,"), "line 9 has 7 columns; expected 6 as in line 1")
    refused(good[:2] + [good[2].replace(":00,", ":30,", 1)] + good[3:], "line", "apart")
    refused(good[:50] + [w.replace(":00,", ":07,", 1) for w in good[50:]], "line 51, column 1",
            "no whole number of bars of M1")
    refused("".join("%d,1,1,1,1\n" % (1660557960 + 77 * i) for i in range(9)), "77 s", "one such timeframe")
    refused("1;2;3;4;5,6,7,8,9\n", 'at ","', 'at ";"')
    refused(good, "M1 twice", options=("timeframes=M1:30 M1:20",))
    refused(good, '"M7:3"', options=("timeframes=M7:3",))
    refused(good, '"M5"', options=("timeframes=M5",))
    refused(good, '"M5:0"', options=("timeframes=M5:0",))
    refused(good, "more than 6 windows", options=("timeframes=M1:1 M2:1 M3:1 M4:1 M5:1 M6:1 M10:1",))
    most = ("timeframes=M1:30", "horizon=80", "validation_fraction=0.9")
    refused(good, "leaves no row to train", "the next 80 bars", "prepare.horizon", options=most)
    refused(good, "leaves no row to train", "prepare.purge: targets", options=(*most, "purge=windows"))
    hours = ["%d,1,1,1,1" % (1660557600 + 3600 * i) for i in range(99)]
    refused(hours, "prepare.timeframes has M1", "H1; accepted are multiples", options=("timeframes=M1:30 H1:3",))
    assert "No such file" in prepared("absent.csv", code=100)


@limit(60)
def test_file_is_made_again_when_source_or_options_change():
    bars = bars_make(400)
    bars_write("bars.csv", bars)
    options = ("timeframes=M1:30 M5:6", "horizon=5", "gap_bars=200")
    assert "up to date" not in prepared("bars.csv", *options)
    assert "up to date" in prepared("bars.csv", *options)
    with h5py.File("bars.h5") as f:
        first = f.attrs["fingerprint"]
    for other in ("horizon=6", "stride=2", "gap_bars=100", "gap_windows=none", "purge=windows", "timeframes=M1:30", "missing=drop",
                  "normalise=standard", "validation_fraction=0.2"):
        assert "up to date" not in prepared("bars.csv", *options, other), other
        with h5py.File("bars.h5") as f:
            assert f.attrs["fingerprint"] != first
    bars_write("bars.csv", bars[:390])
    assert "up to date" not in prepared("bars.csv", *options)
    done = subprocess.run([PREPARE, "check", "--config", "bars.yaml"], capture_output=True, text=True)
    assert done.returncode == 100 and "float values" in done.stderr and "train/features/M5: f32 [" in done.stdout, done
    assert "equal rows: 0 of" in done.stdout and "train/targets: f32 [" in done.stdout


def bars_read(name):
    if not os.path.exists(os.path.join(DATA, name)):
        skip("%s is not there" % os.path.join(DATA, name))
    with open(os.path.join(DATA, name), newline="") as f:
        rows = [r for r in csv.reader(f) if r[0] != "Date"]

    def moment(r):
        if ":" in r[1]:
            return datetime.datetime.strptime(r[0] + r[1], "%Y.%m.%d%H:%M"), r[2:7]
        return datetime.datetime.strptime(r[0], "%Y-%m-%d %H:%M:%S" if " " in r[0] else "%Y-%m-%d"), r[1:6]
    return [(int(t.replace(tzinfo=datetime.timezone.utc).timestamp()), *map(float, v)) for t, v in map(moment, rows)]


@limit(120)
def test_measured_minutes_in_the_default_windows():
    bars = bars_read("EURUSD_M1.csv")
    said = prepared(os.path.join(DATA, "EURUSD_M1.csv"))
    assert "34342 bars of M1 from 2022-08-15 10:06 to 2022-10-25 16:16 in 8 stretches" in said, said
    frames = [("M1", 480), ("M5", 288), ("M15", 192), ("H1", 96), ("H4", 48)]
    rows_compare("bars.h5", bars, Reckoning(bars, frames, 60, 36), every=700)


@limit(120)
def test_measured_hours_and_days():
    for name, frames, count in (("GBPUSDh1", [("H1", 96), ("H4", 48), ("D1", 20)], 57600),
                                ("USDJPYh1", [("H1", 24)], 57600), ("USDJPYh4", [("H4", 60), ("D1", 30)], 14400),
                                ("GBPUSDd1", [("D1", 60)], 2400)):
        bars = bars_read(name + ".csv")
        windows = "timeframes=" + " ".join("%s:%d" % f for f in frames)
        said = prepared(os.path.join(DATA, name + ".csv"), windows, "stride=5")
        assert "%d bars of %s" % (count, frames[0][0]) in said, said
        rows_compare("bars.h5", bars, Reckoning(bars, frames, 60, 36), every=307)


@limit(60)
def test_first_rows_reckoned_by_hand():
    """GBPUSDh1.csv begins on 2012-11-16 05:00; the prices below are those of its first lines."""
    bars_read("GBPUSDh1.csv")
    prepared(os.path.join(DATA, "GBPUSDh1.csv"), "timeframes=H1:2 H4:1", "horizon=2")
    with h5py.File("bars.h5") as f:
        # The first block of four hours ends at 08:00 (05:00, 06:00 and 07:00 are there): so is the first row decided.
        assert int(f["train/times"][0]) == 1353052800
        hour, block, target = (f["train/features/H1"][0], f["train/features/H4"][0], f["train/targets"][0])
    ln = math.log
    assert numpy.allclose(hour, [
        [ln(158597 / 158599), ln(158628 / 158599), ln(158573 / 158599), ln(158573 / 158599), ln(1 + 1220)],
        [0, ln(158632 / 158573), ln(158480 / 158573), ln(158571 / 158573), ln(1 + 1559)]], rtol=1e-6, atol=1e-12)
    assert numpy.allclose(block, [[0, ln(158632 / 158611), ln(158480 / 158611), ln(158571 / 158611),
                                   ln(1 + 1032 + 1220 + 1559)]], rtol=1e-6, atol=1e-12)
    assert numpy.allclose(target, [ln(158824 / 158571), ln(158833 / 158571)], rtol=1e-6)


def missing_asked(predict, bars, known):
    """Each row says of which moment it is, whatever was left out before it; known: by moment what is said without."""
    bars_write("holes.csv", bars)
    with open("holes.csv") as f:
        lines = f.read().splitlines()
    for line in (1502, 1521):  # the newest bar, too
        lines[line - 1] = lines[line - 1].rsplit(",", 2)[0] + ",NA,"
    with open("holes.csv", "w") as f:
        f.write("\n".join(lines) + "\n")
    ask = [*predict, "--data", "holes.csv", "--set", "prepare.stride=1", "--out", "holes.csv.csv"]
    done = subprocess.run(ask, capture_output=True, text=True)
    assert done.returncode == 100 and "line 1502, column 5 (Close)" in done.stderr, done
    done = subprocess.run([*ask, "--set", "prepare.missing=drop"], capture_output=True, text=True)
    assert done.returncode == 0 and "2 bars with missing values were dropped" in done.stdout, done
    assert "the first in line 1502 of" in done.stdout, done.stdout
    with open("holes.csv.csv") as f:
        rows = list(csv.reader(f))
    assert rows[0] == ["row", "time"] + ["log_return_%d" % k for k in range(1, 5)], rows[0]
    said = {int(datetime.datetime.fromisoformat(r[1] + "+00:00").timestamp()): [float(v) for v in r[2:]] for r in rows[1:]}
    assert set(said) == set(known) - {bars[1500][0] + 60, bars[1519][0] + 60}
    before = [t for t in said if t <= bars[1499][0] + 60]
    assert len(before) > 1000 and all(numpy.allclose(said[t], known[t], atol=1e-6) for t in before)


def newest_asked(run):
    """What the run says of its own rows it says of them in a new file, and of the newest bar, which has no future."""
    predict = [os.path.join(ROOT, "pipelines/predict.sh"), "--run", run.directory, "--task", "B"]
    subprocess.run([*predict, "--out", "own.h5"], check=True)
    with h5py.File("bars.h5") as f, h5py.File("own.h5") as own:
        times, said = f["validation/times"][:], own["outputs"][:]
        assert numpy.array_equal(own["times"][:], times)
    os.remove("bars.h5")
    new = bars_make(1520)  # the same and 20 more
    bars_write("new.csv", new)
    subprocess.run([*predict, "--data", "new.csv", "--set", "prepare.stride=1", "--out", "new.h5"], check=True)
    like = ["prepare.stride=1", "data.source=new.csv", "prepare.like=" + run.path("prepared/A.h5")]
    subprocess.run([PREPARE, "bars", "--config", "mine.yaml", "--out", "like.h5",
                    *(w for o in like for w in ("--set", o))], check=True)
    with h5py.File("like.h5") as f, h5py.File("new.h5") as g:
        assert set(f["validation"]) == {"features", "times", "begins"} and "train" not in f
        decided, outputs = f["validation/times"][:], g["outputs"][:]
    assert len(outputs) == len(decided) and decided[-1] == new[-1][0] + 60
    assert numpy.abs(outputs[numpy.searchsorted(decided, times)] - said).max() < 1e-5
    done = subprocess.run([*predict, "--data", "new.csv", "--out", "new.h5"], check=True, capture_output=True, text=True)
    with h5py.File("new.h5") as g:  # every third, the newest among them
        assert numpy.abs(g["outputs"][:] - outputs[(len(outputs) - 1) % 3::3]).max() < 1e-5, done
        assert numpy.array_equal(g["times"][:], decided[(len(outputs) - 1) % 3::3])
    missing_asked(predict, new, dict(zip(decided.tolist(), outputs)))
    bars_write("plain.csv", new, volume=False)
    with open("plain.csv") as f:
        lines = f.readlines()
    with open("hours.csv", "w") as f:
        f.writelines(lines[:1] + lines[1:1001:60])
    for name, what in (("plain.csv", "has no volume"), ("hours.csv", "plain")):
        done = subprocess.run([*predict, "--data", name, "--out", "x.h5"], capture_output=True, text=True)
        assert done.returncode == 100 and len(done.stderr.splitlines()) == 1, done
        assert what == "plain" or what in done.stderr, done.stderr
    subprocess.run([PREPARE, "bars", "--config", "mine.yaml", "--out", "windows.h5", "--set", "data.source=new.csv",
                    "--set", "prepare.timeframes=M1:8 M5:16"], check=True)  # as many values a row
    done = subprocess.run([*predict, "--data", "windows.h5", "--out", "x.h5"], capture_output=True, text=True)
    assert done.returncode == 100 and '"M1:8" and there "M1:16"' in done.stderr, done


@limit(120)
def test_windows_of_two_timeframes_train_an_lstm():
    """From a CSV file of bars to a finished run: the timeframes one behind the other are the steps of a sequence."""
    bars_write("minutes.csv", bars_make(1500))
    config = """data: {prepare: bars, source: %s, file: %s}
prepare: {timeframes: "M1:16 M5:8", horizon: 4, stride: 3, gap_bars: 20, normalise: standard}
model:
  loss: huber
  layers: [{type: sequence, steps: %d}, {type: lstm, out: 8}, {type: pool, kind: last}, {type: linear, out: 4}]
training: {batch_size: 32}
tasks: [{name: A, epochs: 2}, {name: B, from: A, ewc: [A]}]
continual_learning: {ewc_config: {fisher_samples: 64}}
"""
    for steps in (24, 23):
        with open("mine.yaml", "w") as f:
            f.write(config % (os.path.abspath("minutes.csv"), os.path.abspath("bars.h5"), steps))
        run = Run("run%d" % steps, "--config", "mine.yaml", "--set", "training.metric=r2")
        if steps == 23:
            assert run.wait() == 100 and "are not 23 equal steps" in run.output(), run.output()
            continue
        report = run.finish()
        plan_check(report)
        assert [t["metric"] for t in report["tasks"]] == ["r2", "r2"] and report["steps"] > 20, report
        assert all(math.isfinite(e["loss"]) for e in report["epochs"]) and len(report["epochs"]) == 3, report
        newest_asked(run)


def pipeline_run(name, *settings):
    words = [w for s in settings for w in ("--set", s)]
    return Run(name, "--config", os.path.join(ROOT, "pipelines/bars.yaml"), "--set",
               "data.file=" + os.path.abspath(name + ".h5"), "--set", "tasks.returns.epochs=1", *words)


@limit(120)
def test_the_pipeline_of_bars_takes_a_file_of_ones_own():
    bars_write("minutes.csv", bars_make(6000))
    report = pipeline_run("mine", "data.source=" + os.path.abspath("minutes.csv"), "prepare.stride=4",
                          "prepare.timeframes=M1:16 M5:12 M15:10", "prepare.gap_bars=60").finish()
    plan_check(report)
    task, = report["tasks"]
    assert task["metric"] == "r2_zero" and -1 < task["final"] < 1, task


@limit(180)
def test_the_pipeline_of_bars_exports_the_prices_of_debian():
    if subprocess.run(["dpkg-query", "-W", "r-cran-timeseries"], capture_output=True).returncode:
        skip("r-cran-timeseries is not installed")
    source = os.path.join(ROOT, "runs/cache/usdchf.csv")
    run = pipeline_run("prices", "prepare.stride=8")
    report = run.finish(150)
    with open(source) as f:
        lines = f.read().splitlines()
    assert lines[0] == "time,open,high,low,close" and lines[1] == "1996-04-01 00:00,1.193,1.193,1.193,1.193"
    assert len(lines) == 1 + 62496 and lines[-1].startswith("2001-03-30 23:30,1.742,1.7429,1.742,1.7429"), lines[-1]
    assert "62496 bars of M30" in run.output() and -0.05 < report["tasks"][0]["final"] < 0.05, report["tasks"]
