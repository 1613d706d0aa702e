/* layout.c - see layout.h. */
#include "loaderd/layout.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/order.h"

/* A span costs some 100 us of messages and wake-ups, whatever it holds. Decoding 1 MiB takes 15
 * times that, copying it out of the page cache once that: spans that are only copied are longer,
 * but not so long that in file order, where the arena has two, they leave the last level of the
 * caches: three of 8 MiB took 7 to 25 % more CPU time than two of 4. To and fro, a window of many
 * spans is resident; in file order the next one is, so that those to be decoded may be longer: 6 to
 * 8 % of the CPU time of gzip.
 */
enum {
    FIELD_ALIGNMENT = 64,
    ARENA_PAGE_BYTES = 4096, /* of the arena that spans are chosen for, whatever a machine's have */
    SPAN_BYTES_DECODED = 1 << 20,
    SPAN_BYTES_COPIED = 4 << 20,
    SPAN_BYTES_DECODED_IN_ORDER = 4 << 20,
    SPANS_IN_ORDER = 5,    /* at least, where they are longer than to and fro */
    WINDOW_SPANS_AUTO = 4, /* the spans of a window of streams are made smaller: so many of those */
    STREAM_CHUNKS_LOST = 64, /* one row of so many may be left out for streams of whole chunks */
    STREAM_SPAN_CHUNKS = 4,  /* of a span where streams begin inside chunks, each read twice */
};

/* What is being laid out. */
struct plan {
    const struct reader_open *open;
    const struct source *source;
    struct layout *l;
    struct reader_described *d;
    struct layout_largest *largest; /* LAYOUT_CUTS_MAX, of chunks of d->chunk_rows rows */
};

/* Of the longest stream. */
static uint64_t part_rows(const struct reader_described *d)
{
    return d->streams ? (d->rows + d->streams - 1) / d->streams : d->rows;
}

/* Do streams begin inside chunks? */
static int chunks_are_cut(const struct reader_described *d)
{
    return d->streams && (d->rows % d->streams || part_rows(d) % d->chunk_rows);
}

/* Rows of a span as resident: no more than there are. */
static uint64_t rows_held(const struct reader_described *d, uint64_t span_rows)
{
    return span_rows < part_rows(d) ? span_rows : part_rows(d);
}

/* The rows that fill the streams: each as long as possible, or a little less where that makes it a
 * whole number of chunks, so that every chunk belongs to one stream and is read once. */
static int streams_cut(struct reader_described *d, const char *split, struct err *e)
{
    uint64_t rows = d->rows / d->streams, whole = rows / d->chunk_rows * d->chunk_rows;
    if (!rows)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "the %llu rows of %s do not fill %llu streams; lower training.batch_size",
                       (unsigned long long)d->rows, split[0] ? split : "the root group",
                       (unsigned long long)d->streams);
    if (rows - whole <= rows / STREAM_CHUNKS_LOST)
        rows = whole;
    d->rows = rows * d->streams;
    return 0;
}

/* The sums of that pointer, made when they are first wanted. NULL and *e: no memory. */
static const struct layout_largest *largest_of(const struct plan *p,
                                               const struct source_pointer *cut, struct err *e)
{
    struct layout_largest *l = p->largest;
    while (l < p->largest + LAYOUT_CUTS_MAX && l->cut && l->cut != cut)
        l++;
    ensure(l < p->largest + LAYOUT_CUTS_MAX);
    return l->cut || layout_largest_make(l, cut, p->d->chunk_rows, e) == 0 ? l : NULL;
}

/* Most items of field i in a span of span_rows rows. */
static int items_max(const struct plan *p, uint32_t i, uint64_t span_rows, uint64_t *items,
                     struct err *e)
{
    const struct layout_field *f = &p->l->field[i];
    const struct reader_described *d = p->d;
    struct order order = {.rows = d->rows, .span_rows = span_rows, .streams = d->streams};
    *items = rows_held(d, span_rows);
    if (f->from == LAYOUT_POINTER)
        ++*items;
    if (f->from != LAYOUT_ITEMS || !f->cut)
        return 0;
    if (!p->open->shuffle || span_rows == d->chunk_rows) {
        *items = layout_items_max(f->cut, &order);
        return 0;
    }
    const struct layout_largest *largest = largest_of(p, f->cut, e);
    if (!largest)
        return -1;
    *items = layout_largest_items(largest, span_rows / d->chunk_rows);
    return 0;
}

/* Places the fields of a span of span_rows rows; *span_bytes is UINT64_MAX when its bytes cannot be
 * counted. */
