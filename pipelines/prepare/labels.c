/* labels.c - see labels.h. A hash table with linear probing, half full at most. */
#include "pipelines/prepare/labels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/csv.h"

enum { TABLE_SIZE = 2 * LABELS_MAX };
#define EXACT_MAX 0x1p53

int labels_open(struct labels *l, struct err *e)
{
    memset(l, 0, sizeof *l);
    l->label = calloc(LABELS_MAX, sizeof *l->label);
    l->table = calloc(TABLE_SIZE, sizeof *l->table);
    if (!l->label || !l->table)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot keep the classes");
    return 0;
}

void labels_close(struct labels *l)
{
    for (uint32_t i = 0; i < l->count; i++)
        free(l->label[i].text);
    free(l->label);
    free(l->table);
    memset(l, 0, sizeof *l);
}

/* The place of the text in the table: its own or the free one where it belongs. */
static uint32_t *place_find(const struct labels *l, const char *text)
{
    uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a */
    for (const char *c = text; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3ull;
    uint32_t at = (uint32_t)(hash ^ hash >> 32) % TABLE_SIZE;
    while (l->table[at] && strcmp(l->label[l->table[at] - 1].text, text) != 0)
        at = (at + 1) % TABLE_SIZE;
    return &l->table[at];
}

int labels_add(struct labels *l, const char *text, struct err *e)
{
    uint32_t *place = place_find(l, text);
    if (*place)
        return 0;
    size_t bytes = strlen(text);
    if (bytes == 0 || bytes > LABEL_BYTES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the target has %zu bytes; a class is a text of 1 to %d bytes", bytes,
                       LABEL_BYTES_MAX);
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "the target holds a control character; a class is one line of text");
    if (l->count == LABELS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the target has more than %d different values; one class a row is needed",
                       LABELS_MAX);
    l->label[l->count].text = strdup(text);
    if (!l->label[l->count].text)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot keep the classes");
    *place = ++l->count;
    return 0;
}

/* 1 and the number for "0", "7", "65535", nothing else. */
static int class_number(const char *text, uint32_t *number)
{
    size_t length = strspn(text, "0123456789");
    if (length == 0 || length > 5 || text[length] || (text[0] == '0' && length > 1))
        return 0;
    *number = (uint32_t)strtoul(text, NULL, 10);
    return *number < LABELS_MAX;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(((const struct label *)a)->text, ((const struct label *)b)->text);
}

static int by_value(const void *a, const void *b)
{
    double x = strtod(((const struct label *)a)->text, NULL);
    double y = strtod(((const struct label *)b)->text, NULL);
    return x < y ? -1 : x > y ? 1 : by_bytes(a, b);
}

/* Sorted by value: "0", "0.0" and "+0" would be three classes. Whether numbers that a double does
 * not hold exactly are equal is not known, so they are texts. */
static int spellings_check(const struct labels *l, struct err *e)
{
    for (uint32_t i = 1; i < l->count; i++) {
        const char *text = l->label[i].text, *before = l->label[i - 1].text;
        double value = strtod(text, NULL);
        if (value == strtod(before, NULL) && fabs(value) < EXACT_MAX)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "the target is %s in some row and %s in another, which is the same "
                           "number; expected is one way of writing each class",
                           before, text);
    }
    return 0;
}

int labels_number(struct labels *l, struct err *e)
{
    int numbers = 1;
    const char *fraction = NULL;
    l->mapped = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        double value;
        if (csv_number(l->label[i].text, &value) != CSV_NUMBER)
            numbers = 0;
        else if (value != floor(value) && !fraction)
            fraction = l->label[i].text;
        if (!class_number(l->label[i].text, &l->label[i].class))
            l->mapped = 1;
    }
    if (numbers && fraction)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the target is %s in some row; expected are classes, as whole numbers or "
                       "texts (or prepare.task: values)",
                       fraction);
    qsort(l->label, l->count, sizeof *l->label, numbers ? by_value : by_bytes);
    if (numbers && spellings_check(l, e) < 0)
        return -1;
    memset(l->table, 0, TABLE_SIZE * sizeof *l->table);
    l->classes = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        *place_find(l, l->label[i].text) = i + 1;
        if (l->mapped)
            l->label[i].class = i;
        if (l->label[i].class >= l->classes)
            l->classes = l->label[i].class + 1;
    }
    return 0;
}

int64_t labels_class(const struct labels *l, const char *text)
{
    uint32_t index = *place_find(l, text);
    return index ? (int64_t)l->label[index - 1].class : -1;
}
