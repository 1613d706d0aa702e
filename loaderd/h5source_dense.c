/* h5source_dense.c - see h5source.h: the dense layout, an item a row in every data set.
 *
 * `features` is a data set, or a group of timeframes: one data set each, of the same rows and
 * features, in the order that the group's attribute `timeframes` gives (a text such as "M1 M5", or
 * an array of texts). Each is a field of its own; joined along time they are a row's features.
 */
#include "loaderd/h5source_private.h"

#include <stdio.h>
#include <string.h>

#include "proto/begins.h"
#include "proto/h5file_names.h"
#include "proto/weighing.h"

/* A common multiple of two data sets' chunk lengths is taken up to so many times the longer one. */
enum { COMMON_MAX = 4 };

enum { TIMEFRAMES_MAX = SOURCE_FIELDS_MAX - 1, TIMEFRAME_BYTES_MAX = 50 };
_Static_assert((int)TIMEFRAMES_MAX >= (int)H5NAMES_MAX, "every timeframe has a place");

static const struct source_kind features_kind = {2, 3, .wanted = "2 or 3 dimensions, rows first"};
static const struct source_kind timeframe_kind = {3, 3,
                                                  .wanted = "3 dimensions: rows, time, features"};
static const struct source_kind begins_kind = {1, 1, .numbers = SOURCE_UNSIGNED,
                                               .wanted = BEGINS_WANTED};
static const struct source_kind targets_kind = {1, 2, .wanted = "1 or 2 dimensions, rows first"};
static const struct source_kind weights_kind = {1, 2, .wanted = WEIGHING_OF_ROWS};
static const struct source_kind token_weights_kind = {1, 1, .ragged = 1,
                                                      .wanted = WEIGHING_OF_TOKENS};

int source_weights_open(struct source *s, const struct source_wish *wish, struct err *e)
{
    const struct source_set *t = &s->set[s->field_count];
    int found, of_tokens = s->layout == SOURCE_TOKENS;
    uint64_t wanted = of_tokens ? s->set[0].field.items : s->rows;
    if (!wish->weights[0])
        return 0;
    if (weighing_name_check(wish->weights, e) < 0)
        return -1;
    if (s->field_count == SOURCE_FIELDS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s of %d timeframes and targets cannot have data.weights; accepted: up to "
                       "%d timeframes",
                       s->split, TIMEFRAMES_MAX, TIMEFRAMES_MAX - 1);
    if (source_set_open(s, wish->weights, "weights",
                        of_tokens ? &token_weights_kind : &weights_kind, &found, e) != 0)
        return -1;
    return found ? weighing_count_check(t->field.path, t->field.items, wanted, of_tokens, e) : 0;
}

static int begins_open(struct source *s, struct err *e)
{
    int found;
    if (!source_has(s, "begins"))
        return 0;
    if (s->field_count == SOURCE_FIELDS_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %d timeframes, targets and more, and no place for begins; accepted: "
                       "fewer timeframes",
                       s->split, SOURCE_FIELDS_MAX);
    const struct source_set *t = &s->set[s->field_count];
    if (source_set_open(s, "begins", "begins", &begins_kind, &found, e) != 0)
        return -1;
    return begins_count_check(t->field.path, t->field.items, s->rows, e);
}

static int timeframes_read(struct h5names *f, hid_t group, const char *path, struct err *e)
{
    if (h5_names(group, "timeframes", f) != 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s is a group and its attribute timeframes does not say which data sets "
                       "of it are the features (there is: %s); expected a text such as \"M1 M5\" "
                       "or an array of at most %d names",
                       path, source_names_in(group), TIMEFRAMES_MAX);
    for (int i = 0; i < f->count; i++) {
        int repeated = 0;
        for (int j = 0; j < i; j++)
            repeated |= strcmp(f->name[i], f->name[j]) == 0;
        if (repeated || strchr(f->name[i], '/') || strlen(f->name[i]) > TIMEFRAME_BYTES_MAX)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "the attribute timeframes of %s names \"%.60s\"%s; expected different "
                           "names of data sets of that group, at most %d bytes each",
                           path, f->name[i], repeated ? " twice" : "", TIMEFRAME_BYTES_MAX);
    }
    return 0;
}

