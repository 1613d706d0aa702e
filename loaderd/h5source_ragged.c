/* h5source_ragged.c - see h5source.h: graphs and tokens, whose data sets have more items than there
 * are rows.
 *
 * The pointers say where a graph's nodes and edges begin, or where a document's tokens do. They are
 * read once, checked, and kept: 8 bytes a graph or document each. Stored chunks do not end where
 * rows do, so the chunk at either end of a range of rows is decoded for its neighbour again when
 * the order is permuted: source_chunk_rows makes ranges long enough for that to cost little.
 */
#include "loaderd/h5source_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A range of rows is as large as this many stored chunks of each data set: one more is decoded. */
enum { RANGE_CHUNKS = 16, POINTER_BYTES = 8 };

static const struct source_kind pointer_kind = {1, 1, .numbers = SOURCE_WHOLE,
                                                .wanted = "1 dimension"};
static const struct source_kind items_kind = {1, 2, .ragged = 1, .may_be_empty = 1,
                                              .wanted = "2 dimensions: items, features"};
static const struct source_kind edges_kind = {2,
                                              2,
                                              .axis = 1,
                                              .ragged = 1,
                                              .may_be_empty = 1,
                                              .numbers = SOURCE_WHOLE,
                                              .wanted = "2 dimensions: 2 (from, to) x edges"};
static const struct source_kind graph_targets_kind = {1, 2,
                                                      .wanted = "1 or 2 dimensions, graphs first"};
static const struct source_kind tokens_kind = {1, 1, .ragged = 1, .numbers = SOURCE_UNSIGNED,
                                               .wanted = "unsigned integers in one dimension"};

static int needed_set_open(struct source *s, const char *name, const struct source_kind *kind,
                           struct err *e)
{
    int found;
    if (source_set_open(s, name, name, kind, &found, e) != 0)
        return -1;
    if (found)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT, "%s has no data set %s (there is: %s)",
                   s->split[0] ? s->split : "the root group", name, source_names_in(s->group));
}

/* Begins with 0, never falls, ends with `items`. */
static int pointer_check(const struct source_set *t, const struct source_pointer *p, uint64_t items,
                         const char *of, struct err *e)
{
    uint64_t i = 0;
    if (p->at[0] == 0)
        for (i = 1; i < p->count && p->at[i] >= p->at[i - 1] && p->at[i] <= items;)
            i++;
    if (i == p->count && p->at[i - 1] == items)
        return 0;
    if (i == p->count)
        i--;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s[%llu] is %lld; expected numbers that begin with 0, never fall and end with "
                   "%llu, the length of %s",
                   t->field.path, (unsigned long long)i, (long long)p->at[i],
                   (unsigned long long)items, of);
}

/* All numbers of the described set, as 8-byte integers of its sign: a negative one is seen as one
 * that is too large. */
static int pointer_fill(struct source *s, struct source_set *t, struct source_pointer *p,
                        struct err *e)
{
    uint64_t kept = (s->nodes.count + s->edges.count + t->field.items) * POINTER_BYTES;
    if (t->field.items < 2)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s has %llu number; expected the beginning of each row and the end of the "
                       "last",
                       t->field.path, (unsigned long long)t->field.items);
    if (kept > SOURCE_POINTERS_BYTES_MAX)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s makes the pointers of this split %llu MiB, which are kept in memory; at "
                       "most %llu MiB are: store it as several splits",
                       t->field.path, (unsigned long long)(kept >> 20),
                       SOURCE_POINTERS_BYTES_MAX >> 20);
    if (h5type_bytes(t->field.type) != POINTER_BYTES) {
        t->memory_type = h5type_name(t->field.type)[0] == 'u' ? H5T_STD_U64LE : H5T_STD_I64LE;
        t->field.plain_at = UINT64_MAX;
        t->field.row_bytes = POINTER_BYTES;
    }
    p->at = malloc(t->field.items * POINTER_BYTES);
    if (!p->at)
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot keep %s: no memory", t->field.path);
    p->count = t->field.items;
    return source_set_read(s, t, 0, 0, p->count, p->at, e);
}

/* Read pointer `name` into the zeroed *p: it cuts the `items` items of `of`. */
static int pointer_open(struct source *s, const char *name, struct source_pointer *p,
                        uint64_t items, const char *of, struct err *e)
{
    struct source_set t;
    int found;
    int result = source_set_describe(s, &t, name, name, &pointer_kind, &found, e);
    if (result == 0 && !found)
        result =
            err_set(e, EXIT_CODE_PERMANENT, "%s has no data set %s (there is: %s)",
                    s->split[0] ? s->split : "the root group", name, source_names_in(s->group));
    if (result == 0)
        result = pointer_fill(s, &t, p, e);
    if (result == 0)
        result = pointer_check(&t, p, items, of, e);
    if (t.dataset >= 0)
        H5Dclose(t.dataset);
    return result;
}

