/* report_notes.c - what the report says of what was noted while the run went on: users' marks, and
 * monitord's advice. */
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
    json_list(j, "advice"); /* the newest last */
    for (uint32_t i = 0; i < r->history->advice_count; i++) {
        const struct msg_memory_advice *m = &r->history->advice[i];
        json_object(j, NULL);
        json_str(j, "time", time_format(time, m->head.time_s));
        json_str(j, "what", m->what);
        json_str(j, "stage", m->stage[0] ? m->stage : NULL);
        json_str(j, "task", m->task[0] ? m->task : NULL);
        json_f64(j, "value", m->value);
        json_f64(j, "limit", m->limit);
        json_str(j, "option", m->option);
        json_str(j, "sentence", m->sentence);
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
    for (uint32_t i = 0; i < r->history->advice_count; i++) {
        const struct msg_memory_advice *m = &r->history->advice[i];
        fprintf(out, "- advice, %s: %s\n", time_format(time, m->head.time_s), m->sentence);
    }
}

void report_notes_table(const struct report *r, FILE *out)
{
    uint32_t count = r->history->advice_count;
    if (count)
        fprintf(out, "  Advice was given %u time%s; the report has it.\n", count,
                count == 1 ? "" : "s");
}