static int fields_place(const struct plan *p, uint64_t span_rows, uint64_t *span_bytes,
                        struct err *e)
{
    uint64_t at = 0, bytes, items;
    *span_bytes = UINT64_MAX;
    for (uint32_t i = 0; i < p->d->field_count; i++) {
        struct msg_field_info *info = &p->d->fields[i];
        if (items_max(p, i, span_rows, &items, e) != 0)
            return -1;
        info->offset = at;
        info->items_max = items;
        if (__builtin_mul_overflow(items, info->row_bytes, &bytes) ||
            __builtin_add_overflow(at, bytes, &at) || at > UINT64_MAX - FIELD_ALIGNMENT)
            return 0;
        at = (at + FIELD_ALIGNMENT - 1) / FIELD_ALIGNMENT * FIELD_ALIGNMENT;
    }
    *span_bytes = at;
    return 0;
}

uint64_t layout_span_bytes_chosen(uint64_t window_spans)
{
    return LAYOUT_ARENA_BYTES / (window_spans + 1) / ARENA_PAGE_BYTES * ARENA_PAGE_BYTES;
}

/* What arena.limit_mb has to be for windows of such spans (proto/feed.h), in MiB. */
static double arena_mb_needed(const struct plan *p, uint64_t span_bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), pages = (span_bytes - 1) / page + 1;
    return ceil((double)pages * (double)page * (double)(p->open->window_spans + 1) / 1048576);
}

/* What makes windows of fewer spans; "": they are of one, as all are in file order. */
static const char *window_option(const struct plan *p)
{
    if (p->open->window_spans < 2)
        return "";
    return p->open->streams ? "training.batch_size (a stream each) or " : "order.window_spans or ";
}

/* `window` and `rather`: what may be lowered instead. */
static int limit_exceeded(const struct plan *p, const char *what, uint64_t rows, uint64_t bytes,
                          const char *window, const char *rather, struct err *e)
{
    int in_order = !p->open->shuffle && !p->open->streams;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s of %llu rows is %.2f MiB; arena.limit_mb allows %.2f MiB a span; set it to "
                   "%.0f or more%s%s%s%s",
                   what, (unsigned long long)rows, (double)bytes / 1048576,
                   (double)p->open->span_bytes_limit / 1048576, arena_mb_needed(p, bytes),
                   rather[0] ? ", or lower " : "", window, rather,
                   !rather[0] || in_order ? "" : ", which changes the order of the rows");
}

static const char chunk_rather[] = "the rows of its stored chunks (h5repack -l CHUNK=)";

static int stored_chunks_fit(const struct plan *p, struct err *e)
{
    uint64_t limit = p->open->span_bytes_limit;
    for (uint32_t i = 0; i < source_field_count(p->source); i++) {
        const struct source_field *f = source_field(p->source, i);
        if (f->chunk_bytes <= limit)
            continue;
        limit_exceeded(p, "a chunk", f->chunk_rows, f->chunk_bytes, window_option(p), chunk_rather,
                       e);
        return err_prefix(e, "%s", f->path);
    }
    return 0;
}

/* Makes ragged d->chunk_rows fewer until a span of them is within span_bytes, as far as they go;
 * *bytes is what it has. */
static int chunk_rows_halve(const struct plan *p, uint64_t span_bytes, uint64_t *bytes,
                            struct err *e)
{
    for (;;) {
        if (fields_place(p, p->d->chunk_rows, bytes, e) != 0)
            return -1;
        if (*bytes <= span_bytes || p->d->chunk_rows == 1 ||
            source_layout(p->source) == SOURCE_DENSE)
            return 0;
        p->d->chunk_rows = (p->d->chunk_rows + 1) / 2;
    }
}

/* Where the order is given spans of few rows, a ragged layout has ranges of no more. */
static int chunk_refuse(const struct plan *p, uint64_t bytes, struct err *e)
{
    char rather[64] = "";
    uint64_t rows = rows_held(p->d, p->d->chunk_rows), limit = p->open->span_bytes_limit, least;
    if (source_layout(p->source) == SOURCE_DENSE)
        return limit_exceeded(p, "a chunk", rows, bytes, window_option(p), chunk_rather, e);
    if (chunk_rows_halve(p, limit, &least, e) != 0)
        return -1;
    if (least <= limit)
        snprintf(rather, sizeof rather, "order.span_rows (e.g. to %llu)",
                 (unsigned long long)p->d->chunk_rows);
    return limit_exceeded(p, "a chunk", rows, bytes, "", rather, e);
}

