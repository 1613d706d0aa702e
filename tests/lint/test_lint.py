"""The house rules that a machine can check (rooms, borders, declared-once tables, formatting)."""
import json
import os
import re
import shutil
import subprocess

from harness import limit, skip

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROOMS = ("proto", "engine", "loaderd", "trainerd", "fisherd", "monitord", "pipelines", "tests")

# What a room may include: prefixes of our own headers.
MAY_INCLUDE = {
    "proto": ("proto/",),
    "engine": ("engine/", "proto/err.h", "proto/log.h"),
    "loaderd": ("loaderd/", "proto/"),
    "trainerd": ("trainerd/", "proto/", "engine/"),
    "fisherd": ("fisherd/", "proto/", "engine/"),
    "monitord": ("monitord/", "proto/"),
    "pipelines": ("pipelines/prepare/", "proto/"),
    "tests": ("",),
}

# A foreign library's header, and the files that own the library.
OWNERS = {
    r"zmq\.h": r"proto/link\.c",
    r"msgpack\.h|msgpack/.*": r"proto/msg\.c",
    r"yaml\.h": r"proto/options\w*\.c",
    r"hdf5\.h|hdf5/.*|H5\w+\.h": r"(proto/h5file\w*|loaderd/h5source\w*)\.[ch]",
    r"nettle/.*": r"proto/(digest\w*|h5file\w*)\.[ch]",
    r"libdeflate\.h": r"(proto/(h5file\w*|huffman)|loaderd/\w*decode\w*)\.c",
    r"zlib\.h": r"(proto/\w+|loaderd/\w*decode\w*|pipelines/prepare/(idx|text)\w*)\.c",
    r"openbabel/.*": r"pipelines/prepare/molecule_babel\.cc",
    r"inchi_api\.h": r"pipelines/prepare/skeleton\.c",
    r"zstd\.h": r"pipelines/prepare/lines\.c",
    r"cu(da|blas|dnn)\w*\.h": r"engine/cuda/\w+\.(c|cu|h)",
    r"nvml\.h": r"monitord/nvml\.[ch]",
    r"microhttpd\.h": r"monitord/web\w*\.c",
}


def files_list(*endings, rooms=ROOMS):
    """Paths of our sources relative to the repository, sorted."""
    found = []
    for room in rooms:
        for directory, _, names in os.walk(os.path.join(ROOT, room)):
            if "__pycache__" not in directory:
                found += [os.path.relpath(os.path.join(directory, n), ROOT) for n in names if n.endswith(endings)]
    return sorted(found)


def scripts_list():
    return files_list(".sh") + files_list("", rooms=("pipelines/services",))


def prose_and_code_list():
    """Everything that a person reads, this file excepted."""
    return [p for p in files_list(".c", ".h", ".def", ".cu", ".py", ".yaml", ".txt", ".js", ".css", ".html") + scripts_list()
            + files_list(".md", rooms=("docs",)) + ["README.md", "Makefile", ".ci/run"]
            if p != "tests/lint/test_lint.py"]


