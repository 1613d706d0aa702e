/* bars_file.c - see bars_file.h. */
#include "pipelines/prepare/bars_file.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/timeframe.h"

enum { COLUMNS_MIN = 5, NAME_BYTES = 32 };

/* Prices nearer to each other than this share of them are equal: files hold printed floats. */
static const double price_tolerance = 1e-9;

/* ---- columns -------------------------------------------------------------------------------- */

/* Names in lower case, letters and digits only: "<TICKVOL>" is tickvol. Of volumes the first here
 * that is there is taken: where real volumes stand besides ticks they are often all 0. */
static const struct {
    const char *name;
    enum bar_column column;
} known[] = {
    {"datetime", BAR_DATE}, {"timestamp", BAR_DATE},    {"opentime", BAR_DATE},
    {"gmttime", BAR_DATE},  {"date", BAR_DATE},         {"time", BAR_CLOCK},
    {"open", BAR_OPEN},     {"high", BAR_HIGH},         {"low", BAR_LOW},
    {"close", BAR_CLOSE},   {"tickvolume", BAR_VOLUME}, {"tickvol", BAR_VOLUME},
    {"volume", BAR_VOLUME}, {"vol", BAR_VOLUME},
};

enum { KNOWN = sizeof known / sizeof known[0] };

static const char *name_plain(const char *text, char plain[NAME_BYTES])
{
    size_t used = 0;
    for (; *text && used < NAME_BYTES - 1; text++)
        if (isalnum((unsigned char)*text))
            plain[used++] = (char)tolower((unsigned char)*text);
    plain[used] = 0;
    return plain;
}

/* The column of that name in the row read last, -1: none, -2 and *e: two. */
static int64_t name_find(const struct bars_file *f, const char *name, struct err *e)
{
    int64_t found = -1;
    char plain[NAME_BYTES];
    for (uint32_t i = 0; i < f->csv.field_count; i++) {
        if (strcmp(name_plain(csv_field(&f->csv, i), plain), name) != 0)
            continue;
        if (found >= 0) {
            err_set(e, EXIT_CODE_PERMANENT,
                    "a second column of this name, column %lld is the first", (long long)found + 1);
            csv_place(&f->csv, i, csv_field(&f->csv, i), e);
            return -2;
        }
        found = i;
    }
    return found;
}

static int column_note(struct bars_file *f, int64_t column, enum bar_column role, struct err *e)
{
    if (f->column[role] >= 0) {
        if (role == BAR_VOLUME)
            return 0;
        err_set(e, EXIT_CODE_PERMANENT,
                "a second column of the time, column %lld (%.30s) is the first; leave one of them "
                "out",
                (long long)f->column[role] + 1, f->names[role]);
        return csv_place(&f->csv, (uint32_t)column, csv_field(&f->csv, (uint32_t)column), e);
    }
    f->column[role] = column;
    f->names[role] = strdup(csv_trimmed(&f->csv, (uint32_t)column));
    return f->names[role] ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", f->csv.path);
}

static int columns_named(struct bars_file *f, struct err *e)
{
    static const char *const what[] = {
        "the time (date, datetime, time or timestamp)", "", "open", "high", "low", "close"};
    for (int i = 0; i < KNOWN; i++) {
        int64_t column = name_find(f, known[i].name, e);
        if (column < -1 || (column >= 0 && column_note(f, column, known[i].column, e) < 0))
            return -1;
    }
    if (f->column[BAR_DATE] < 0) { /* one column, called time */
        f->column[BAR_DATE] = f->column[BAR_CLOCK];
        f->names[BAR_DATE] = f->names[BAR_CLOCK];
        f->column[BAR_CLOCK] = -1;
        f->names[BAR_CLOCK] = NULL;
    } else if (f->column[BAR_CLOCK] >= 0) {
        char plain[NAME_BYTES];
        if (strcmp(name_plain(f->names[BAR_DATE], plain), "date") != 0) /* whole moments both */
            return column_note(f, f->column[BAR_CLOCK], BAR_DATE, e);
    }
    for (int i = BAR_DATE; i <= BAR_CLOSE; i++)
        if (f->column[i] < 0 && i != BAR_CLOCK)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s: line %llu names columns, and none is %s; time, open, high, low and "
                           "close are needed",
                           f->csv.path, (unsigned long long)f->csv.line, what[i]);
    return 0;
}