/* Rows that the order permutes together: what the source wants; of ragged layouts, whose ranges are
 * our choice, no more than a span is asked to have, and fewer if those are too many for the bytes
 * that spans are chosen for. */
static int chunk_rows_choose(const struct plan *p, struct err *e)
{
    uint64_t asked = p->open->span_rows, bytes;
    if (source_layout(p->source) != SOURCE_DENSE && asked && asked < p->d->chunk_rows)
        p->d->chunk_rows = asked;
    if (chunk_rows_halve(p, p->open->span_bytes_chosen, &bytes, e) != 0)
        return -1;
    return bytes <= p->open->span_bytes_limit ? 0 : chunk_refuse(p, bytes, e);
}

/* Rows that a span may be chosen to have, if every field has an item a row: of the file, or of one
 * stream. */
static uint64_t rows_limit(const struct plan *p)
{
    uint64_t row_bytes = 0, limit = p->open->span_bytes_chosen;
    uint64_t aligned = FIELD_ALIGNMENT * p->d->field_count;
    for (uint32_t i = 0; i < p->d->field_count; i++)
        row_bytes += p->d->fields[i].row_bytes;
    return limit > aligned ? rows_held(p->d, (limit - aligned) / row_bytes) : 0;
}

static int to_and_fro(const struct plan *p)
{
    return p->open->shuffle || p->open->streams;
}

/* In file order the chunk that a span ends in stays decoded for the next one, so only an order that
 * goes to and fro needs groups of rows in which the chunks of all fields end. */
static uint64_t chunk_rows_wanted(const struct plan *p)
{
    return source_chunk_rows(p->source, to_and_fro(p) ? rows_limit(p) : 0);
}

/* Bytes that a chunk of the order has on average. */
static uint64_t chunk_bytes_mean(const struct plan *p)
{
    const struct reader_described *d = p->d;
    uint64_t chunks = (source_rows(p->source) - 1) / d->chunk_rows + 1, bytes = 0;
    for (uint32_t i = 0; i < d->field_count; i++) {
        const struct source_pointer *cut = p->l->field[i].cut;
        int ragged = cut && p->l->field[i].from == LAYOUT_ITEMS;
        uint64_t items = ragged ? cut->at[cut->count - 1] / chunks : d->chunk_rows;
        bytes += items * d->fields[i].row_bytes;
    }
    return bytes ? bytes : 1;
}

/* As many chunks, at most `chunks`, as span_bytes have room for; at least one. Without shuffle a
 * longer span may hold fewer items, where its ends fall well: then some number that fits. */
static int chunks_fit(const struct plan *p, uint64_t chunks, uint64_t span_bytes, uint64_t *fit,
                      struct err *e)
{
    uint64_t high = chunks, bytes;
    for (*fit = 1; *fit < high;) {
        uint64_t middle = *fit + (high - *fit + 1) / 2;
        if (fields_place(p, middle * p->d->chunk_rows, &bytes, e) != 0)
            return -1;
        if (bytes <= span_bytes)
            *fit = middle;
        else
            high = middle - 1;
    }
    return 0;
}

/* For rows of `all` bytes. A few long spans would be all of a small file. */
static uint64_t span_bytes_wanted(const struct plan *p, uint64_t all)
{
    int copied = source_field_is_copied(source_field(p->source, 0));
    uint64_t share = all / SPANS_IN_ORDER;
    if (copied)
        return SPAN_BYTES_COPIED;
    if (to_and_fro(p) || share < SPAN_BYTES_DECODED)
        return SPAN_BYTES_DECODED;
    return share < SPAN_BYTES_DECODED_IN_ORDER ? share : SPAN_BYTES_DECODED_IN_ORDER;
}

/* The whole number of chunks that comes nearest to what costs little, and that is chosen for. In
 * file order spans are then made as long as each other: one for the last few rows would cost as
 * much. */
static int span_rows_auto(const struct plan *p, struct err *e)
{
    struct reader_described *d = p->d;
    uint64_t mean = chunk_bytes_mean(p);
    uint64_t wanted = span_bytes_wanted(p, part_rows(d) / d->chunk_rows * mean);
    if (d->streams > WINDOW_SPANS_AUTO)
        wanted = wanted * WINDOW_SPANS_AUTO / d->streams;
    uint64_t chunks = (wanted + mean / 2) / mean;
    if (chunks_are_cut(d) && chunks < STREAM_SPAN_CHUNKS)
        chunks = STREAM_SPAN_CHUNKS;
    uint64_t chunks_max = (part_rows(d) + d->chunk_rows - 1) / d->chunk_rows;
    if (chunks > chunks_max)
        chunks = chunks_max;
    if (!to_and_fro(p)) {
        uint64_t spans = (chunks_max - 1) / (chunks ? chunks : 1) + 1;
        chunks = (chunks_max - 1) / spans + 1;
    }
    if (chunks_fit(p, chunks, p->open->span_bytes_chosen, &chunks, e) != 0)
        return -1;
    d->span_rows = chunks * d->chunk_rows;
    return 0;
}