def text_of(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def code_of(path):
    """The text without comments and string contents, with the lines kept."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"'
    return re.sub(pattern, lambda m: '""' if m[0][0] == '"' else "\n" * m[0].count("\n"), text_of(path), flags=re.S)


def includes_of(path):
    return re.findall(r'^\s*#\s*include\s*(["<])([^">]+)[">]', text_of(path), flags=re.M)


def report(wrong):
    assert not wrong, "\n".join([""] + wrong)


def test_rooms_include_downwards_only():
    wrong = []
    for path in files_list(".c", ".h", ".cc"):
        room = path.split("/")[0]
        for quote, name in includes_of(path):
            if quote == '"' and not name.startswith(MAY_INCLUDE[room]):
                wrong.append('%s may not include "%s"' % (path, name))
            elif quote == '"' and not os.path.exists(os.path.join(ROOT, name)):
                wrong.append('%s: "%s" is not a path from the root' % (path, name))
    report(wrong)


def test_libraries_stay_with_their_owners():
    wrong = []
    for path in files_list(".c", ".h", ".cc"):
        if path.startswith("tests/"):
            continue
        for _, name in includes_of(path):
            for header, owner in OWNERS.items():
                if re.fullmatch(header, name) and not re.fullmatch(owner, path):
                    wrong.append("%s includes <%s>, which belongs to %s" % (path, name, owner))
    report(wrong)


def test_libraries_without_a_header_stay_with_their_owners():
    """Declared by ourselves, and opened at run time: their functions' names are in one place."""
    report(["%s knows the functions of NVIDIA's management library, which belongs to monitord/nvml.h" % path
            for path in files_list(".c", ".h", ".cu", ".cc", rooms=ROOMS[:-1])
            if not re.fullmatch(r"monitord/nvml\.[ch]", path) and re.search(r"\bnvml[A-Z]", text_of(path))])


def test_source_includes_its_own_header_first():
    wrong = []
    for path in files_list(".c"):
        own = path[:-2] + ".h"
        if os.path.exists(os.path.join(ROOT, own)):
            first = (includes_of(path) or [("", "nothing")])[0][1]
            private = os.path.exists(os.path.join(ROOT, first)) and ('"', own) in includes_of(first)
            if first != own and not private:  # a room's private header may stand before it
                wrong.append("%s includes %s first, not %s" % (path, first, own))
    report(wrong)


def test_headers_compile_alone():
    flags = subprocess.run(["pkg-config", "--cflags", "hdf5"], capture_output=True, text=True).stdout.split()
    kernels = [h for h in files_list(".h") if h.startswith("engine/cuda/") and h != "engine/cuda/handle.h"]
    plain = [h for h in files_list(".h") if not h.startswith("engine/cuda/")]
    for compiler, headers in ((["gcc", "-std=gnu11", "-x", "c"], plain),  # handle.h needs the toolkit
                              (["g++", "-std=gnu++17", "-DCUDA_EMULATED", "-x", "c++"], kernels)):
        done = subprocess.run([*compiler, "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-unused",
                               "-Wno-missing-field-initializers", "-fsyntax-only", "-I.", *flags, *headers],
                              cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_headers_guard_themselves():
    report([p for p in files_list(".h")
            if not re.search(r"#ifndef (\w+)\n#define \1\n", text_of(p))])


@limit(180)
def test_formatting():
    if not shutil.which("clang-format"):
        skip("clang-format is not installed")
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *files_list(".c", ".h", ".cu", ".cc")], cwd=ROOT,
                          capture_output=True, text=True)
    places = [line.split(": error:")[0] for line in done.stderr.splitlines() if ": error:" in line]
    files = sorted({place.split(":")[0] for place in places})
    report(["%s: %d places, first line %s; run clang-format -i" % (
        f, sum(p.startswith(f + ":") for p in places),
        next(p for p in places if p.startswith(f + ":")).split(":")[1]) for f in files])


def test_files_open_with_what_they_are():
    wrong = []
    for path in files_list(".c", ".h", ".def", ".cu"):
        if not text_of(path).startswith(("/* " + os.path.basename(path), "/* " + path)):
            wrong.append("%s does not open with '/* %s - ...'" % (path, os.path.basename(path)))
    for path in scripts_list():
        if not re.match(r"(#![^\n]*\n)?# %s - " % re.escape(os.path.basename(path)), text_of(path)):
            wrong.append(path + " does not open with what it is")
    report(wrong)


def test_nothing_is_left_for_later():
    marks = re.compile(r"\b(" + "|".join(("TO" "DO", "FIX" "ME", "XX" "X", "HA" "CK")) + r")\b")
    wrong = []
    for path in prose_and_code_list():
        wrong += ["%s:%d: %s" % (path, i, line.strip()) for i, line in enumerate(text_of(path).splitlines(), 1)
                  if marks.search(line)]
    report(wrong)


def test_no_paths_of_one_machine():
    pattern = re.compile(r"(?<![\w.])/(work|home|root)/")
    wrong = []
    for path in prose_and_code_list():
        wrong += ["%s:%d: %s" % (path, i, line.strip()) for i, line in enumerate(text_of(path).splitlines(), 1)
                  if pattern.search(line)]
    report(wrong)


def test_kernels_sum_without_atomics():
    """Sums in order of arrival would be other bits each time: atomics count blocks and find the least, and no more."""
    allowed = {"engine/cuda/cuda.h": ["atomicAdd(ticket, 1u)", "atom.acq_rel"],
               "engine/cuda/gather.cu": ["atomicMin(&least_bad, (unsigned long long)mine)", "atomicMin(&least_bad, ~0ull)"]}
    wrong = []
    for path in files_list(".cu", ".h", rooms=("engine/cuda",)):
        found = re.findall(r"\batomic\w*\s*\([^;=]*\)", code_of(path)) + re.findall(r"\b(?:red|atom)\.\w+", text_of(path))
        if path != "engine/cuda/emulate.h" and found != allowed.get(path, []):
            wrong.append("%s has %s" % (path, ", ".join(found)))
    report(wrong)


def test_only_the_skeleton_ends_a_process():
    allowed = re.compile(r"proto/(daemon|err)\.c|loaderd/child\.c")  # there: a fork that could not exec
    wrong = []
    for path in files_list(".c", rooms=ROOMS[:-1]):
        if not allowed.fullmatch(path) and re.search(r"(?<![\w.>])(_?exit|abort)\s*\(", code_of(path)):
            wrong.append(path + " ends the process")
    report(wrong)