/* Timeframe i has the rows and the features of the first. */
static int timeframe_check(const struct source *s, int i, struct err *e)
{
    const struct source_set *a = &s->set[0], *b = &s->set[i];
    if (a->dims[0] == b->dims[0] && a->dims[2] == b->dims[2])
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s has %llu rows of %llu features and %s has %llu of %llu; timeframes need the "
                   "same rows and features",
                   a->field.path, (unsigned long long)a->dims[0], (unsigned long long)a->dims[2],
                   b->field.path, (unsigned long long)b->dims[0], (unsigned long long)b->dims[2]);
}

static int timeframes_open(struct source *s, hid_t group, const char *link, struct err *e)
{
    struct h5names f;
    char path[SOURCE_PATH_MAX], member[SOURCE_PATH_MAX], name[65];
    int found;
    snprintf(path, sizeof path, "%s%s%s", s->split, s->split[0] ? "/" : "", link);
    if (timeframes_read(&f, group, path, e) != 0)
        return -1;
    for (int i = 0; i < f.count; i++) {
        snprintf(member, sizeof member, "%s/%s", link, f.name[i]);
        snprintf(name, sizeof name, "features/%.50s", f.name[i]);
        if (source_set_open(s, member, name, &timeframe_kind, &found, e) != 0)
            return -1;
        if (!found)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "%s has no data set %s, which its attribute timeframes names (there is: "
                           "%s)",
                           path, f.name[i], source_names_in(group));
        if (timeframe_check(s, i, e) != 0)
            return -1;
    }
    return 0;
}

/* As group_enter has it: a group of the file itself. */
static int features_open(struct source *s, const char *link, struct err *e)
{
    H5L_info_t info;
    int found;
    if (H5Lget_info(s->group, link, &info, H5P_DEFAULT) >= 0 && info.type == H5L_TYPE_HARD) {
        hid_t object = H5Oopen(s->group, link, H5P_DEFAULT);
        if (object >= 0 && H5Iget_type(object) == H5I_GROUP) {
            int result = timeframes_open(s, object, link, e);
            H5Oclose(object);
            return result;
        }
        if (object >= 0)
            H5Oclose(object);
    }
    return source_set_open(s, link, "features", &features_kind, &found, e);
}

/* Rows of a chunk of the features. */
static uint64_t features_chunk_rows(const struct source_set *features)
{
    const struct source_field *f = &features->field;
    uint64_t rows = f->chunk_rows;
    if (!rows)
        rows = SOURCE_VIRTUAL_CHUNK_BYTES / f->row_bytes;
    if (!rows)
        rows = 1;
    return rows < f->items ? rows : f->items;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

uint64_t source_dense_chunk_rows(const struct source *s, uint64_t rows_limit)
{
    uint64_t rows = s->chunk_rows;
    for (uint32_t i = 1; i < s->field_count; i++) {
        uint64_t other = s->set[i].field.chunk_rows, longer = rows > other ? rows : other, common;
        if (source_set_is_cached(&s->set[i]))
            continue;
        if (!__builtin_mul_overflow(rows / common_divisor(rows, other), other, &common) &&
            common <= rows_limit && common / longer <= COMMON_MAX)
            rows = common;
        else if (longer <= rows_limit)
            rows = longer;
    }
    return rows;
}

int source_dense_open(struct source *s, const struct source_wish *wish, struct err *e)
{
    int found = 0;
    s->layout = SOURCE_DENSE;
    if (strchr(wish->features, '/') || strchr(wish->targets, '/'))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "data.features is \"%s\" and data.targets \"%s\"; expected names of data "
                       "sets in the split's group, without /",
                       wish->features, wish->targets);
    if (features_open(s, wish->features, e) != 0)
        return -1;
    uint32_t parts = s->field_count;
    s->rows = s->set[0].field.items;
    s->chunk_rows = features_chunk_rows(&s->set[0]);
    if (source_set_open(s, wish->targets, "targets", &targets_kind, &found, e) != 0)
        return -1;
    if (found && s->set[parts].field.items != s->rows)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %llu rows and %s has %llu; each row of features needs its targets",
                       s->set[0].field.path, (unsigned long long)s->rows, s->set[parts].field.path,
                       (unsigned long long)s->set[parts].field.items);
    return source_weights_open(s, wish, e) < 0 || (wish->begins && begins_open(s, e) < 0) ? -1 : 0;
}
