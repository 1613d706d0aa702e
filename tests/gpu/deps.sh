#!/bin/bash
# deps.sh - unpacks the libraries that finetuned needs into a folder, for a machine that has none of them.
#
#   tests/gpu/deps.sh [DIR]    default .deps, which git ignores; the same folder is packed into DIR.tar.gz
#
# For a GPU machine without network: run it where apt-get is (Debian or Ubuntu, x86-64), carry the folder, then
# `make DEPS=DIR` builds with it and `make gpu-check DEPS=DIR` runs with it. The packages are those of the group run of
# pipelines/packages.txt that are libraries or s6, and what these depend on; no root is needed and nothing is installed.
# Kept are headers, pkg-config files, s6's programs and the libraries that ours load, seen from their ELF headers; glibc
# and GCC's own libraries are taken from the machine, which must not have older ones than this one: then programs built
# here run there, too. At the end every library's needs are checked to be met in the folder.
set -u
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." || exit 111
. pipelines/common.sh
folder=${1:-.deps}
# what every Linux with a C++ compiler has
SYSTEM='^(ld-linux-x86-64|libc|libm|libpthread|libdl|librt|libresolv|libstdc[+][+]|libgcc_s|libgomp)[.]so'
LINKED="libhdf5_serial libzmq libmsgpackc libmsgpack-c libyaml libdeflate libnettle libz libzstd libopenbabel libinchi"
SYSTEM_PACKAGES='^(libc6|libgcc-s1|libstdc[+][+]6|libgomp1|gcc-[0-9]+-base|debconf.*|dpkg|install-info|libc-bin|openssl|media-types)$'

case ${1:-} in
-h | --help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
    exit 0
    ;;
esac
work=$(mktemp -d) || exit $EXIT_TEMPORARY
trap 'rm -rf "$work"' EXIT

offered() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'
}

# chosen: the first offered package of each requirement ("a|b") that is a library's or s6.
chosen() {
    local requirement name
    sed -nE 's/^run +([^?]*)[?]?$/\1/p' pipelines/packages.txt |
        grep -E -- '-dev(\||$)|^s6$' | grep -vE '^(libc6|libmicrohttpd)-dev$' | # no page is looked at there
        while read -r requirement; do
            for name in ${requirement//|/ }; do
                ! offered "$name" || { echo "$name"; break; }
            done
        done
}

# needs PACKAGE...: what they depend on but for other -dev packages and the system's; of alternatives the first.
needs() {
    LC_ALL=C apt-cache --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
        depends "$@" | sed -nE 's/^ +\|?(Pre)?Depends: ([a-z0-9].*)$/\2/p' | sort -u |
        grep -vE -- '-dev$' | grep -vE "$SYSTEM_PACKAGES"
}

# closure FILE: adds to the list in FILE until it grows no more.
closure() {
    local before=-1
    while [ "$(wc -l <"$1")" != "$before" ]; do
        before=$(wc -l <"$1")
        { cat "$1"; needs $(cat "$1"); } | sort -u >"$work/more"
        mv "$work/more" "$1"
    done
}

elf_name() {
    LC_ALL=C readelf -d "$1" 2>/dev/null | sed -nE 's/.*\(SONAME\).*\[(.*)\]/\1/p'
}
elf_needs() {
    LC_ALL=C readelf -d "$@" 2>/dev/null | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' | sort -u
}

# library_find NAME: its unpacked file.
library_find() {
    local place
    for place in usr/lib/x86_64-linux-gnu lib/x86_64-linux-gnu usr/lib; do
        [ ! -e "$work/tree/$place/$1" ] || { printf '%s\n' "$work/tree/$place/$1"; return; }
    done
}

# What our programs and those of s6 are linked with: the names that the -dev packages' links lead to.
wanted_first() {
    local link
    for link in $LINKED; do
        link=$(library_find "$link.so")
        [ -z "$link" ] || elf_name "$link"
    done
    elf_needs "$work"/tree/bin/* "$work"/tree/usr/bin/*
}

# libraries_keep: the unpacked ones that those reach, into $folder.
libraries_keep() {
    local to=$folder/usr/lib/x86_64-linux-gnu wanted name file found
    mkdir -p "$to"
    wanted=$(wanted_first)
    while [ -n "$wanted" ]; do
        found=
        for name in $wanted; do
            [[ ! $name =~ $SYSTEM ]] && [ ! -e "$to/$name" ] || continue
            file=$(library_find "$name")
            [ -n "$file" ] || { missing+=" $name"; continue; }
            cp -L -- "$file" "$to/$name"
            found+=" $(elf_needs "$file")"
        done
        wanted=$(printf '%s\n' $found | sort -u)
    done
}

# links_make: what -lNAME finds: libNAME.so, where the -dev packages put it.
links_make() {
    local link name
    (cd "$work/tree/usr/lib" && find . -name '*.so' -type l) | while read -r link; do
        name=$(elf_name "$work/tree/usr/lib/$link")
        [ -n "$name" ] && [ -e "$folder/usr/lib/x86_64-linux-gnu/$name" ] || continue
        mkdir -p "$folder/usr/lib/$(dirname "$link")"
        ln -sf -- "$(realpath -m --relative-to="$folder/usr/lib/$(dirname "$link")" \
            "$folder/usr/lib/x86_64-linux-gnu/$name")" "$folder/usr/lib/$link"
    done
}

command -v apt-get >/dev/null || fail $EXIT_PERMANENT "this needs apt-get (Debian or Ubuntu)"
chosen >"$work/packages"
[ -s "$work/packages" ] ||
    fail $EXIT_PERMANENT "apt offers none of the packages: fetch the lists first (pipelines/setup.sh lists)"
closure "$work/packages"
mkdir "$work/archives" "$work/tree"
(cd "$work/archives" && apt-get -q download $(cat "$work/packages")) >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; fail $EXIT_TEMPORARY "apt-get could not download the packages (above)"; }
for archive in "$work"/archives/*.deb; do
    dpkg -x "$archive" "$work/tree" || fail $EXIT_TEMPORARY "cannot unpack $archive"
done
rm -rf "$folder"
missing=
libraries_keep
links_make
# Of Open Babel's the one that is used here.
for plugin in "$work"/tree/usr/lib/x86_64-linux-gnu/openbabel/*/smilesformat.so; do
    [ -e "$plugin" ] || continue
    to=$folder/usr/lib/x86_64-linux-gnu/openbabel/$(basename "$(dirname "$plugin")")
    mkdir -p "$to" && cp -- "$plugin" "$to/"
done
mkdir -p "$folder/usr/bin"
cp -r "$work/tree/usr/include" "$folder/usr/"
cp -r "$work/tree/usr/lib/x86_64-linux-gnu/pkgconfig" "$folder/usr/lib/x86_64-linux-gnu/"
cp "$work"/tree/bin/s6-* "$work"/tree/usr/bin/s6-* "$work"/tree/bin/exec* "$work"/tree/usr/bin/exec* "$folder/usr/bin/" 2>/dev/null
[ -z "$missing" ] || fail $EXIT_PERMANENT "no package of the list holds$missing"
tar -czf "$folder.tar.gz" --owner=0 --group=0 -C "$folder" . || fail $EXIT_TEMPORARY "cannot write $folder.tar.gz"
echo "deps: $(wc -l <"$work/packages") packages, $(ls "$folder"/usr/lib/x86_64-linux-gnu/*.so.* | wc -l) libraries, $(du -sm "$folder" | cut -f1) MiB in $folder, $(du -sm "$folder.tar.gz" | cut -f1) MiB packed"
