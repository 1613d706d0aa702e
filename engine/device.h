/* device.h - where a stepper's numbers live and what computes on them: the CPU, or a GPU.
 *
 * The CUDA backend is a library of its own, libengine-cuda.so, opened when a device is asked for,
 * so that one binary runs with and without a GPU. A process has one device at a time. What is asked
 * of a device is done in the order in which it is asked; only `download` and the waits wait for it.
 */
#ifndef ENGINE_DEVICE_H
#define ENGINE_DEVICE_H

#include <stdint.h>

#include "engine/ops.h"
#include "proto/err.h"

struct step_config; /* engine/step.h */

enum { DEVICE_NAME_MAX = 256, DEVICE_BUS_MAX = 32 };

/* What a device is, for plans, reports and checkpoints. */
struct device_facts {
    char name[DEVICE_NAME_MAX]; /* "NVIDIA H100 80GB HBM3" */
    char bus[DEVICE_BUS_MAX];   /* "0000:3b:00.0", on the PCI bus; CPU, not known: empty */
    int index;
    int capability;         /* 10 major + minor; CPU: 0 */
    int processors;         /* streaming multiprocessors */
    int halves;             /* products of operands in 16 bits are fast */
    int driver, runtime;    /* versions as CUDA counts them: 13000 */
    uint64_t memory_bytes;  /* in all */
    uint64_t context_bytes; /* what the libraries took when it was opened: as the free memory says,
                               of which other processes may take some then, within bounds */
};

struct device_memory {
    uint64_t free_bytes;             /* as the driver says, a second ago at most */
    uint64_t used_bytes, high_bytes; /* by this device's allocations: now, and the most so far */
    uint64_t locked_high_bytes;      /* of the host's memory, page-locked for it: the most so far */
};

/* A sequence of operations that is asked for again as a whole (a CUDA graph). */
struct device_graph;

/* `bytes` from page-locked memory of the host to the device's, by another place there. All begin at
 * multiples of 16 bytes, and have room for whole ones. */
struct device_parcel {
    void *to, *by;
    const void *from;
    uint64_t bytes;
};
enum { DEVICE_PARCELS_MAX = 16 };

struct device {
    const char *kind; /* "cpu", "cuda" */
    const struct backend *backend;
    int apart; /* its memory is not the host's: numbers go there and back by copies */

    int (*open)(const char *which, int debug, struct err *e); /* "0", "1", or a part of its name */
    void (*close)(void);                                      /* harmless twice */
    void (*facts)(struct device_facts *f);
    void (*memory)(struct device_memory *m);

    /* `bytes` zeroes, aligned to 256; what: for the sentence. -1 (temporary): no room. */
    int (*allocate)(uint64_t bytes, const char *what, void **at, struct err *e);
    void (*release)(void *at); /* NULL: nothing */
    /* Host memory that copies need not wait for: page-locked. Operations may write there. */
    int (*allocate_host)(uint64_t bytes, const char *what, void **at, struct err *e);
    void (*release_host)(void *at);
    /* Makes memory of somebody's mapping such; -1 (temporary). Undone by host_unlock. */
    int (*host_lock)(void *at, uint64_t bytes, struct err *e);
    void (*host_unlock)(void *at);

    /* `from` may be written again after the next wait, or at once where it is not page-locked. */
    void (*upload)(void *to, const void *from, uint64_t bytes);
    void (*download)(void *to, const void *from, uint64_t bytes); /* waits */
    /* As upload, of page-locked memory, but beside what is computed: what was asked for before does
     * not read `to` any more, what is asked for from here on finds it there. */
    void (*send)(void *to, const void *from, uint64_t bytes);
    /* As upload of at most DEVICE_PARCELS_MAX, but only the way from `by` to `to` is in the order
     * of what is asked for; that to `by`, which nothing asked for before reads any more, is beside
     * what is computed. */
    void (*deliver)(const struct device_parcel *parcels, int count);
    /* Nobody waits: it is there after a later `wait`, or download. `to` is page-locked. */
    void (*download_later)(void *to, const void *from, uint64_t bytes);
    void (*copy)(void *to, const void *from, uint64_t bytes); /* both on the device */
    void (*clear)(void *at, uint64_t bytes);
    void (*wait)(void);
    /* The first failure since the last call: -1 and its sentence. Asked for behind a wait. */
    int (*failure)(struct err *e);

