/* idx_labels.c - see idx_labels.h. What a header announces is not allocated before it has come. */
#include "pipelines/prepare/idx_labels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 20 };

int idx_selection_read(struct idx_selection *s, const char *list, int kept, struct err *e)
{
    *s = (struct idx_selection){0};
    for (int i = 0; i < IDX_CLASSES_MAX; i++)
        s->label[i] = -1;
    for (const char *at = list; *at;) {
        char *end;
        unsigned long number = strtoul(at, &end, 10);
        if (*at < '0' || *at > '9' || number >= IDX_CLASSES_MAX || (*end && *end != ',') ||
            (*end == ',' && !end[1]) || s->label[number] >= 0)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "--only %.100s: expected different numbers from 0 to %d, separated by "
                           "commas",
                           list, IDX_CLASSES_MAX - 1);
        s->label[number] = kept ? (int)number : s->count;
        s->count++;
        at = *end ? end + 1 : end;
    }
    if (!s->count || snprintf(s->text, sizeof s->text, " only=%s labels=%s", list,
                              kept ? "kept" : "position") < (int)sizeof s->text)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT, "--only: the list has more than the %zu bytes accepted",
                   sizeof s->text - sizeof " only= labels=position");
}

/* Takes in the labels of `rows` rows that stand at l->wanted + l->rows. */
static int labels_take(struct idx_labels *l, const struct idx_file *f,
                       const struct idx_selection *s, uint64_t rows, unsigned classes,
                       struct err *e)
{
    for (uint64_t i = 0; i < rows; i++, l->rows++) {
        unsigned label = l->wanted[l->rows];
        if (label >= classes)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s has label %u in row %llu; expected 0 to %u (--classes %u)", f->path,
                           label, (unsigned long long)l->rows, classes - 1, classes);
        int wanted = !s->count || s->label[label] >= 0;
        l->wanted[l->rows] = (unsigned char)wanted;
        if (wanted)
            l->label[l->wanted_rows++] = (unsigned char)(s->count ? s->label[label] : (int)label);
    }
    return 0;
}

int idx_labels_read(struct idx_labels *l, struct idx_file *f, const struct idx_selection *s,
                    unsigned classes, struct err *e)
{
    *l = (struct idx_labels){0};
    while (l->rows < f->count) {
        uint64_t rows = f->count - l->rows < PIECE_BYTES ? f->count - l->rows : PIECE_BYTES;
        unsigned char *wanted = realloc(l->wanted, l->rows + rows);
        l->wanted = wanted ? wanted : l->wanted;
        unsigned char *label = wanted ? realloc(l->label, l->rows + rows) : NULL;
        if (!label)
            return err_set(e, EXIT_CODE_TEMPORARY, "cannot get memory for the labels of %s",
                           f->path);
        l->label = label;
        if (idx_file_read(f, wanted + l->rows, rows, e) != 0 ||
            labels_take(l, f, s, rows, classes, e) < 0)
            return -1;
    }
    if (!l->wanted_rows)
        return err_set(e, EXIT_CODE_PERMANENT, "%s has no row of the classes wanted (%s)", f->path,
                       s->text + 1);
    return idx_file_end(f, e);
}

void idx_labels_close(struct idx_labels *l)
{
    free(l->label);
    free(l->wanted);
    *l = (struct idx_labels){0};
}