/* As asked, rounded up to whole chunks, and no longer than one span for everything. */
static uint64_t span_rows_asked(const struct reader_described *d, uint64_t asked)
{
    uint64_t rows = rows_held(d, asked);
    return (rows + d->chunk_rows - 1) / d->chunk_rows * d->chunk_rows;
}

static void field_add(const struct plan *p, const char *name, enum h5type type, uint64_t values,
                      const char *pointer, struct layout_field from)
{
    ensure(p->d->field_count < SPAN_FIELDS_MAX);
    struct msg_field_info *info = &p->d->fields[p->d->field_count];
    p->l->field[p->d->field_count++] = from;
    MSG_STR(info->name, name);
    MSG_STR(info->type, h5type_name(type));
    MSG_STR(info->pointer, pointer);
    info->values = values;
    info->row_bytes = values * h5type_bytes(type);
}

static void graph_field_add(const struct plan *p, uint32_t set)
{
    const struct source_field *f = source_field(p->source, set);
    const struct source_pointer *nodes = source_nodes(p->source), *edges = source_edges(p->source);
    struct layout_field from = {.set = set, .cut = edges};
    if (strcmp(f->name, "targets") == 0 || strcmp(f->name, "weights") == 0) {
        field_add(p, f->name, f->type, f->values, "", (struct layout_field){.set = set});
    } else if (strcmp(f->name, "node_features") == 0) {
        from.cut = nodes;
        field_add(p, "node_ptr", H5TYPE_U64, 1, "",
                  (struct layout_field){LAYOUT_POINTER, .cut = nodes});
        field_add(p, f->name, f->type, f->values, "node_ptr", from);
    } else if (strcmp(f->name, "edge_index") == 0) {
        field_add(p, "edge_ptr", H5TYPE_U64, 1, "",
                  (struct layout_field){LAYOUT_POINTER, .cut = edges});
        field_add(p, "edge_source", f->type, 1, "edge_ptr", from);
        from.plane = 1;
        field_add(p, "edge_target", f->type, 1, "edge_ptr", from);
    } else {
        field_add(p, f->name, f->type, f->values, "edge_ptr", from);
    }
}

static void fields_describe(const struct plan *p)
{
    const struct source_field *f = source_field(p->source, 0);
    uint64_t tokens = p->open->window + 1;
    if (source_layout(p->source) == SOURCE_TOKENS) {
        field_add(p, "tokens", f->type, tokens, "", (struct layout_field){LAYOUT_WINDOWS});
        field_add(p, "document_starts", H5TYPE_U8, (tokens + 7) / 8, "",
                  (struct layout_field){LAYOUT_STARTS, .cut = source_documents(p->source)});
        if (source_field_count(p->source) > 1) {
            f = source_field(p->source, 1);
            field_add(p, f->name, f->type, tokens, "",
                      (struct layout_field){LAYOUT_WINDOWS, .set = 1});
        }
        if (p->open->begins)
            field_add(p, "begins", H5TYPE_U8, 1, "",
                      (struct layout_field){LAYOUT_BEGINS, .cut = source_documents(p->source)});
        return;
    }
    for (uint32_t i = 0; i < source_field_count(p->source); i++) {
        f = source_field(p->source, i);
        if (source_layout(p->source) == SOURCE_GRAPH)
            graph_field_add(p, i);
        else
            field_add(p, f->name, f->type, f->values, "", (struct layout_field){.set = i});
    }
}

/* Where a span begins follows the field of which most is copied as it is stored, if the limit has
 * room for that: it makes no span shorter, and no file is refused for it. */
static void copied_choose(const struct plan *p)
{
    struct reader_described *d = p->d;
    uint64_t most = 0;
    p->l->copied = -1;
    if (p->open->span_bytes_limit - d->span_bytes_max < LAYOUT_OFFSET_MAX)
        return;
    for (uint32_t i = 0; i < d->field_count; i++) {
        const struct layout_field *f = &p->l->field[i];
        uint64_t bytes = d->fields[i].items_max * d->fields[i].row_bytes;
        if (f->from != LAYOUT_ITEMS || bytes <= most ||
            !source_field_is_copied(source_field(p->source, f->set)))
            continue;
        most = bytes;
        p->l->copied = (int)i;
    }
    if (p->l->copied >= 0)
        d->span_bytes_max += LAYOUT_OFFSET_MAX;
}

