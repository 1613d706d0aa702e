#!/bin/bash
# predict.sh - outputs of a trained model for the rows of any file of its layout, to HDF5 or CSV.
#
# A loaderd of its own reads the file, in a directory of its own, so the run may go on meanwhile, and a hostile file
# ends as a sentence; `trainerd --predict` (whose --help this prints) asks it for the rows. Nothing but the file of
# predictions is left behind.
#
# example: pipelines/predict.sh --run runs/fashion --task B --data new.h5 --out new.csv
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common.sh"

DEATHS_MAX=3 # of loaderd

run= data= out= task= data_as= split= options=() words=() # words: for trainerd as they are
while [ $# -gt 0 ]; do
    case $1 in
    --run) need_value "$1" $#; run=$(realpath -m -- "$2"); shift ;;
    --data) need_value "$1" $#; data=$(realpath -m -- "$2"); shift ;;
    --out) need_value "$1" $#; out=$(realpath -m -- "$2"); shift ;;
    --checkpoint) need_value "$1" $#; words+=("$1" "$(realpath -m -- "$2")"); shift ;;
    --split) need_value "$1" $#; split=1; options+=(--set "data.validation=$2"); shift ;;
    --set) need_value "$1" $#; options+=(--set "$2"); shift ;;
    --task) need_value "$1" $#; task=$2; words+=("$1" "$2"); shift ;;
    --data-as) need_value "$1" $#; data_as=$2; words+=("$1" "$2"); shift ;;
    *) words+=("$1") ;; # trainerd knows them, or says that it does not
    esac
    shift
done

"$here/setup.sh" || exit
programs_build >&2
case " ${words[*]-} " in *" --help "* | *" -h "*) exec "$binaries/trainerd" --predict --help ;; esac
# trainerd says which word is unknown, or else which is missing
[ -n "$run" ] && [ -n "$out" ] ||
    exec "$binaries/trainerd" --predict ${run:+--run "$run"} ${out:+--out "$out"} ${words[@]+"${words[@]}"}
why=$({ : <"$run/pipeline.yaml"; } 2>&1) ||
    fail $EXIT_PERMANENT "cannot read the run in $run (pipeline.yaml: ${why##*: })"
own=$("$binaries/prepare" get --config "$run/pipeline.yaml" data.file data.prepare) || exit
IFS=$'\037' read -r own made <<<"$own" # made: how the run's data file was
task=${data_as:-$task}
files=0 # data files of the tasks, where none of these is named
if [ -z "$task" ]; then
    list=$("$binaries/prepare" files --config "$run/pipeline.yaml") || exit
    IFS=$'\037' read -r task _ <<<"$list"
    files=$(cut -d $'\037' -f 2 <<<"$list" | sort -u | wc -l)
fi
# a task may have a file of its own; one that there is not, trainerd refuses
file=$("$binaries/prepare" get --config "$run/pipeline.yaml" "tasks.$task.file" 2>/dev/null)
own=${file:-$own}
[ -n "$data" ] || data=$own
[ -r "$data" ] || fail $EXIT_PERMANENT "cannot read the data file $data; --data FILE or --task NAME says of others"

# prepared COMMAND...: prints what `prepare COMMAND` prints; where it fails, what it said last is the sentence.
prepared() {
    local code=0
    { "$binaries/prepare" "$@" 2>"$work/prepare.log"; } 2>/dev/null || code=$? # without bash's remark if it died
    [ $code -le 128 ] ||
        fail $EXIT_PERMANENT "prepare $1 died of signal $((code - 128)) while it read $data, which may be damaged"
    [ $code = 0 ] || fail $code "$(tail -n 1 "$work/prepare.log")"
}

# is_hdf5 FILE: the signature stands at its beginning, or behind a user block of 512 bytes, or twice as many ...
is_hdf5() {
    local at # no pipe in a loop: bash now and then loses track of one's processes, and says so
    printf '\211HDF\r\n\032\n' >"$work/signature" || fail $EXIT_TEMPORARY "cannot write $work/signature"
    for at in 0 512 1024 2048 4096; do
        ! cmp -s -n 8 -i 0:$at "$work/signature" "$1" || return 0
    done
    case ${1,,} in *.h5 | *.hdf5) return 0 ;; esac # it was one, or should be: the reader says what is wrong
    return 1
}

