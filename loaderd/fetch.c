/* fetch.c - see fetch.h: from runs of rows to runs of items, from those to stored chunks.
 *
 *   fetch_begin -> run_fetch -> field_fetch -> items_fetch -> chunk_fetch -> a job that decodes
 *                                                          -> bytes_fetch -> jobs that only read
 *                                                          -> items_read: libhdf5, here
 *   fetch_end   -> finish_span (finish.c): what needs the decoded items
 */
#include "loaderd/fetch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "loaderd/finish.h"

enum {
    JOB_BYTES = 1 << 20,         /* of what threads only read, which they divide (decoders.c) */
    READ_BYTES_LEAST = 64 << 10, /* fewer are read before a thread has woken up */
    CACHED_MIB_A_S = 512,        /* what reads come to that no disk has to serve: more */
};

/* Items [item, item + items) of the planes [plane, plane + planes) of a data set, and where they
 * go. */
struct piece {
    uint32_t set, plane, planes;
    uint64_t item, items;
    char *out[SOURCE_PLANES_MAX];
    int is_last; /* of that data set in this span */
};

void fetch_close(struct fetch *f)
{
    for (int i = 0; i < SOURCE_FIELDS_MAX; i++)
        for (int j = 0; j < SOURCE_PLANES_MAX; j++)
            free(f->kept[i][j].at);
    memset(f->kept, 0, sizeof f->kept);
}

/* What ended while this span begins is not to wait for it. For how long that holds, in seconds. */
static double others_go_on(struct fetch *f)
{
    return f->between ? f->between(f->self) : INFINITY;
}

/* By libhdf5, or from a plain field. */
static int items_read(struct fetch *f, const struct piece *p, struct err *e)
{
    double begin = decoders_clock_s();
    uint64_t before = source_bytes_decoded(f->source);
    int result = 0;
    for (uint32_t i = 0; i < p->planes && result == 0; i++)
        result =
            source_items_read(f->source, p->set, p->plane + i, p->item, p->items, p->out[i], e);
    f->now->bytes_decoded += source_bytes_decoded(f->source) - before;
    f->now->read_s += decoders_clock_s() - begin;
    return result;
}

/* A job that reads those bytes of the file. */
static struct decoders_job *job_take(struct fetch *f, const struct source_field *set,
                                     uint64_t chunk, uint64_t at, uint64_t bytes)
{
    struct decoders_job *job;
    while (!(job = decoders_take(f->decoders, others_go_on(f))))
        ;
    job->batch = &f->now->batch;
    job->read = source_bytes_reader(f->source, &job->fd);
    job->drop = source_bytes_dropper(f->source);
    job->at = at;
    job->bytes = bytes;
    job->name = set->path;
    job->chunk = chunk;
    f->now->bytes_read += bytes;
    return job;
}

/* Of a data set whose numbers are stored as they go into the slot, the bytes at `at` of the file:
 * by as many threads as there are where a device takes them faster than one copies, or a read slept
 * until the disk had it; two that copy out of the page cache take more CPU time than one, and are
 * no sooner done. */
static void bytes_fetch(struct fetch *f, const struct source_field *set, uint64_t chunk, char *out,
                        uint64_t bytes, uint64_t at)
{
    f->now->bytes_decoded += bytes;
    for (uint64_t part; bytes; bytes -= part, out += part, at += part) {
        part = bytes < 2 * JOB_BYTES ? bytes : JOB_BYTES;
        struct decoders_job *job = job_take(f, set, chunk, at, part);
        job->plain_out = out;
        if (part < READ_BYTES_LEAST || !(f->in_threads || f->copies_wait))
            decoders_do(f->decoders, job);
        else
            decoders_submit(f->decoders, job);
    }
}

/* Where the piece stands in its decoded chunk. */
static struct decoders_part part_of(const struct source_field *set, const struct piece *p,
                                    uint32_t i)
{
    uint64_t in_plane = p->item % set->chunk_rows;
    return (struct decoders_part){
        .skip_bytes = ((set->chunk_planes > 1 ? p->plane + i : 0) * set->chunk_rows + in_plane) *
                      set->row_bytes,
        .take_bytes = p->items * set->row_bytes,
        .out = p->out[i],
    };
}

/* What is kept is whole, or not kept after all. */
static void kept_settle(struct fetch *f, struct fetch_kept *kept)
{
    if (!kept->decoding)
        return;
    while (kept->decoding && !decoders_is_done(f->decoders, &kept->decoding->batch)) {
        double seconds = others_go_on(f);
        if (kept->decoding)
            decoders_pause(f->decoders, &kept->decoding->batch, seconds);
    }
    if (!kept->decoding) /* its span ended meanwhile */
        return;
    kept->valid = !kept->decoding->batch.failure.code;
    kept->decoding = NULL;
}

