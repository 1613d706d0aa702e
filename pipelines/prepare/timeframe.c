/* timeframe.c - see timeframe.h. */
#include "pipelines/prepare/timeframe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct timeframe frames[] = {
    {"M1", 60},    {"M2", 120},   {"M3", 180},    {"M4", 240},   {"M5", 300},
    {"M6", 360},   {"M10", 600},  {"M12", 720},   {"M15", 900},  {"M20", 1200},
    {"M30", 1800}, {"H1", 3600},  {"H2", 7200},   {"H3", 10800}, {"H4", 14400},
    {"H6", 21600}, {"H8", 28800}, {"H12", 43200}, {"D1", 86400},
};

enum { FRAMES = sizeof frames / sizeof frames[0] };

const struct timeframe *timeframe_of(int64_t seconds)
{
    for (int i = 0; i < FRAMES; i++)
        if (frames[i].seconds == seconds)
            return &frames[i];
    return NULL;
}

const struct timeframe *timeframe_named(const char *name)
{
    for (int i = 0; i < FRAMES; i++)
        if (strcmp(frames[i].name, name) == 0)
            return &frames[i];
    return NULL;
}

/* ---- windows -------------------------------------------------------------------------------- */

/* "H1:96" */
static int window_parse(char *text, struct window *w)
{
    char *colon = strchr(text, ':');
    size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;
    if (digits < 1 || digits > 5 || colon[1 + digits])
        return -1;
    *colon = 0;
    w->frame = timeframe_named(text);
    w->bars = (uint32_t)strtoul(colon + 1, NULL, 10);
    *colon = ':';
    return w->frame && w->bars >= 1 && w->bars <= TIMEFRAME_BARS_MAX ? 0 : -1;
}

int windows_parse(const char *text, struct window windows[TIMEFRAMES_MAX], uint32_t *count,
                  struct err *e)
{
    char copy[256], *rest = copy, *word;
    *count = 0;
    if ((size_t)snprintf(copy, sizeof copy, "%s", text) >= sizeof copy)
        return err_set(e, EXIT_CODE_PERMANENT, "prepare.timeframes has more than 255 bytes");
    while ((word = strsep(&rest, " "))) {
        if (!word[0])
            continue;
        if (*count == TIMEFRAMES_MAX)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "prepare.timeframes has more than %d windows: %.100s", TIMEFRAMES_MAX,
                           text);
        struct window *w = &windows[*count];
        if (window_parse(word, w) < 0)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "prepare.timeframes has \"%.40s\"; expected windows like H1:96, of M1, "
                           "M2, M3, M4, M5, M6, M10, M12, M15, M20, M30, H1, H2, H3, H4, H6, H8, "
                           "H12 or D1 and 1 to %d bars, separated by blanks",
                           word, TIMEFRAME_BARS_MAX);
        for (uint32_t i = 0; i < *count; i++)
            if (windows[i].frame == w->frame)
                return err_set(e, EXIT_CODE_PERMANENT, "prepare.timeframes has %s twice: %.100s",
                               w->frame->name, text);
        ++*count;
    }
    return *count ? 0 : err_set(e, EXIT_CODE_PERMANENT, "prepare.timeframes is empty");
}

/* ---- moments -------------------------------------------------------------------------------- */

/* Exactly `digits` digits at *at as a number, and *at behind them; -1. */
static int digits_take(const char **at, int digits, int *number)
{
    *number = 0;
    for (int i = 0; i < digits; i++, ++*at) {
        if (**at < '0' || **at > '9')
            return -1;
        *number = *number * 10 + (**at - '0');
    }
    return 0;
}

static int date_take(const char **at, struct tm *tm)
{
    if (digits_take(at, 4, &tm->tm_year) < 0)
        return -1;
    char mark = **at;
    int marked = mark == '-' || mark == '.' || mark == '/';
    *at += marked;
    if (digits_take(at, 2, &tm->tm_mon) < 0 || (marked && *(*at)++ != mark) ||
        digits_take(at, 2, &tm->tm_mday) < 0)
        return -1;
    tm->tm_year -= 1900;
    tm->tm_mon--;
    return 0;
}

/* "10:06", "10:06:30.000", "1006", "100630" */
static int clock_take(const char **at, struct tm *tm)
{
    if (digits_take(at, 2, &tm->tm_hour) < 0)
        return -1;
    int marked = **at == ':';
    *at += marked;
    if (digits_take(at, 2, &tm->tm_min) < 0)
        return -1;
    if (marked ? **at == ':' : **at >= '0' && **at <= '9') {
        *at += marked;
        if (digits_take(at, 2, &tm->tm_sec) < 0)
            return -1;
        if (**at == '.')
            *at += 1 + strspn(*at + 1, "0");
    }
    return tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec < 60 ? 0 : -1;
}

/* "", "Z", "UTC", "GMT", "+02:00", "GMT-0500" at the text's end: seconds east of UTC. */
static int zone_take(const char *at, int64_t *east)
{
    int hours, minutes = 0;
    *east = 0;
    at += strspn(at, " ");
    if (strcmp(at, "Z") == 0)
        return 0;
    if (strncmp(at, "UTC", 3) == 0 || strncmp(at, "GMT", 3) == 0)
        at += 3;
    if (!*at)
        return 0;
    int sign = *at == '+' ? 1 : *at == '-' ? -1 : 0;
    at++;
    if (!sign || digits_take(&at, 2, &hours) < 0)
        return -1;
    at += *at == ':';
    if (*at && digits_take(&at, 2, &minutes) < 0)
        return -1;
    *east = sign * (hours * 3600 + minutes * 60);
    return *at || hours > 14 || minutes > 59 ? -1 : 0;
}

static int unix_read(const char *text, int64_t *seconds)
{
    size_t digits = strspn(text, "0123456789");
    if (text[digits] || text[0] != '1' || (digits != 10 && digits != 13))
        return -1; /* 2022081510 may be an hour of 2022 */
    *seconds = strtoll(text, NULL, 10);
    if (digits == 10)
        return 0;
    int64_t rest = *seconds % 1000;
    *seconds /= 1000;
    return rest ? -1 : 0;
}

int moment_read(const char *date, const char *clock, int64_t *seconds)
{
    struct tm tm = {0};
    int64_t east = 0;
    const char *at = date;
    if (!clock && unix_read(date, seconds) == 0)
        return 0;
    if (date_take(&at, &tm) < 0)
        return -1;
    if (clock) {
        if (*at)
            return -1;
        at = clock;
    } else if (*at) { /* a date alone is midnight */
        int apart = *at == 'T' || *at == ' ';
        at += *at == 'T' ? 1 : strspn(at, " ");
        if (!apart && date[4] >= '0' && date[4] <= '9')
            apart = 1; /* 20220815100600 */
        if (!apart)
            return -1;
    }
    if (*at && (clock_take(&at, &tm) < 0 || zone_take(at, &east) < 0))
        return -1;
    struct tm same = tm;
    *seconds = (int64_t)timegm(&same) - east;
    /* timegm makes the 1st of March of the 30th of February. */
    return same.tm_year == tm.tm_year && same.tm_mon == tm.tm_mon && same.tm_mday == tm.tm_mday
               ? 0
               : -1;
}

const char *moment_show(int64_t seconds, char text[MOMENT_BYTES])
{
    struct tm tm;
    time_t moment = (time_t)seconds;
    if (!gmtime_r(&moment, &tm) || !strftime(text, MOMENT_BYTES, "%Y-%m-%d %H:%M", &tm))
        snprintf(text, MOMENT_BYTES, "%lld", (long long)seconds);
    return text;
}