/* A chunk fits (chunk_rows_choose), and this span does not. */
static int span_refuse(const struct plan *p, struct err *e)
{
    char rather[64];
    struct reader_described *d = p->d;
    uint64_t bytes = d->span_bytes_max, fit;
    if (chunks_fit(p, d->span_rows / d->chunk_rows, p->open->span_bytes_limit, &fit, e) != 0)
        return -1;
    snprintf(rather, sizeof rather, "order.span_rows (e.g. to %llu)",
             (unsigned long long)(fit * d->chunk_rows));
    return limit_exceeded(p, "a span", d->span_rows, bytes, window_option(p), rather, e);
}

/* The rows of a span, and where its fields lie. */
static int span_choose(const struct plan *p, struct err *e)
{
    struct reader_described *d = p->d;
    if (p->open->span_rows)
        d->span_rows = span_rows_asked(d, p->open->span_rows);
    else if (span_rows_auto(p, e) != 0)
        return -1;
    d->spans = order_spans(
        &(struct order){.rows = d->rows, .span_rows = d->span_rows, .streams = d->streams});
    if (fields_place(p, d->span_rows, &d->span_bytes_max, e) != 0)
        return -1;
    if (d->span_bytes_max > p->open->span_bytes_limit)
        return span_refuse(p, e);
    copied_choose(p);
    return 0;
}

/* What the reader holds of the file: in each of its threads chunks in work (decoders.c); always the
 * pointers, where the chunks lie, and of a ragged data set the chunk where one span ends and the
 * next begins (fetch.c). */
static void memory_describe(const struct plan *p)
{
    const struct source_pointer *pointers[] = {source_nodes(p->source), source_edges(p->source),
                                               source_documents(p->source)};
    struct reader_described *d = p->d;
    int ragged = source_layout(p->source) != SOURCE_DENSE;
    d->kept_bytes += source_index_bytes(p->source);
    for (uint32_t i = 0; i < source_field_count(p->source); i++) {
        const struct source_field *f = source_field(p->source, i);
        uint64_t bytes = f->chunk_rows ? f->chunk_bytes : 0;
        d->chunk_bytes_max = bytes > d->chunk_bytes_max ? bytes : d->chunk_bytes_max;
        d->kept_bytes += ragged && bytes ? bytes * f->planes / f->chunk_planes : 0;
    }
    for (size_t i = 0; i < sizeof pointers / sizeof *pointers; i++)
        d->kept_bytes += pointers[i]->at ? pointers[i]->count * sizeof *pointers[i]->at : 0;
}

int layout_make(const struct reader_open *open, struct source *source, struct layout *l,
                struct reader_described *d, struct err *e)
{
    static const char *const names[] = {"dense", "graph", "tokens"};
    struct layout_largest largest[LAYOUT_CUTS_MAX] = {0};
    struct plan p = {open, source, l, d, largest};
    *l = (struct layout){.window = open->window};
    MSG_STR(d->layout, names[source_layout(source)]);
    d->rows = source_rows(source);
    d->streams = open->streams;
    fields_describe(&p);
    memory_describe(&p);
    d->chunk_rows = chunk_rows_wanted(&p);
    int failed = (d->streams && !open->rest && streams_cut(d, open->split, e) != 0) ||
                 stored_chunks_fit(&p, e) != 0 || chunk_rows_choose(&p, e) != 0 ||
                 span_choose(&p, e) != 0;
    for (int i = 0; i < LAYOUT_CUTS_MAX; i++)
        layout_largest_free(&largest[i]);
    if (failed)
        return -1;
    return source_chunk_rows_set(source, d->chunk_rows, e) || layout_batches(open, l, d, e) ? -1
                                                                                            : 0;
}

uint64_t layout_items(const struct layout *l, uint32_t i, uint64_t row, uint64_t rows,
                      uint64_t *first)
{
    const struct layout_field *f = &l->field[i];
    if (f->from == LAYOUT_WINDOWS) {
        *first = row * l->window;
        return rows * l->window + 1;
    }
    *first = f->cut ? f->cut->at[row] : row;
    return f->cut ? f->cut->at[row + rows] - f->cut->at[row] : rows;
}