/* Out of the chunk that was kept; 0: it is another one. */
static int kept_take(struct fetch *f, struct fetch_kept *kept, const struct source_field *set,
                     const struct piece *p, uint64_t chunk)
{
    if (!kept->at || kept->chunk != chunk)
        return 0;
    kept_settle(f, kept);
    if (!kept->valid)
        return 0;
    for (uint32_t i = 0; i < p->planes; i++) {
        struct decoders_part part = part_of(set, p, i);
        memcpy(part.out, kept->at + part.skip_bytes, part.take_bytes);
    }
    return 1;
}

/* The next span may want the rest of this chunk: it is decoded into a buffer that stays. Without
 * memory for that it is decoded again. */
static void keep_prepare(struct fetch *f, struct fetch_kept *kept, const struct source_field *set,
                         uint64_t chunk, struct decoders_job *job)
{
    kept_settle(f, kept);
    if (!kept->at)
        kept->at = malloc(set->chunk_bytes);
    if (!kept->at)
        return;
    *kept = (struct fetch_kept){kept->at, chunk, .decoding = f->now};
    job->whole = kept->at;
}

static int is_whole(const struct source_field *set, const struct piece *p)
{
    return p->items * set->row_bytes == set->chunk_bytes;
}

/* Part of one stored chunk, of which `held` items are in the data set: found here, read and decoded
 * by a thread. */
static int chunk_fetch(struct fetch *f, const struct piece *p, struct err *e)
{
    const struct source_field *set = source_field(f->source, p->set);
    struct fetch_kept *kept = &f->kept[p->set][p->plane];
    uint64_t chunk = p->item / set->chunk_rows, first = chunk * set->chunk_rows, stored = 0, at = 0;
    int partial = first + set->chunk_rows > set->items;
    uint64_t held = partial ? set->items - first : set->chunk_rows;
    uint32_t mask = 0;
    if (kept_take(f, kept, set, p, chunk))
        return 0;
    if (!(partial && set->edge_unfiltered) &&
        source_chunk_find(f->source, p->set, p->plane, chunk, &stored, &at, &mask, e) != 0)
        return -1;
    if (stored == 0)
        return items_read(f, p, e);
    if (set->plan.count == 0 && is_whole(set, p) && stored == set->chunk_bytes) {
        bytes_fetch(f, set, chunk, p->out[0], stored, at);
        return 0;
    }
    struct decoders_job *job = job_take(f, set, chunk, at, stored);
    if (f->reads_wait)
        source_bytes_ahead(f->source, at, stored);
    job->mask = mask;
    job->plan = &set->plan;
    job->chunk_bytes = set->chunk_bytes;
    job->part_count = p->planes;
    for (uint32_t i = 0; i < p->planes; i++)
        job->part[i] = part_of(set, p, i);
    f->now->bytes_decoded += held * set->chunk_planes * set->row_bytes;
    if (p->is_last && p->item + p->items < first + held)
        keep_prepare(f, kept, set, chunk, job);
    decoders_submit(f->decoders, job);
    return 0;
}

static void plain_fetch(struct fetch *f, const struct piece *p)
{
    const struct source_field *set = source_field(f->source, p->set);
    for (uint32_t i = 0; i < p->planes; i++) {
        uint64_t item = (p->plane + i) * set->items + p->item;
        bytes_fetch(f, set, UINT64_MAX, p->out[i], p->items * set->row_bytes,
                    set->plain_at + item * set->row_bytes);
    }
}

/* Out of as many chunks as hold them. Planes that a chunk does not hold together are fetched one
 * after the other. */
static int items_fetch(struct fetch *f, const struct piece *all, struct err *e)
{
    const struct source_field *set = source_field(f->source, all->set);
    struct piece p = *all;
    if (!all->items)
        return 0;
    others_go_on(f);
    if (set->plain_at != UINT64_MAX && all->items * set->row_bytes >= READ_BYTES_LEAST) {
        plain_fetch(f, all);
        return 0;
    }
    if (!set->direct)
        return items_read(f, all, e);
    if (all->planes > set->chunk_planes) {
        for (p.planes = 1; p.plane < all->planes; p.plane++) {
            p.out[0] = all->out[p.plane];
            if (items_fetch(f, &p, e) != 0)
                return -1;
        }
        return 0;
    }
    for (uint64_t left = all->items; left; left -= p.items) {
        uint64_t in_chunk = set->chunk_rows - p.item % set->chunk_rows;
        p.items = in_chunk < left ? in_chunk : left;
        p.is_last = all->is_last && p.items == left;
        if (chunk_fetch(f, &p, e) != 0)
            return -1;
        p.item += p.items;
        for (uint32_t i = 0; i < p.planes; i++)
            p.out[i] += p.items * set->row_bytes;
    }
    return 0;
}

/* The items of a run's rows, behind the `placed` ones that the field has in the slot. Fields of one
 * data set's planes stand beside each other and come together. */
