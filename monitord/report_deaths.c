/* report_deaths.c - what the report says of stages that died, and why: services/finish wrote it to
 * logs/deaths, which became logs/deaths.old when it was full. A line that is not whole, as a full
 * disk leaves it, is left out.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "monitord/report.h"

static int line_parse(struct report_death *v, const char *line)
{
    int at = 0;
    return strchr(line, '\n') && sscanf(line, "%31s %16s %" SCNu32 " %n%1023[^\n]", v->time,
                                        v->stage, &v->code, &at, v->sentence) == 4;
}

static void file_read(struct report *r, const char *path)
{
    char line[2048];
    FILE *in = fopen(path, "re");
    while (in && fgets(line, sizeof line, in)) {
        struct report_death v = {0};
        if (!line_parse(&v, line))
            continue;
        if (r->death_count == REPORT_DEATHS_MAX)
            memmove(&r->deaths[0], &r->deaths[1], --r->death_count * sizeof v);
        r->deaths[r->death_count++] = v;
    }
    if (in)
        fclose(in);
}

void report_deaths_read(struct report *r)
{
    r->death_count = 0;
    file_read(r, "logs/deaths.old");
    file_read(r, "logs/deaths");
}

void report_deaths_json(const struct report *r, struct json *j)
{
    json_list(j, "deaths"); /* the newest last */
    for (uint32_t i = 0; i < r->death_count; i++) {
        const struct report_death *v = &r->deaths[i];
        json_object_flat(j, NULL);
        json_str(j, "time", v->time);
        json_str(j, "stage", v->stage);
        json_u64(j, "code", v->code);
        json_str(j, "sentence", v->sentence);
        json_end(j);
    }
    json_end(j);
}

void report_deaths_markdown(const struct report *r, FILE *out)
{
    for (uint32_t i = 0; i < r->death_count; i++)
        fprintf(out, "- death of %s, %s: %s\n", r->deaths[i].stage, r->deaths[i].time,
                r->deaths[i].sentence);
}