/* A range holds RANGE_CHUNKS times the bytes of a stored chunk of each ragged data set; of what is
 * not chunked, as much as of contiguous dense data. Chunks of targets, if ranges are longer than
 * those, it holds whole. */
static uint64_t range_rows(const struct source *s)
{
    unsigned __int128 wanted = 0, bytes = 0;
    uint64_t whole = 1;
    for (uint32_t i = 0; i < s->field_count; i++) {
        const struct source_field *f = &s->set[i].field;
        uint64_t held = f->chunk_rows < f->items ? f->chunk_rows : f->items;
        bytes += (unsigned __int128)f->items * f->planes * f->row_bytes;
        if (s->set[i].kind->ragged)
            wanted += (unsigned __int128)held * f->planes * f->row_bytes * RANGE_CHUNKS;
        else if (f->chunk_rows > whole)
            whole = f->chunk_rows;
    }
    if (wanted < SOURCE_VIRTUAL_CHUNK_BYTES)
        wanted = SOURCE_VIRTUAL_CHUNK_BYTES;
    unsigned __int128 rows = bytes ? wanted * s->rows / bytes : s->rows;
    if (rows > whole)
        rows = (rows + whole - 1) / whole * whole;
    return rows < 1 ? 1 : rows < s->rows ? (uint64_t)rows : s->rows;
}

/* Has the other data set of edges as many as edge_index? */
static int edges_check(const struct source_set *a, const struct source_set *b, struct err *e)
{
    if (a->field.items == b->field.items)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT, "%s has %llu edges and %s has %llu", a->field.path,
                   (unsigned long long)a->field.items, b->field.path,
                   (unsigned long long)b->field.items);
}

static int graph_targets_open(struct source *s, struct err *e)
{
    int found;
    const struct source_set *t = &s->set[s->field_count];
    if (source_set_open(s, "targets", "targets", &graph_targets_kind, &found, e) != 0)
        return -1;
    if (!found || t->field.items == s->rows)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT, "%s has %llu rows for the %llu graphs of node_ptr",
                   t->field.path, (unsigned long long)t->field.items, (unsigned long long)s->rows);
}

int source_graph_open(struct source *s, const struct source_wish *wish, struct err *e)
{
    const struct source_set *nodes = &s->set[0], *edges = &s->set[1], *more = &s->set[2];
    int found;
    s->layout = SOURCE_GRAPH;
    if (needed_set_open(s, "node_features", &items_kind, e) != 0 ||
        needed_set_open(s, "edge_index", &edges_kind, e) != 0 ||
        source_set_open(s, "edge_features", "edge_features", &items_kind, &found, e) != 0 ||
        (found && edges_check(edges, more, e) != 0) ||
        pointer_open(s, "node_ptr", &s->nodes, nodes->field.items, nodes->field.path, e) != 0 ||
        pointer_open(s, "edge_ptr", &s->edges, edges->field.items, edges->field.path, e) != 0)
        return -1;
    s->rows = s->nodes.count - 1;
    if (s->edges.count != s->nodes.count)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "node_ptr has %llu numbers and edge_ptr %llu; expected one more than there "
                       "are graphs in both",
                       (unsigned long long)s->nodes.count, (unsigned long long)s->edges.count);
    if (graph_targets_open(s, e) != 0 || source_weights_open(s, wish, e) != 0)
        return -1;
    s->chunk_rows = range_rows(s);
    return 0;
}

int source_tokens_open(struct source *s, const struct source_wish *wish, struct err *e)
{
    s->layout = SOURCE_TOKENS;
    if (needed_set_open(s, "tokens", &tokens_kind, e) != 0)
        return -1;
    const struct source_field *f = &s->set[0].field;
    if (s->window < 1 || f->items <= s->window)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "%s has %llu tokens and data.window is %llu; a row is a window and one token "
            "more, so expected a window of 1 to %llu tokens",
            f->path, (unsigned long long)f->items, (unsigned long long)s->window,
            (unsigned long long)f->items - 1);
    if (pointer_open(s, "doc_ptr", &s->documents, f->items, f->path, e) != 0)
        return -1;
    s->rows = (f->items - 1) / s->window;
    if (source_weights_open(s, wish, e) != 0)
        return -1;
    s->chunk_rows = range_rows(s);
    return 0;
}
