#!/bin/bash
# setup.sh - installs the Debian packages that are missing, and only those. Quiet when nothing is.
#
#   pipelines/setup.sh         what building and running need
#   pipelines/setup.sh test    that and what tests/check.sh needs
#   pipelines/setup.sh bench   that and what make bench compares with
#   pipelines/setup.sh prices  what building and running need, and R with the prices that pipelines/bars.yaml learns from
#   pipelines/setup.sh structures  the same, and the metabolites that pipelines/molecules.yaml and fragments.yaml learn from
#   pipelines/setup.sh compounds  all that, and the screening compounds that both learn from, too
#   pipelines/setup.sh lists   fetches the package lists, and installs nothing
#   pipelines/setup.sh --help  this
#
# The list is packages.txt. As root, or by sudo; where neither is possible it prints the one line to type and
# exits 100. It never touches the network when nothing is missing.
#
# example: pipelines/setup.sh test
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common.sh"

groups=run
case ${1:-} in
'') ;;
test) groups='run|test' ;;
bench) groups='run|test|bench' ;;
prices) groups='run|prices' ;;
structures) groups='run|structures' ;;
compounds) groups='run|structures|compounds' ;;
lists) groups= ;;
-h | --help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
    exit 0
    ;;
*) fail $EXIT_PERMANENT "unknown argument '$1'; accepted: test, bench, prices, structures, compounds, lists, --help" ;;
esac

# packages_look: sets installed to the packages of the list that are.
packages_look() {
    local names
    names=$(sed -nE "s/^($groups) +([^?]*)\\??\$/\2/p" "$here/packages.txt")
    installed=" $(dpkg-query -W -f '${db:Status-Status} ${Package}\n' ${names//|/ } 2>/dev/null |
        sed -n 's/^installed //p' | tr '\n' ' ')"
}

# missing_list MARK: the requirements ("a" or "a|b") of which no package is installed; with MARK '?' those that the
# system may lack ("a?"), without it the others.
missing_list() {
    local requirement name found
    for requirement in $(sed -nE "s/^($groups) +([^?]*)${1:+\\?}\$/\2/p" "$here/packages.txt"); do
        found=
        for name in ${requirement//|/ }; do
            case $installed in *" $name "*) found=1 ;; esac
        done
        [ -n "$found" ] || printf '%s\n' "$requirement"
    done
}

# choose REQUIREMENT: the first of its packages that the archive offers, else its first.
choose() {
    local name
    for name in ${1//|/ }; do
        if offered "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    printf '%s\n' "${1%%|*}"
}

# offered NAME: does the archive have it?
offered() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'
}

optional_offered() {
    local requirement
    for requirement in $(missing_list '?'); do
        ! offered "$requirement" || printf '%s\n' "$requirement"
    done
}

packages_chosen() {
    local requirement
    { for requirement in $missing; do
        choose "$requirement"
    done
    optional_offered; } | tr '\n' ' ' | sed 's/ $//'
}

# as_root COMMAND...
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif sudo -n true 2>/dev/null; then
        sudo -n "$@"
    elif [ -t 0 ] && command -v sudo >/dev/null; then
        sudo "$@"
    else
        return 126
    fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1
}

lists_fetch() {
    echo "setup: fetching the package lists"
    apt update || { cat "$log" >&2; fail $EXIT_TEMPORARY "apt-get update failed (above)"; }
}

command -v dpkg-query >/dev/null ||
    fail $EXIT_PERMANENT "only Debian and Ubuntu are supported, and here is no dpkg-query"
if [ -z "$groups" ]; then
    log=$(mktemp) || exit $EXIT_TEMPORARY
    trap 'rm -f "$log"' EXIT
    lists_fetch
    exit 0
fi
packages_look
missing=$(missing_list)
[ -n "$missing$(optional_offered)" ] || exit 0

if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null && ! { [ -t 0 ] && command -v sudo >/dev/null; }; then
    fail $EXIT_PERMANENT "packages are missing and this user may not install them; as root: apt-get update && apt-get install -y --no-install-recommends $(packages_chosen)"
fi

log=$(mktemp) || exit $EXIT_TEMPORARY
trap 'rm -f "$log"' EXIT
echo "setup: missing packages:" $missing $(optional_offered)
# A fresh machine or container has no package lists: apt then knows no candidate.
if [ -z "$(LC_ALL=C apt-cache policy gcc 2>/dev/null | grep 'Candidate: [^(]')" ]; then
    lists_fetch
    updated=1
fi
chosen=$(packages_chosen)
echo "setup: installing: $chosen"
if ! apt install -y --no-install-recommends $chosen; then
    if [ -z "${updated:-}" ]; then
        apt update && apt install -y --no-install-recommends $(packages_chosen)
    else
        false
    fi || { cat "$log" >&2; fail $EXIT_TEMPORARY "apt-get could not install $chosen (above)"; }
fi
packages_look
missing=$(missing_list)
[ -z "$missing" ] || fail $EXIT_PERMANENT "still missing after the installation: ${missing//$'\n'/ }"
