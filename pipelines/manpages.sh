#!/bin/bash
# manpages.sh - the texts of pipelines/text.yaml: manual pages in English, German and French, out of the archives of
# Debian's packages manpages, manpages-de and manpages-fr. finetune.sh and continual.sh call it when they are missing.
#
#   pipelines/manpages.sh DIR    make DIR/en, DIR/de and DIR/fr (not those that are there already)
#   pipelines/manpages.sh --help this
#
# The archives are fetched and unpacked, not installed: slim images leave out /usr/share/man when a package is
# installed. The pages are taken in the order of their names, of each language until they have 1,200,000 bytes, so that
# a language costs as much time as another. Needs the network once.
#
# example: pipelines/manpages.sh runs/cache/manpages
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common.sh"

BYTES=1200000 # of text a language

case ${1:-} in
-h | --help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
    exit 0
    ;;
'' | -*) fail $EXIT_PERMANENT "usage: pipelines/manpages.sh DIR" ;;
esac
[ ! -e "$1/en" ] || [ ! -e "$1/de" ] || [ ! -e "$1/fr" ] || exit 0
mkdir -p -- "$1" && directory=$(realpath -- "$1") || fail $EXIT_TEMPORARY "cannot make the directory $1"
work=$(mktemp -d "$directory/work.XXXXXX") || exit $EXIT_TEMPORARY
trap 'rm -rf -- "$work"' EXIT

# archive_fetch PACKAGE: its archive into $work. A fresh machine has no package lists yet.
archive_fetch() {
    (cd -- "$work" && apt-get -q download "$1" >log 2>&1) && return
    "$here/setup.sh" lists && (cd -- "$work" && apt-get -q download "$1" >log 2>&1) && return
    fail $EXIT_TEMPORARY "cannot fetch the package $1: $(grep '^E:' "$work/log" | tail -n 1)"
}

# pages_take FROM TO: pages of the directory FROM, unpacked, until there are enough.
pages_take() {
    local page bytes=0
    mkdir -- "$2.new" || exit $EXIT_TEMPORARY
    while [ $bytes -lt $BYTES ] && IFS= read -r page; do
        gzip -dc -- "$page" >"$2.new/$(basename -- "$page" .gz)" 2>/dev/null || continue
        bytes=$((bytes + $(stat -c %s -- "$2.new/$(basename -- "$page" .gz)")))
    done < <(LC_ALL=C find "$1" -type f -name '*.gz' | LC_ALL=C sort)
    [ $bytes -ge $BYTES ] || fail $EXIT_PERMANENT "the package has $bytes bytes of pages; at least $BYTES are needed"
    mv -- "$2.new" "$2"
}

for language in en de fr; do
    [ ! -e "$directory/$language" ] || continue
    package=manpages inside=usr/share/man
    [ $language = en ] || package=manpages-$language inside=usr/share/man/$language
    echo "manpages: fetching $package"
    archive_fetch "$package"
    mkdir -- "$work/$language" && dpkg-deb -x "$work/$package"_*.deb "$work/$language" 2>"$work/log" ||
        fail $EXIT_TEMPORARY "cannot unpack $package: $(tail -n 1 "$work/log")"
    rm -rf -- "$directory/$language.new"
    pages_take "$work/$language/$inside" "$directory/$language"
done
