#!/bin/bash
# run_on_device.sh - make gpu-check, on the machine that has the GPU: unpacks, builds, checks, writes the results.
#
#   tests/gpu/run_on_device.sh [STEP,STEP...]    parts of the steps' names; all of them unless given
#
# Libraries that the machine lacks come from the folder that DEPS names, or from .deps or .deps.tar.gz where one is there
# (tests/gpu/deps.sh makes both). With BUILT=1 the programs in build/release are taken as they are if they run: built elsewhere and carried.
# Else they are built here. PYTHON (python3) is the one that has PyTorch. COMMIT names what is checked where the folder has no
# history of git. Results: docs/gpu, and $OUT where that is set.
set -u
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." || exit 111
case ${1:-} in
-h | --help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
    exit 0
    ;;
esac
python=${PYTHON:-python3}
if ! "$python" -c 'import numpy' 2>/dev/null; then
    echo "gpu-check: cannot check with $python, which has no numpy; install python3-numpy, or name another with PYTHON (the comparison takes the one that has PyTorch)" >&2
    exit 100
fi
deps=${DEPS:-}
if [ -z "$deps" ] && [ ! -d .deps ] && [ -f .deps.tar.gz ]; then
    mkdir .deps && tar -xzf .deps.tar.gz -C .deps || exit 111
fi
[ -n "$deps" ] || [ ! -d .deps ] || deps=.deps
deps=${deps:+$(realpath -- "$deps")}

# Do the carried programs run here, and are all of them there that the steps run?
programs_run() {
    local name
    for name in device_probe engine_probe unit prepare fisherd loaderd monitord; do
        [ -x "build/release/bin/$name" ] || return
    done
    LD_LIBRARY_PATH=${deps:+$deps/usr/lib/x86_64-linux-gnu:$deps/usr/lib:}${LD_LIBRARY_PATH:-} \
        build/release/bin/trainerd --help >/dev/null && [ -e build/release/lib/libengine-cuda.so ]
}

if [ -z "${BUILT:-}" ] || ! programs_run; then
    started=$SECONDS
    make -s -j "$(nproc)" DEPS="$deps" all unit || exit 100
    echo "build: $((SECONDS - started)) s"
fi
exec "$python" -u tests/gpu/gpu_check.py --names "${1:-}" --deps "$deps" --spent "$SECONDS"