def test_every_message_is_sent():
    """A row of messages.def that nobody uses outside the codec is a promise nobody keeps."""
    messages = re.findall(r"^MESSAGE\((\w+),", text_of("proto/messages.def"), flags=re.M)
    assert len(messages) > 20, "messages.def was not understood"
    used = "\n".join(code_of(p) for p in files_list(".c", rooms=ROOMS[:-1])
                     if not re.fullmatch(r"proto/msg\w*\.c", p))
    used = re.sub(r"(\bcase|[=!]=)\s*MSG_\w+", "", used)  # who only receives it
    report(["no sender of MSG_%s" % m for m in messages if not re.search(r"\bMSG_%s\b" % m, used)])


def test_every_option_does_something():
    fields = re.findall(r"^(?:OPT|TASK)\(\w+,\s*(\w+),", text_of("proto/options.def"), flags=re.M)
    assert len(fields) > 30, "options.def was not understood"
    used = "\n".join(code_of(p) for p in files_list(".c", rooms=ROOMS[:-1])
                     if not re.fullmatch(r"proto/options(?!_complete)\w*\.c", p))  # it acts on other options
    # What the scripts read for themselves, by `prepare get`.
    keys = dict((f, k) for f, k in re.findall(r'^OPT\(\w+,\s*(\w+),\s*"([^"]+)"', text_of("proto/options.def"),
                                              flags=re.M))
    scripts = "\n".join(text_of(p) for p in files_list(".sh", rooms=("pipelines",)))
    report(["option %s does nothing" % keys.get(f, "tasks." + f) for f in fields
            if not re.search(r"(\.|->)%s\b" % f, used)
            and not re.search(r"prepare\"? get [^\n]*(?<![\w.])%s\b" % re.escape(keys.get(f, "\0")), scripts)])


def test_page_asks_for_what_is_there():
    """web.js: elements of web.html, requests that web_server.c answers, and what web_state.c and messages say."""
    script, page = text_of("monitord/web.js"), text_of("monitord/web.html")
    there = set(re.findall(r'\bid="([\w-]+)"', page))
    wanted = set(re.findall(r'\b(?:byId|show|say)\("([\w-]+)"', script))
    assert len(wanted) > 20, "web.js was not understood"
    asked = set(re.findall(r'\b(?:ask|askJson)\("([^"]+)"', script))
    answered = set(re.findall(r'\{"(/[\w/]+)", [01], answer_', text_of("monitord/web_server.c")))
    said = set(re.findall(r'"(\w+)"', text_of("monitord/web_state.c") + text_of("monitord/web_files.c")))
    said |= set(re.findall(r"^ +\w+\((?:trainer_step|fisher_block|gpu_sample), (\w+)", text_of("proto/messages.def"), flags=re.M))
    used = set(re.findall(r"\b(?:state|run|step|estimate|list)\.([a-z]\w*_\w+|live|code|sentence|epochs|stages|files|gpu)\b", script))
    report(["web.html has no #" + i for i in sorted(wanted - there) if not i.startswith("chart-")]
           + ["nobody answers " + path for path in sorted(asked - answered)]
           + ["nobody says " + word for word in sorted(used - said)])


def test_boards_figures_are_there():
    board = json.loads(text_of("docs/grafana.json"))
    known = set(re.findall(r"`(finetuned_\w+)`", text_of("docs/METRICS.md")))
    used = {name for panel in board["panels"] for target in panel["targets"]
            for name in re.findall(r"finetuned_\w+", target["expr"])}
    assert len(used) > 15, used
    report(["docs/METRICS.md has no " + name for name in sorted(used - known)])


def test_scripts_parse():
    wrong = []
    for path in scripts_list() + [".ci/run"]:
        shell = "sh" if text_of(path).startswith("#!/bin/sh") else "bash"
        done = subprocess.run([shell, "-n", path], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            wrong.append(path + ": " + done.stderr)
    report(wrong)


def test_scripts_are_executable():
    wrong = []
    for path in scripts_list() + [".ci/run"]:
        started = text_of(path).startswith("#!")
        if started != os.access(os.path.join(ROOT, path), os.X_OK):
            wrong.append("%s: %s" % (path, "not executable" if started else "executable without #!"))
    report(wrong)


def test_python_compiles():
    for path in files_list(".py"):
        compile(text_of(path), path, "exec")


def test_no_test_hides_another():
    """Of two tests with one name in a Python file only the last runs."""
    wrong = []
    for path in files_list(".py", rooms=("tests",)):
        names = re.findall(r"^def (test_\w+)", text_of(path), flags=re.M)
        wrong += ["%s: %s stands there twice" % (path, n) for n in sorted(set(names)) if names.count(n) > 1]
    report(wrong)
