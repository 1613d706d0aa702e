/* main.c - fisherd: weights + samples -> which weights matter.
 *
 * Estimates the diagonal of the Fisher information of a finished task's parameters when trainerd
 * asks for it, in one pass over the task's samples, and stores it, block after block, where h5py
 * reads it. Between jobs it holds nothing. All its state is struct estimator (estimate.h); the
 * flow is drawn in estimate.c.
 */
#include "fisherd/estimate.h"

#include <malloc.h>
#include <string.h>

#include "engine/warm.h"
#include "proto/fisherfile.h"

/* glibc's first threshold, which it would else raise to the largest piece freed so far: pieces of a
 * block up to that size, and twice as much that is free, would stay beside what the plan counts. */
enum { OWN_PAGES_BYTES = 128 << 10 };

static int fisher_start(void *self, struct daemon *d, struct err *e)
{
    (void)self, (void)d, (void)e; /* a job brings all it needs */
    mallopt(M_MMAP_THRESHOLD, OWN_PAGES_BYTES);
    return 0;
}

static int fisher_warm(void *self, struct err *e)
{
    struct fisherfile_block block = {.count = 1,
                                     .tensors = "0.bias",
                                     .form = "float32",
                                     .arrays = 1,
                                     .array = {{.name = "values"}}};
    const float value = 0;
    const struct h5packed packed = {.type = H5TYPE_F32, .count = 1, .data = &value};
    memset(self, 0, sizeof(struct estimator));
    if (engine_warm(0, e) < 0)
        return -1;
    return fisherfile_write_part("warm.part", 0, "warm", &block, &packed, e);
}

static int fisher_turn(void *self, struct daemon *d, int *sleep_ms, struct err *e)
{
    return estimate_turn(self, d, sleep_ms, e);
}

static int fisher_request(void *self, struct daemon *d, const struct link_peer *peer,
                          enum msg_type type, const union msg *m)
{
    if (type != MSG_estimate)
        return 0;
    estimate_request(self, d, peer, &m->estimate);
    return 1;
}

static void fisher_stop(void *self, struct daemon *d)
{
    (void)d;
    estimate_close(self); /* finished blocks are durable, and sums as sums.h has them */
}

static const struct daemon_spec spec = {
    .stage = "fisherd",
    .purpose = "estimates which weights of a finished task matter (Fisher information), when "
               "trainerd asks",
    .example = "fisherd --run runs/fashion",
    .deadline_s = 300, /* a turn is one batch, or what one block takes */
    .warm = fisher_warm,
    .start = fisher_start,
    .turn = fisher_turn,
    .request = fisher_request,
    .stop = fisher_stop,
};

int main(int argc, char **argv)
{
    static struct estimator self;
    return daemon_run(argc, argv, &spec, &self);
}