static int columns_counted(struct bars_file *f, struct err *e)
{
    int64_t moment, next = 0;
    const char *second = csv_field(&f->csv, 1); /* without a colon it may be a price */
    int clock = strchr(second, ':') && moment_read(csv_field(&f->csv, 0), second, &moment) == 0;
    uint32_t prices = f->csv.field_count - 1 - (uint32_t)clock;
    if (prices != 4 && prices != 5)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: line %llu has %u columns and no names; expected the time, open, high, "
                       "low, close and perhaps volume, or a first line that names the columns",
                       f->csv.path, (unsigned long long)f->csv.line, f->csv.field_count);
    f->column[BAR_DATE] = next++;
    if (clock)
        f->column[BAR_CLOCK] = next++;
    for (int i = BAR_OPEN; i < BAR_OPEN + (int)prices; i++)
        f->column[i] = next++;
    return 0;
}

/* The one of these that cuts the first row into enough columns. */
static int delimiter_find(const char *path, char *delimiter, struct err *e)
{
    char found[2] = "";
    for (const char *d = ",;\t|"; *d; d++) {
        struct csv c;
        struct err unused;
        int opened = csv_open(&c, path, *d, e);
        if (opened < 0) {
            csv_close(&c);
            return -1;
        }
        if (csv_row(&c, &unused) > 0 && c.field_count >= COLUMNS_MIN) {
            if (found[0]) {
                csv_close(&c);
                return err_set(
                    e, EXIT_CODE_PERMANENT,
                    "%s: the first row has %d columns or more both when it is cut at \"%s\" "
                    "and at \"%c\"; one delimiter must be",
                    path, COLUMNS_MIN, found, *d);
            }
            found[0] = *d;
        }
        csv_close(&c);
    }
    *delimiter = found[0];
    return found[0] ? 0
                    : err_set(e, EXIT_CODE_PERMANENT,
                              "%s: the first row has fewer than %d columns whether it is cut at , "
                              "; tab or |; time, open, high, low and close are needed",
                              path, COLUMNS_MIN);
}

int bars_file_open(struct bars_file *f, const char *path, int drop, struct err *e)
{
    char delimiter, plain[NAME_BYTES];
    memset(f, 0, sizeof *f);
    f->drop = drop;
    for (int i = 0; i < BAR_COLUMNS; i++)
        f->column[i] = -1;
    if (delimiter_find(path, &delimiter, e) < 0 || csv_open(&f->csv, path, delimiter, e) < 0 ||
        csv_row(&f->csv, e) < 0)
        return -1;
    f->columns = f->csv.field_count;
    f->first_line = f->csv.line;
    for (uint32_t i = 0; i < f->columns; i++)
        f->header |= strcmp(name_plain(csv_field(&f->csv, i), plain), "open") == 0;
    return f->header ? columns_named(f, e) : columns_counted(f, e);
}

void bars_file_close(struct bars_file *f)
{
    for (int i = 0; i < BAR_COLUMNS; i++)
        free(f->names[i]);
    csv_close(&f->csv);
    memset(f, 0, sizeof *f);
}

/* ---- bars ----------------------------------------------------------------------------------- */

int bars_file_begin(struct bars_file *f, struct digest *digest, struct err *e)
{
    f->dropped = 0;
    f->last = INT64_MIN;
    if (csv_rewind(&f->csv, digest, e) < 0)
        return -1;
    return f->header && csv_row(&f->csv, e) < 0 ? -1 : 0;
}

static int place_error(const struct bars_file *f, enum bar_column column, struct err *e)
{
    return csv_place(&f->csv, (uint32_t)f->column[column], f->names[column], e);
}

