/* options_idle.c - options that were given and do nothing beside the others (idle.def).
 */
#include <stdlib.h>
#include <string.h>

#include "proto/options_parts.h"

enum { WORD_BYTES = 64, SENTENCE_BYTES = 768 };

static const struct idle_row rows_of_idle[] = {
#define COUNTS_WITH(key, condition) {key, condition},
#include "proto/idle.def"
#undef COUNTS_WITH
};

const struct idle_row *idle_rows(size_t *count)
{
    *count = sizeof rows_of_idle / sizeof rows_of_idle[0];
    return rows_of_idle;
}

int idle_row_fits(const struct idle_row *row, const char *key)
{
    size_t length = strlen(row->key);
    int begins = row->key[length - 1] == '.' || row->key[length - 1] == '_';
    return begins ? strncmp(key, row->key, length) == 0 : strcmp(key, row->key) == 0;
}

/* One "key word|word" of a condition; returns what comes behind it, NULL at the end. */
struct alternative {
    char key[OPTION_KEY_MAX + 1], words[OPTION_KEY_MAX + 1];
};

static const char *alternative_take(const char *at, struct alternative *a)
{
    at += strspn(at, " ");
    size_t key = strcspn(at, " "), all = strcspn(at, ",");
    ensure(key < all && all < sizeof a->key);
    snprintf(a->key, sizeof a->key, "%.*s", (int)key, at);
    snprintf(a->words, sizeof a->words, "%.*s", (int)(all - key - 1), at + key + 1);
    return at[all] ? at + all + 1 : NULL;
}

/* The value of an option, or the first that is not empty of a "tasks.*.key". */
static void value_find(const struct options *o, const char *key, char *text, size_t bytes)
{
    size_t count;
    const struct option_row *rows = option_rows(&count), *row;
    text[0] = '\0';
    if (strncmp(key, "tasks.*.", 8) != 0) {
        row = row_find(rows, count, key);
        ensure(row);
        value_text(row, o, text, bytes);
        return;
    }
    rows = task_rows(&count);
    row = row_find(rows, count, key + 8);
    ensure(row);
    for (uint32_t i = 0; i < o->task_count && !text[0]; i++)
        value_text(row, &o->tasks[i], text, bytes);
}

static int word_fits(const char *word, size_t length, const char *value)
{
    if (length == 1 && word[0] == '*')
        return value[0] && strcmp(value, "auto") != 0 && strcmp(value, "none") != 0;
    if (length == 2 && strncmp(word, ">0", 2) == 0)
        return strtod(value, NULL) > 0;
    return strlen(value) == length && strncmp(word, value, length) == 0;
}

static int words_fit(const char *words, const char *value)
{
    for (size_t length; *words; words += length + (words[length] == '|')) {
        length = strcspn(words, "|");
        if (word_fits(words, length, value))
            return 1;
    }
    return 0;
}

static int condition_holds(const struct options *o, const char *condition)
{
    char value[OPTION_TEXT_MAX + 1];
    struct alternative a;
    for (const char *at = condition; at;) {
        at = alternative_take(at, &a);
        value_find(o, a.key, value, sizeof value);
        if (words_fit(a.words, value))
            return 1;
    }
    return 0;
}

/* "sgd", "onecycle or cosine_warmup", "a value" */
static void words_show(const char *words, char *text, size_t bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t length; *words && used < bytes; words += length + (words[length] == '|')) {
        length = strcspn(words, "|");
        const char *word = strncmp(words, "*", length) == 0    ? "a value"
                           : strncmp(words, ">0", length) == 0 ? "a number above 0"
                                                               : words;
        int shown = word == words ? (int)length : (int)strlen(word);
        used +=
            (size_t)snprintf(text + used, bytes - used, "%s%.*s", used ? " or " : "", shown, word);
    }
}

/* "KEY is set and does nothing: OTHER is VALUE and ...; it counts with OTHER WORD or ..." */
static void sentence_make(const struct options *o, const char *key, const char *condition,
                          char text[SENTENCE_BYTES])
{
    char value[OPTION_TEXT_MAX + 1], words[OPTION_KEY_MAX + 1], with[SENTENCE_BYTES / 2];
    struct alternative a;
    size_t used = (size_t)snprintf(text, SENTENCE_BYTES, "%s is set and does nothing: ", key);
    size_t with_used = 0;
    for (const char *at = condition; at;) {
        const char *between = at == condition ? "" : " and ";
        at = alternative_take(at, &a);
        value_find(o, a.key, value, sizeof value);
        words_show(a.words, words, sizeof words);
        used += (size_t)snprintf(text + used, SENTENCE_BYTES - used, "%s%s is %.60s", between,
                                 a.key, value[0] ? value : "empty");
        with_used += (size_t)snprintf(with + with_used, sizeof with - with_used, "%s%s %s",
                                      between[0] ? " or " : "", a.key, words);
        ensure(used < SENTENCE_BYTES && with_used < sizeof with);
    }
    int alone = !strchr(condition, ',');
    snprintf(text + used, SENTENCE_BYTES - used, "; it counts with %s", alone ? words : with);
}

static int is_off(const struct option_row *row, const struct options *o)
{
    return row->type == OPTION_TYPE_IS_BOOL && !*(const int *)((const char *)o + row->offset);
}

void options_idle(const struct options *o, void (*see)(void *self, const char *sentence),
                  void *self)
{
    size_t count, conditions;
    const struct option_row *rows = option_rows(&count);
    const struct idle_row *idle = idle_rows(&conditions);
    char text[SENTENCE_BYTES];
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; o->given[i] && !is_off(&rows[i], o) && c < conditions; c++) {
            if (!idle_row_fits(&idle[c], rows[i].key) || condition_holds(o, idle[c].condition))
                continue;
            sentence_make(o, rows[i].key, idle[c].condition, text);
            see(self, text);
            break;
        }
    if (o->epochs_idle)
        see(self, "finetuning.epochs is set and does nothing: each task says its own epochs; it "
                  "counts for those that say none");
}
