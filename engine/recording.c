/* recording.c - a micro-batch's operations as one: recorded the second time that the same ones are
 * asked for, then done again as a whole, without the host's part in each launch.
 *
 * The same are those of as many rows, as far into as large a batch, with the same loss scale and
 * the same protected tasks. The first time they are asked for one by one, which lets libraries make
 * what they make at a first call. Rows that are graphs are as many nodes as graphs_nodes says;
 * where statistics over all nodes allow none that are no graph's, they differ in shape from batch
 * to batch, and are not recorded.
 */
#include "engine/stepper.h"

#include <string.h>

static struct recording_key key_make(const struct stepper *s, uint64_t rows)
{
    struct recording_key key; /* without holes: compared by its bytes */
    memset(&key, 0, sizeof key);
    key.rows = rows;
    key.done = s->batch.done;
    key.batch_rows = s->batch.rows;
    key.scale = s->batch.scale;
    key.terms = s->terms_version;
    if (s->model->graphs)
        key.nodes = graphs_nodes(s, s->host.graphs.node_ptr[rows]);
    return key;
}

/* The place of the key, or one for it: a new one, or that of the one not used for longest. */
static struct recording *recording_find(struct stepper *s, const struct recording_key *key)
{
    struct recording *oldest = &s->recordings[0];
    for (int i = 0; i < RECORDINGS_MAX; i++) {
        struct recording *r = &s->recordings[i];
        if (r->used && memcmp(&r->key, key, sizeof *key) == 0)
            return r;
        oldest = r->used < oldest->used ? r : oldest;
    }
    if (oldest->graph)
        s->device->graph_close(&oldest->graph);
    *oldest = (struct recording){.key = *key};
    return oldest;
}

int recording_run(struct stepper *s, uint64_t rows)
{
    struct err e;
    if (!s->device->apart || s->records_nothing || (s->model->graphs && s->layout.statistics_count))
        return 0;
    if (s->batch.done && model_draws_nodes(s->model))
        return 0; /* which of the batch's nodes the draws are for is hardly ever the same */
    struct recording_key key = key_make(s, rows);
    struct recording *r = recording_find(s, &key);
    int again = r->used > 0;
    r->used = ++s->recording_clock;
    if (!again)
        return 0;
    if (!r->graph) {
        if (s->device->graph_begin(&e) < 0) {
            s->records_nothing = 1;
            return 0;
        }
        micro_batch_compute(s, rows);
        if (s->device->graph_end(&r->graph, &e) < 0) {
            s->records_nothing = 1;
            return 0;
        }
    }
    s->device->graph_run(r->graph);
    return 1;
}

void recordings_close(struct stepper *s)
{
    for (int i = 0; i < RECORDINGS_MAX; i++)
        if (s->recordings[i].graph)
            s->device->graph_close(&s->recordings[i].graph);
    memset(s->recordings, 0, sizeof s->recordings);
}
