/* decoders_private.h - shared by decoders.c, which hands out jobs, and decoders_job.c, which reads
 * and decodes.
 */
#ifndef LOADERD_DECODERS_PRIVATE_H
#define LOADERD_DECODERS_PRIVATE_H

#include <pthread.h>

#include "loaderd/decoders.h"

struct buffer {
    unsigned char *at;
    uint64_t capacity;
};

/* What a thread decodes with. */
struct worker {
    struct decoder decoder;
    struct err opened;        /* code 0: the decoder is open */
    struct buffer raw, whole; /* a stored chunk; one decoded of which parts are wanted */
};

struct decoders {
    pthread_mutex_t lock;
    /* A job to do or the end, for workers and for those that only read; for the main thread, a
     * batch is done or as many jobs are free as it waits for. */
    pthread_cond_t work, read, done;
    struct decoders_job *jobs, *free_list, *todo, **todo_end;
    unsigned job_count, free_count, free_awaited;
    int closing;
    struct worker own; /* of the main thread, where there are no others */
    unsigned workers, readers;
    unsigned asleep[2];                     /* of either; whoever was woken counts until it runs */
    unsigned unwoken;                       /* jobs to be read, queued since somebody was woken */
    pthread_t thread[DECODERS_THREADS_MAX]; /* the workers, then those that only read */
    unsigned threads;                       /* of them: started */
};

/* What a thread has taken: a job, or of a plain one some of its bytes. */
struct taken {
    struct decoders_job *job; /* NULL: nothing */
    uint64_t first, bytes;
    pthread_cond_t *sleeper; /* to be woken for the rest */
};

void worker_open(struct worker *w);
void worker_close(struct worker *w);

/* What is stored, to `out`; *seconds it took. 0, or -1 and *e. */
int taken_read(const struct taken *t, void *out, double *seconds, struct err *e);

/* Read and decode one job. A part of a chunk goes through `whole`, which the thread keeps. */
int taken_decode(struct worker *w, const struct taken *t, double *read_s, struct err *e);

/* What a job read leaves the page cache, as far as no other job is to read it, which may have been
 * read ahead. What two jobs want goes when the second is done; what the kernel keeps together with
 * bytes of a job before this one, with that. */
void job_drop(struct decoders *p, struct decoders_job *job);

#endif
