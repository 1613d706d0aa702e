#!/bin/bash
# usdchf.sh - exports the half-hourly prices of a US dollar in Swiss francs that Debian carries (package
# r-cran-timeseries: 62,496 prices, April 1996 to March 2001) as a CSV file of bars. finetune.sh calls it for
# pipelines/bars.yaml when it is given no data.source of your own.
#
#   pipelines/usdchf.sh FILE   write them there (not if the file is there already)
#   pipelines/usdchf.sh --help this
#
# A bar's open is the price before it, since there is one price for each half hour. Installs R and the package when
# they are missing (pipelines/setup.sh prices).
#
# example: pipelines/usdchf.sh runs/cache/usdchf.csv
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common.sh"

case ${1:-} in
-h | --help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
    exit 0
    ;;
'' | -*) fail $EXIT_PERMANENT "usage: pipelines/usdchf.sh FILE" ;;
esac
file=$1
[ ! -e "$file" ] || exit 0
"$here/setup.sh" prices || exit
mkdir -p -- "$(dirname -- "$file")" || exit $EXIT_TEMPORARY
echo "usdchf: writing $file"
Rscript --vanilla - "$file.tmp" <<'R' >/dev/null 2>"$file.error" || fail $EXIT_TEMPORARY "cannot export the prices with R: $(tail -n 1 "$file.error")"
suppressPackageStartupMessages(library(timeSeries))
data(USDCHF)
price <- as.numeric(USDCHF[, 1])
open <- c(price[1], price[-length(price)])
bars <- data.frame(time = format(time(USDCHF), "%Y-%m-%d %H:%M"), open = open, high = pmax(open, price),
                   low = pmin(open, price), close = price)
write.csv(bars, commandArgs(trailingOnly = TRUE)[1], row.names = FALSE, quote = FALSE)
R
rm -f -- "$file.error"
mv -- "$file.tmp" "$file"
