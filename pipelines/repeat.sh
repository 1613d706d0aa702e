#!/bin/bash
# repeat.sh - one pipeline with several seeds, one run after the other, and what they reached beside each other.
#
#   pipelines/repeat.sh [--seeds N | --seeds A,B,...] [--runs DIR] [options of finetune.sh]
#
# A seed's run is DIR/<name>-seed-<seed>. What is finished is not done again and what was stopped goes on, so the same
# command resumes, and with more seeds it adds to what is there. At the end it prints what compare.sh does of them, mean
# and standard deviation of each result included, and writes it to DIR/<name>-seeds.md.
#
#   --seeds N      1 to N (default: 3), at most 16; or a list of them, as 1,7,42
#   --runs DIR     where the runs are (default: runs in the repository)
#   --help         this; pipelines/finetune.sh --help has its options (not --run, --plan, --check-data, --detach)
#
# Exit codes: 0 done; that of the first run that did not end with 0, which ends the repeats.
#
# example: pipelines/repeat.sh --seeds 5 --config pipelines/fashion.yaml
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common.sh"

SEEDS_MAX=16 # as many runs as compare.sh takes
SEED_MAX=4294967295

config=$here/default.yaml runs=$repository/runs seeds=3 words=() settings=()
while [ $# -gt 0 ]; do
    case $1 in
    --seeds) need_value "$1" $#; seeds=$2; shift ;;
    --runs) need_value "$1" $#; runs=$2; shift ;;
    --config) need_value "$1" $#; config=$2; words+=("$1" "$2"); shift ;;
    --set)
        need_value "$1" $#
        [[ $2 != seed=* && $2 != *.seed=* ]] || fail $EXIT_PERMANENT "--set $2: the seeds are given by --seeds"
        words+=("$1" "$2") settings+=("$1" "$2")
        shift
        ;;
    --run | --plan | --check-data | --detach)
        fail $EXIT_PERMANENT "$1 is of one run: pipelines/finetune.sh takes it" ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
    *) words+=("$1") ;;
    esac
    shift
done

# seeds_read: sets list from "5" or "1,7,42".
seeds_read() {
    local seed
    [[ $seeds =~ ^[0-9]+(,[0-9]+)*$ ]] || return
    list=(${seeds//,/ })
    [ ${#list[@]} -gt 1 ] || { [ "${#seeds}" -le 2 ] && [ "$seeds" -ge 1 ] && list=($(seq 1 "$seeds")); } || return
    [ ${#list[@]} -le $SEEDS_MAX ] || return
    for seed in "${list[@]}"; do
        [[ $seed =~ ^(0|[1-9][0-9]{0,9})$ ]] && [ "$seed" -le $SEED_MAX ] || return
    done
    [ "$(printf '%s\n' "${list[@]}" | sort -un | wc -l)" = ${#list[@]} ]
}
seeds_read ||
    fail $EXIT_PERMANENT "--seeds is '$seeds'; a number from 1 to $SEEDS_MAX is accepted, or 2 to $SEEDS_MAX different seeds of 0 to $SEED_MAX, as 1,7,42"

"$here/setup.sh" || exit
programs_build
name=$("$binaries/prepare" get --config "$config" ${settings[@]+"${settings[@]}"} name) || exit
runs=$(realpath -m -- "$runs")

# A signal is the run's to heed, which stops politely; then nothing more is begun. What is started in the background
# ignores SIGINT, so it hears SIGTERM instead.
child= signal=
on_signal() {
    signal=$1
    [ -z "$child" ] || kill -s "$2" "$child" 2>/dev/null
}
trap 'on_signal INT TERM' INT
trap 'on_signal TERM TERM' TERM
trap 'on_signal HUP HUP' HUP
run_one() {
    "$here/finetune.sh" --run "$1" ${words[@]+"${words[@]}"} --set "seed=$2" &
    child=$!
    while :; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break # wait was interrupted by the signal
    done
    child=
    return "$code"
}

names=()
for seed in "${list[@]}"; do
    names+=("$name-seed-$seed")
    echo "repeat: seed $seed, run ${#names[@]} of ${#list[@]}"
    run_one "$runs/${names[-1]}" "$seed"
    code=$?
    [ -z "$signal" ] || code=$((128 + $(kill -l "$signal")))
    [ $code = 0 ] || {
        echo "repeat: seed $seed has not ended well (code $code); seeds before it are done, and this same command goes on" >&2
        exit $code
    }
done
[ ${#names[@]} -gt 1 ] || exit 0
cd -- "$runs" || exit $EXIT_TEMPORARY
"$here/compare.sh" "${names[@]}" >"$runs/$name-seeds.md.tmp" || exit
mv -- "$runs/$name-seeds.md.tmp" "$runs/$name-seeds.md" || exit
echo
cat -- "$runs/$name-seeds.md"
echo
echo "repeat: $runs/$name-seeds.md"
