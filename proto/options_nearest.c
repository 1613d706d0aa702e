/* options_nearest.c - what an unknown key was probably meant to be, by edit distance. */
#include <ctype.h>
#include <limits.h>
#include <string.h>

#include "proto/options_parts.h"

/* Levenshtein distance of two keys of at most OPTION_KEY_MAX bytes. */
static int distance(const char *a, const char *b)
{
    int row[OPTION_KEY_MAX + 1];
    int length = (int)strlen(b);
    ensure(length <= OPTION_KEY_MAX);
    for (int j = 0; j <= length; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= length; j++) {
            int changed = diagonal + (tolower((unsigned char)a[i - 1]) != b[j - 1]);
            diagonal = row[j];
            int longer = (row[j - 1] < row[j] ? row[j - 1] : row[j]) + 1;
            row[j] = changed < longer ? changed : longer;
        }
    }
    return row[length];
}

const char *key_word(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

/* The right word in the wrong section counts as one mistake. A key that differs in more than half
 * of its letters was meant to be something else. */
static void nearest_try(const char *key, const char *candidate, int *best, const char **nearest)
{
    int d = distance(key, candidate);
    if (d > 1 && strcmp(key_word(key), key_word(candidate)) == 0)
        d = 1;
    if (d < *best && (d == 1 || d <= (int)strlen(key) / 2)) {
        *best = d;
        *nearest = candidate;
    }
}

static const char *const keys_of_tasks[] = {
#define OPT(type, field, key, value, low, high, unit, meaning)
#define TASK(type, field, key, value, low, high, unit, meaning) "tasks.NAME." key,
#include "proto/options.def"
#undef OPT
#undef TASK
};

/* A task's option that stands outside of the list, which is one mistake more: its word counts, and
 * that is short. */
static void task_keys_try(const char *key, int *best, const char **nearest)
{
    const char *word = key_word(key);
    for (size_t i = 0; i < sizeof keys_of_tasks / sizeof keys_of_tasks[0]; i++) {
        int d = distance(word, key_word(keys_of_tasks[i]));
        if (d + 1 < *best && 3 * d <= (int)strlen(word)) {
            *best = d + 1;
            *nearest = keys_of_tasks[i];
        }
    }
}

/* scheduler for scheduler_type, amp for use_amp: one mistake. */
static int word_lacks_part(const char *word, const char *whole)
{
    size_t length = strlen(word);
    return (strncmp(whole, word, length) == 0 && whole[length] == '_') ||
           (strncmp(whole, "use_", 4) == 0 && strcmp(whole + 4, word) == 0);
}

static const char *const key_others[] = {"tasks", "model.layers", "include"};

/* Below a section of aliases words alone count. */
static const char *alias_nearest(const struct option_row *rows, size_t count, const char *key)
{
    static const char epochs[] = "finetuning.epochs";
    const char *nearest = NULL, *word = key_word(key);
    int best = (int)strlen(word) / 2 + 1;
    for (size_t i = 0; i <= count; i++) {
        const char *candidate = i ? rows[i - 1].key : epochs;
        int d = distance(word, key_word(candidate));
        if (d > 1 && word_lacks_part(word, key_word(candidate)))
            d = 1;
        if (d < best) {
            best = d;
            nearest = candidate;
        }
    }
    task_keys_try(key, &best, &nearest);
    for (size_t i = 0; i < sizeof key_others / sizeof key_others[0]; i++)
        if (strcmp(word, key_word(key_others[i])) == 0)
            nearest = key_others[i];
    return nearest;
}

const char *key_nearest(const struct option_row *rows, size_t count, const char *key)
{
    const char *nearest = NULL;
    int best = INT_MAX;
    size_t options;
    int of_options = rows == option_rows(&options);
    if (of_options && alias_below(key))
        return alias_nearest(rows, count, key);
    if (of_options) /* first: "task" means tasks, not prepare.task */
        for (size_t i = 0; i < sizeof key_others / sizeof key_others[0]; i++)
            nearest_try(key, key_others[i], &best, &nearest);
    for (size_t i = 0; i < count; i++)
        nearest_try(key, rows[i].key, &best, &nearest);
    if (of_options)
        task_keys_try(key, &best, &nearest);
    return nearest;
}

const char *options_nearest(const char *const *words, const char *word)
{
    const char *nearest = words[0];
    int best = INT_MAX;
    for (; *words; words++)
        nearest_try(word, *words, &best, &nearest);
    return nearest;
}