    /* Products may round their operands to 10 bits of mantissa (TF32): with mixed precision, where
     * all that passes from layer to layer has no more; what a layer keeps to itself loses it there.
     */
    void (*products_rounded)(int on);
    /* Can they read numbers of 16 bits (product_half)? NULL: no. */
    int (*multiplies_half)(void);

    /* What is asked for between begin and end is recorded, not done; end: -1 where that cannot be.
     */
    int (*graph_begin)(struct err *e);
    int (*graph_end)(struct device_graph **g, struct err *e);
    void (*graph_run)(struct device_graph *g);
    void (*graph_close)(struct device_graph **g); /* harmless twice */

    /* Copies beside the computing: behind what was asked for on the copy stream, and done when the
     * mark says so. Marks are numbered by the caller, 0 .. DEVICE_MARKS - 1, on each stream. */
    void (*copy_in)(void *to, const void *from, uint64_t bytes);
    void (*copy_out)(void *to, const void *from, uint64_t bytes); /* `to` is page-locked */
    void (*copy_mark)(int mark);                                  /* on the copy stream */
    void (*copy_await)(int mark);    /* computing waits for it; the host does not */
    int (*copy_done)(int mark);      /* asked by the host */
    void (*copy_wait)(int mark);     /* the host waits */
    void (*compute_mark)(int mark);  /* on the computing stream */
    void (*compute_await)(int mark); /* the copy stream waits for it */
    void (*compute_wait)(int mark);  /* the host waits */
    int (*compute_done)(int mark);   /* asked by the host */
};

enum {
    DEVICE_MARK_STEPPER = 64, /* the stepper's own; those before it are other callers' */
    DEVICE_MARK_FETCH,
    DEVICE_MARK_SENT,
    DEVICE_MARK_STEPS, /* two of them */
    DEVICE_MARKS = DEVICE_MARK_STEPS + 2
};

extern const struct device device_cpu;

/* The CUDA device from its library, not yet opened; NULL and *e, one sentence saying what is
 * missing, where there is none. The library is libengine-cuda.so in ../lib of the program, or the
 * one that FINETUNED_CUDA_LIBRARY names. */
const struct device *device_cuda(struct err *e);

/* What device_open returns where "auto" got the CPU: *e says why. */
enum device_fallback {
    DEVICE_ABSENT = 1, /* the library for GPUs is missing, or what it needs: the driver */
    DEVICE_UNUSABLE    /* these are there, but no GPU that this build can compute on */
};

/* "cpu", "cuda", "cuda:1", "cuda:H100", "auto": a GPU if there is one, else the CPU. The device is
 * open: 0, or an enum device_fallback; -1 and one sentence where it cannot be had. Temporary, with
 * "auto" too: there is one, but it cannot be had now. */
int device_open(const struct device **d, const char *wanted, int debug, struct err *e);

/* The same to go on with what was computed on `before` ("": nothing; else as trainerd's
 * compute_name has it): "auto" is not the CPU (-1, permanent) where that was a GPU. */
int device_open_again(const struct device **d, const char *wanted, const char *before, int debug,
                      struct err *e);

/* No more than this of a device's memory by device_reserve at a time; UINT64_MAX (from the start):
 * as much as there is. What is taken stays. */
void device_limit_set(uint64_t bytes);
/* What limit_mb MiB (0: no limit but its memory) leave of a device apart; and of that for the
 * engine: without its context. */
uint64_t device_bytes_of(const struct device *d, uint64_t limit_mb);
uint64_t device_limit_of(const struct device *d, uint64_t limit_mb);
/* Its `allocate` under that limit: what all of the engine's memory on a device comes by. */
int device_reserve(const struct device *d, uint64_t bytes, const char *what, void **at,
                   struct err *e);

/* *c, whose sizes are set, becomes one for that device (NULL: the CPU). A device apart is not
 * divided into threads: it takes all resident rows as one slice. */
void device_step_config(const struct device *d, struct step_config *c);

#endif