static int time_read(struct bars_file *f, struct bar *bar, struct err *e)
{
    char *date = csv_trimmed(&f->csv, (uint32_t)f->column[BAR_DATE]);
    char *clock =
        f->column[BAR_CLOCK] < 0 ? NULL : csv_trimmed(&f->csv, (uint32_t)f->column[BAR_CLOCK]);
    char shown[CSV_SHOWN_BYTES], before[MOMENT_BYTES];
    if (moment_read(date, clock, &bar->time) < 0) {
        err_set(e, EXIT_CODE_PERMANENT,
                "\"%s\"%s is no moment that can be read in one way only; expected the year first, "
                "as in 2022-08-15 10:06, 2022.08.15 or 20220815 100600, or Unix time",
                csv_show(date, shown), clock ? " with the time of day in its own column" : "");
        return place_error(f, BAR_DATE, e);
    }
    if (bar->time <= f->last) {
        err_set(e, EXIT_CODE_PERMANENT,
                "\"%s\" is not after the bar before it (%s); bars stand in order of time, each "
                "once",
                csv_show(date, shown), moment_show(f->last, before));
        return place_error(f, BAR_DATE, e);
    }
    return 0;
}

static int prices_check(const struct bars_file *f, const struct bar *bar, struct err *e)
{
    const double price[] = {bar->open, bar->high, bar->low, bar->close};
    for (int i = 0; i < 4; i++) {
        enum bar_column column = BAR_OPEN + (enum bar_column)i;
        double slack = price_tolerance * price[i];
        if (price[i] <= 0)
            err_set(e, EXIT_CODE_PERMANENT, "%g is no price; expected a number above 0", price[i]);
        else if (price[i] > bar->high + slack)
            err_set(e, EXIT_CODE_PERMANENT, "%.10g is above the bar's high, %.10g", price[i],
                    bar->high);
        else if (price[i] < bar->low - slack)
            err_set(e, EXIT_CODE_PERMANENT, "%.10g is below the bar's low, %.10g", price[i],
                    bar->low);
        else
            continue;
        return place_error(f, column, e);
    }
    if (bar->volume >= 0)
        return 0;
    err_set(e, EXIT_CODE_PERMANENT, "%g is no volume; expected a number from 0", bar->volume);
    return place_error(f, BAR_VOLUME, e);
}

/* 1: a bar; 0: a value is missing and the bar is to be dropped; -1. */
static int bar_read(struct bars_file *f, struct bar *bar, struct err *e)
{
    double *const value[] = {&bar->open, &bar->high, &bar->low, &bar->close, &bar->volume};
    if (f->csv.field_count != f->columns)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: line %llu has %u columns; expected %u as in line %llu", f->csv.path,
                       (unsigned long long)f->csv.line, f->csv.field_count, f->columns,
                       (unsigned long long)f->first_line);
    if (time_read(f, bar, e) < 0)
        return -1;
    bar->volume = 0;
    for (int i = BAR_OPEN; i < BAR_COLUMNS; i++) {
        if (f->column[i] < 0)
            continue;
        uint32_t column = (uint32_t)f->column[i];
        enum csv_number kind = csv_number(csv_field(&f->csv, column), value[i - BAR_OPEN]);
        if (kind == CSV_MISSING && f->drop)
            return 0;
        if (kind != CSV_NUMBER)
            return csv_refuse(&f->csv, column, f->names[i], kind, e);
    }
    return prices_check(f, bar, e) < 0 ? -1 : 1;
}

int bars_file_next(struct bars_file *f, struct bar *bar, struct err *e)
{
    int more;
    while ((more = csv_row(&f->csv, e)) > 0) {
        int whole = bar_read(f, bar, e);
        if (whole < 0)
            return -1;
        f->last = bar->time;
        if (whole)
            return 1;
        if (!f->dropped++)
            f->dropped_line = f->csv.line;
    }
    return more;
}
