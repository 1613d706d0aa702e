#!/bin/bash
# check.sh - all tests, or one group:  tests/check.sh [GROUP [PART]]
#
#   lint       rooms, library borders, headers, formatting, messages and options that nobody uses
#   docs       docs/OPTIONS.md, MESSAGES.md, LAYERS.md and METRICS.md are what the declarations say
#   unit       C unit tests, hostile and mutated files for the loader's reader
#   asan       the same under AddressSanitizer and UndefinedBehaviorSanitizer
#   reference  the engine against PyTorch
#   process    whole runs: smoke, restarts, kill -9, clients, bad input, locks
#   fault      a full disk
#
# PART runs only the cases whose file or name contains it. LONG=1 makes those cases whole that otherwise take a part of
# their data; TEST_TIMES=1 prints for each C unit test what it took. Does its own set-up (missing Debian packages,
# build); without missing packages it needs no network. A group that runs no test counts as a failed one.
# Last line: N passed, N failed, N skipped; exit code 1 if any failed.
set -u
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 111
GROUPS_ALL="lint docs unit asan reference process fault"
part=${2:-}

whole=
case ${1:-} in
'') wanted=${GROUPS_ALL% fault} whole=1 ;;
-h | --help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
    exit 0
    ;;
*)
    case " $GROUPS_ALL " in
    *" $1 "*) wanted=$1 ;;
    *)
        echo "check.sh: unknown group '$1'; accepted: $GROUPS_ALL" >&2
        exit 100
        ;;
    esac
    ;;
esac

passed=0 failed=0 skipped=0
output=$(mktemp -d) || exit 111
trap 'rm -rf "$output"' EXIT

# build VARIANT TARGET...: a failure counts as one failed test and ends the group.
build() {
    local variant=$1
    shift
    make -s -j "$(nproc)" VARIANT="$variant" "$@" >"$output/build" 2>&1 && return
    cat "$output/build"
    echo "FAIL the $variant build"
    failed=$((failed + 1))
    return 1
}

# counted COMMAND...: runs tests that end with "N passed, N failed, N skipped" and adds the counts.
counted() {
    local code line
    "$@" 2>&1 | tee "$output/group"
    code=${PIPESTATUS[0]}
    line=$(tail -n 1 "$output/group")
    if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + BASH_REMATCH[3]))
        [ "$code" = 0 ] || [ "${BASH_REMATCH[2]}" -gt 0 ] || failed=$((failed + 1))
    else
        echo "FAIL $1 ended with code $code and no counts"
        failed=$((failed + 1))
    fi
}

harness() {
    counted /usr/bin/python3 tests/harness.py "$@" ${part:+-k "$part"}
}

# page_check FILE COMMAND...: a reference page is what the program prints.
page_check() {
    local page=$1
    shift
    [[ $page == *"$part"* ]] || return 0
    if "$@" >"$output/page" && diff -u "$page" "$output/page"; then
        passed=$((passed + 1))
    else
        echo "FAIL $page is stale; run: make docs"
        failed=$((failed + 1))
    fi
}

group_lint() {
    harness tests/lint
}
group_docs() {
    build release all || return
    page_check docs/OPTIONS.md build/release/bin/prepare options-reference
    page_check docs/MESSAGES.md build/release/bin/tap --messages-reference
    page_check docs/LAYERS.md build/release/bin/trainerd --layers-reference
    page_check docs/METRICS.md build/release/bin/web --metrics-reference
}
group_unit() {
    build release all unit || return
    # the next group is built with what these tests leave of the cores, and with all of them afterwards
    [ -z "$whole" ] || nice -n 19 make -s -j "$(nproc)" VARIANT=asan all unit >/dev/null 2>&1 &
    asan_build=$!
    counted build/release/bin/unit $part
    harness tests/fuzz
}
group_asan() {
    [ -z "${asan_build:-}" ] || wait "$asan_build"
    build asan all unit || return # the stages too: a case measures them
    # what was freed need not stay poisoned for long: with the default 256 MiB each allocation is of fresh pages
    export ASAN_OPTIONS=${ASAN_OPTIONS-quarantine_size_mb=16}
    counted build/asan/bin/unit $part
    VARIANT=asan harness tests/fuzz
}
group_reference() {
    build release all unit && harness tests/reference
}
# In a whole run the cases of fault, which mostly wait, run beside those of process.
group_process() {
    build release all unit && harness ${whole:+tests/fault} tests/process
}
group_fault() {
    build release all && harness tests/fault
}

pipelines/setup.sh test || exit
started=$SECONDS
for group in $wanted; do
    echo "== $group"
    group_started=$SECONDS
    before=$((passed + failed + skipped))
    "group_$group"
    if [ $((passed + failed + skipped)) = "$before" ]; then
        echo "FAIL $group ran no test${part:+ that matches '$part'}"
        failed=$((failed + 1))
    fi
    echo "== $group took $((SECONDS - group_started)) s"
done
[ -n "$whole" ] && echo "all groups took $((SECONDS - started)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
