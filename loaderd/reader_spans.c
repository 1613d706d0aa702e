/* reader_spans.c - see reader_private.h: the spans that the reader was asked for, a ring.
 *
 *   oldest                                        newest
 *   [ ended, answer held ][ on their way: begun, decoded ]      at most READER_SPANS_MAX
 *
 * While the threads decode one span the next is begun. Each is ended (pointers, CRC, digest) and
 * answered in the order of the requests, as soon as it is done: also while the next one begins,
 * between two of its chunks.
 */
#include "loaderd/reader_private.h"

#include <math.h>

#include "proto/door.h"

/* A few spans of 1 MiB by one thread take that long; where the disk or the chunks are slower than
 * that, to be woken costs nothing beside them. */
#define ANSWERS_HELD_S 0.02

static uint64_t span_checksum(const struct reader *r, uint64_t rows, const char *slot)
{
    const struct reader_described *d = &r->described;
    uint32_t crc = 0;
    for (uint32_t i = 0; i < d->field_count; i++) {
        const struct msg_field_info *f = &d->fields[i];
        uint64_t items = span_items(d->fields, d->field_count, f, slot, rows);
        crc = decode_crc32(crc, slot + f->offset, items * f->row_bytes);
    }
    return crc;
}

/* Of data sets: what is made of pointers is not counted. */
static uint64_t bytes_delivered(const struct reader *r, uint64_t rows, const char *slot)
{
    const struct reader_described *d = &r->described;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < d->field_count; i++) {
        enum layout_from from = r->layout.field[i].from;
        if (from == LAYOUT_ITEMS || from == LAYOUT_WINDOWS)
            bytes += span_items(d->fields, d->field_count, &d->fields[i], slot, rows) *
                     d->fields[i].row_bytes;
    }
    return bytes;
}

int reader_span_begin(struct reader *r, const struct reader_read *read, struct err *e)
{
    if (r->arena.fd < 0 || read->span >= r->described.spans || read->slot >= r->arena.slots)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "span %llu into slot %llu was asked and is not there",
                       (unsigned long long)read->span, (unsigned long long)read->slot);
    struct reading *g = &r->reading[(r->first + r->count++) % READER_SPANS_MAX];
    g->read = *read;
    g->credit_s = r->credit_s;
    r->credit_s = 0;
    fetch_begin(&r->fetch, &g->fetched, read->epoch, read->span, arena_slot(&r->arena, read->slot));
    return 0;
}

static int span_end(struct reader *r, struct reading *g, struct reader_done *done, struct err *e)
{
    const struct fetch_span *s = &g->fetched;
    if (fetch_end(&r->fetch, &g->fetched, e) != 0)
        return -1;
    uint64_t rows = order_span_rows(&r->order, s->span);
    *done = (struct reader_done){.epoch = s->epoch,
                                 .span = s->span,
                                 .slot = g->read.slot,
                                 .generation = g->read.generation,
                                 .rows = rows,
                                 .offset = s->offset,
                                 .bytes_read = s->bytes_read,
                                 .bytes_decoded = s->bytes_decoded,
                                 .bytes_delivered = bytes_delivered(r, rows, s->at),
                                 .read_s = s->read_s + s->batch.read_s,
                                 .decode_s = s->batch.decode_s,
                                 .credit_s = g->credit_s};
    if (r->open.verify)
        done->checksum = span_checksum(r, rows, s->at);
    if (r->open.receipt)
        done->digest = span_digest(r->described.fields, r->described.field_count, s->at, rows);
    return 0;
}

static struct reading *reading_at(struct reader *r, uint32_t i)
{
    return &r->reading[(r->first + i) % READER_SPANS_MAX];
}

/* Of the oldest that has not ended. */
static int next_is_done(struct reader *r)
{
    return r->ended < r->count && fetch_is_done(&r->fetch, &reading_at(r, r->ended)->fetched);
}

/* End that one; the next one's time begins. 0, or -1 and *e: we must end. */
static int span_finish(struct reader *r, struct err *e)
{
    struct reading *g = reading_at(r, r->ended);
    if (!r->ended++)
        r->held_since_s = decoders_clock_s();
    if (r->ended < r->count)
        reader_time_limit(r);
    g->answer = (struct reader_packet){.kind = READER_DONE};
    return span_end(r, g, &g->answer.done, e) == 0 ? 0 : reader_reject(&g->answer, e);
}

/* How much longer answers may be held; INFINITY: there are none. */
static double held_left_s(const struct reader *r)
{
    return r->ended ? r->held_since_s + ANSWERS_HELD_S - decoders_clock_s() : INFINITY;
}

/* Rows cannot be used before their whole window is there: answers wait for those of the same window
 * that are on their way, so that whoever waits for them is woken once. Not for long; nor where
 * spans are copied on as they come. */
static int answers_are_due(struct reader *r)
{
    if (!r->ended || r->ended == r->count || r->open.singly)
        return r->ended;
    const struct reading *last = reading_at(r, r->ended - 1), *next = reading_at(r, r->ended);
    uint64_t window = r->open.window_spans ? r->open.window_spans : 1;
    return last->answer.kind == READER_REJECTED || last->read.epoch != next->read.epoch ||
           last->read.span / window != next->read.span / window || held_left_s(r) <= 0;
}

static int answers_send(struct reader *r, struct err *e)
{
    for (; r->ended; r->ended--, r->count--, r->first = (r->first + 1) % READER_SPANS_MAX)
        if (door_send(READER_PAIR_FD, &reading_at(r, 0)->answer, sizeof(struct reader_packet), NULL,
                      0, e) != 0)
            return -1;
    return 0;
}

int reader_spans_go_on(struct reader *r, struct err *e)
{
    if (next_is_done(r))
        return span_finish(r, e) == 0 ? 1 : -1;
    if (answers_are_due(r))
        return answers_send(r, e) == 0 ? 1 : -1;
    return 0;
}

double reader_spans_between(void *self)
{
    struct reader *r = self;
    struct err e = {0};
    int result = 1;
    while (!r->broken.code && (result = reader_spans_go_on(r, &e)) > 0)
        ;
    if (result < 0)
        r->broken = e;
    return r->broken.code ? INFINITY : held_left_s(r);
}

void reader_spans_pause(struct reader *r)
{
    ensure(r->ended < r->count);
    decoders_pause(r->decoders, &reading_at(r, r->ended)->fetched.batch, held_left_s(r));
}
