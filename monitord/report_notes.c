/* report_notes.c - what the report says of what was noted while the run went on: users' marks. */
#include <string.h>
#include <time.h>

#include "monitord/report.h"

enum { TIME_TEXT_MAX = 32 };

/* UTC, as logs/deaths has it. Returns text. */
static const char *time_format(char text[TIME_TEXT_MAX], double unix_s)
{
    time_t second = (time_t)unix_s;
    struct tm tm;
    if (!gmtime_r(&second, &tm) || !strftime(text, TIME_TEXT_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm))
        text[0] = '\0';
    return text;
}

void report_notes_json(const struct report *r, struct json *j)
{
    char time[TIME_TEXT_MAX];
    json_list(j, "marks"); /* the newest last */
    for (uint32_t i = 0; i < r->history->mark_count; i++) {
        const struct msg_event_mark *m = &r->history->marks[i];
        json_object_flat(j, NULL);
        json_str(j, "time", time_format(time, m->head.time_s));
        json_str(j, "stage", m->stage);
        json_str(j, "text", m->text);
        json_end(j);
    }
    json_end(j);
}

void report_notes_markdown(const struct report *r, FILE *out)
{
    char time[TIME_TEXT_MAX];
    for (uint32_t i = 0; i < r->history->mark_count; i++) {
        const struct msg_event_mark *m = &r->history->marks[i];
        fprintf(out, "- mark, %s: %s\n", time_format(time, m->head.time_s), m->text);
    }
}