static int field_fetch(struct fetch *f, uint32_t i, const struct order_run *run, uint64_t placed,
                       int is_last, char *slot, struct err *e)
{
    const struct layout_field *from = &f->layout->field[i];
    const struct source_field *set = source_field(f->source, from->set);
    struct piece p = {.set = from->set, .planes = set->planes, .is_last = is_last};
    p.items = layout_items(f->layout, i, run->first, run->rows, &p.item);
    for (uint32_t plane = 0; plane < set->planes; plane++) {
        const struct msg_field_info *info = &f->described->fields[i + plane];
        p.out[plane] = slot + info->offset + placed * info->row_bytes;
    }
    if (from->from == LAYOUT_WINDOWS)
        p.out[0] += finish_windows_shift(run->rows) * set->row_bytes;
    return items_fetch(f, &p, e);
}

static int run_fetch(struct fetch *f, const struct order_run *run, int is_last, char *slot,
                     uint64_t placed[SPAN_FIELDS_MAX], struct err *e)
{
    for (uint32_t i = 0; i < f->described->field_count; i++) {
        const struct layout_field *from = &f->layout->field[i];
        int has_items = from->from == LAYOUT_ITEMS || from->from == LAYOUT_WINDOWS;
        uint64_t first;
        if (has_items && from->plane == 0 &&
            field_fetch(f, i, run, placed[i], is_last, slot, e) != 0)
            return -1;
        placed[i] += from->from == LAYOUT_ITEMS
                         ? layout_items(f->layout, i, run->first, run->rows, &first)
                         : run->rows;
        ensure(placed[i] <= f->described->fields[i].items_max);
    }
    return 0;
}

/* Where in the file the item of that row lies which goes into the slot as it is; 0: nowhere. What
 * is wrong there is told by whoever reads it. */
static uint64_t copied_at(struct fetch *f, const struct layout_field *from, uint64_t item)
{
    const struct source_field *set = source_field(f->source, from->set);
    uint64_t stored = 0, at = 0;
    uint32_t mask;
    struct err ignored;
    if (set->plain_at != UINT64_MAX)
        return set->plain_at + (from->plane * set->items + item) * set->row_bytes;
    if (item >= set->items ||
        source_chunk_find(f->source, from->set, from->plane, item / set->chunk_rows, &stored, &at,
                          &mask, &ignored) != 0)
        return 0;
    return at + item % set->chunk_rows * set->row_bytes;
}

static uint64_t span_offset(struct fetch *f, uint64_t epoch, uint64_t span)
{
    struct order_run run = {0};
    uint64_t item;
    int i = f->layout->copied;
    if (i < 0 || !order_run_next(f->order, epoch, span, &run))
        return 0;
    layout_items(f->layout, (uint32_t)i, run.first, run.rows, &item);
    uint64_t at =
        copied_at(f, &f->layout->field[i], item) % (LAYOUT_OFFSET_MAX + LAYOUT_OFFSET_STEP);
    return at / LAYOUT_OFFSET_STEP * LAYOUT_OFFSET_STEP;
}

void fetch_begin(struct fetch *f, struct fetch_span *s, uint64_t epoch, uint64_t span, char *slot)
{
    uint64_t placed[SPAN_FIELDS_MAX] = {0}, rows = order_span_rows(f->order, span);
    uint64_t before = source_bytes_read(f->source);
    struct order_run run = {0};
    int failed = 0;
    *s = (struct fetch_span){.epoch = epoch, .span = span};
    s->offset = span_offset(f, epoch, span);
    s->at = slot + s->offset;
    f->now = s;
    while (!failed && order_run_next(f->order, epoch, span, &run))
        failed = run_fetch(f, &run, run.at + run.rows == rows, s->at, placed, &s->failure) != 0;
    decoders_wake(f->decoders);
    s->bytes_read += source_bytes_read(f->source) - before;
    s->begun = 1;
    f->now = NULL;
}

int fetch_is_done(const struct fetch *f, const struct fetch_span *s)
{
    return s->begun && decoders_is_done(f->decoders, &s->batch);
}

int fetch_end(struct fetch *f, struct fetch_span *s, struct err *e)
{
    decoders_wait(f->decoders, &s->batch);
    for (int i = 0; i < SOURCE_FIELDS_MAX; i++)
        for (int j = 0; j < SOURCE_PLANES_MAX; j++)
            if (f->kept[i][j].decoding == s)
                kept_settle(f, &f->kept[i][j]);
    f->reads_wait = s->batch.read_s * CACHED_MIB_A_S * (1 << 20) > (double)s->bytes_read;
    f->copies_wait = f->reads_wait || s->batch.sleeps;
    const struct err *failure = s->failure.code ? &s->failure : &s->batch.failure;
    if (!failure->code)
        return finish_span(f, s->epoch, s->span, s->at, e);
    *e = *failure;
    return -1;
}