# kind_choose: sets kind to the command of prepare that reads $data as the run's own data were read; nothing: none has to.
kind_choose() {
    if [ -d "$data" ]; then
        [ -e "$data/features.npy" ] || fail $EXIT_PERMANENT "the directory $data holds no features.npy; accepted are an HDF5 file, a table, and a directory of NumPy's arrays"
        kind=npy
    elif is_hdf5 "$data"; then
        kind=
    elif [ "${data##*/}" = features.npy ]; then
        fail $EXIT_PERMANENT "$data is one array of several; accepted is the directory that holds it"
    else
        case $made in
        csv | npy | none) kind=csv ;;
        molecules | bars) kind=$made ;;
        *) fail $EXIT_PERMANENT "$data is not an HDF5 file; new rows in other files are prepared where data.prepare was csv, npy, molecules or bars, and that of the run in $run was $made" ;;
        esac
    fi
}

# like_find [--rows FILE]: sets like to the file that new rows follow; a file of rows that are not like its is refused.
like=
like_find() {
    like=$(prepared like --config "$run/pipeline.yaml" --task "$task" "$@")
}

# data_follow: a table, NumPy's arrays, molecules or bars are prepared as the run's own data were, with their normalisation and
# classes; what prepare makes holds the rows in the group validation.
data_follow() {
    local kind smiles
    kind_choose
    [ -n "$kind" ] || return 0
    [ "$files" -le 1 ] ||
        fail $EXIT_PERMANENT "the tasks of the run in $run have data of their own; --data-as TASK says as whose $data is to be prepared"
    [ -z "$split" ] || fail $EXIT_PERMANENT "--split names a group of an HDF5 file, and $data is none; leave --split out"
    like_find || exit
    smiles=$("$binaries/prepare" get --config "$run/pipeline.yaml" "tasks.$task.smiles") || exit # the task's own
    prepared "$kind" --config "$run/pipeline.yaml" ${smiles:+--set "prepare.smiles=$smiles"} \
        ${options[@]+"${options[@]}"} --set "data.prepare=$kind" --set "data.source=$data" \
        --set "prepare.like=$like" --out "$work/data.h5"
    words+=(--data "$data")
    data=$work/data.h5
    options+=(--set data.validation=validation)
    [ "$kind" = molecules ] || options+=(--set data.features=features --set data.targets=targets)
}

work=$(mktemp -d) || exit $EXIT_TEMPORARY # its path is short enough for sockets
loader= predictor=
finish() {
    kill $loader $predictor 2>/dev/null
    wait 2>/dev/null
    rm -rf -- "$work"
    [ -z "$predictor" ] || rm -f -- "$out.tmp-$predictor"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

data_follow
# It knows the names of classes and targets. Of a run that keeps nothing, whose file has changed, there is none, which is told;
# rows that prepare did not make have neither names nor what could be compared.
if [ -z "$like" ] && [ "$made" != idx ] && [ "$made" != text ]; then
    if like_find 2>"$work/like.log"; then
        like_find --rows "$data" || exit
    elif ! grep -q 'was not made by prepare\|has no task' "$work/like.log"; then
        echo "predict: names are left out, and it is not looked whether $data was prepared as the run's data were: of ${own##*/} that cannot be told"
    fi
fi
[ -z "$like" ] || words+=(--like "$like")
"$binaries/prepare" run --config "$run/pipeline.yaml" --run "$work" "${options[@]}" --set data.prepare=none \
    --set continual_learning.fisher_dir= --rows "$data" || exit
case $made in
bars | none) prepared times --config "$work/pipeline.yaml" --out "$work/times" ;;
esac
[ ! -e "$work/times" ] || words+=(--times "$work/times")

loader_start() {
    FINETUNED_READY_FD=3 "$binaries/loaderd" --run "$work" 2>>"$work/loaderd.log" 3>/dev/null &
    loader=$!
}

loader_start
"$binaries/trainerd" --predict --run "$run" --work "$work" --out "$out" "${words[@]}" &
predictor=$!
deaths=0
while wait -n -p ended "$loader" "$predictor"; code=$?; [ "$ended" != "$predictor" ]; do
    deaths=$((deaths + 1))
    if [ "$code" = $EXIT_PERMANENT ] || [ $deaths -gt $DEATHS_MAX ]; then
        [ "$code" = $EXIT_PERMANENT ] || code=$EXIT_TEMPORARY
        fail "$code" "loaderd, which reads the data, ended: $(tail -n 1 "$work/loaderd.log")"
    fi
    loader_start
done
exit "$code"
