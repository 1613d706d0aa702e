/* reader_process.c - see reader_process.h. */
#include "tests/unit/reader_process.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/door.h"
#include "tests/test.h"

#define LIMIT_BYTES (8ull << 20)

static void reader_fork(struct harness *h, const char *path)
{
    int ends[2];
    struct err e = {0};
    int file = child_file_open(path, &e);
    CHECK_OK(file, e);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    fflush(NULL);
    h->child.pair = ends[0];
    h->child.pid = fork();
    if (h->child.pid == 0) {
        int up[2] = {fcntl(file, F_DUPFD, 20), fcntl(ends[1], F_DUPFD, 20)};
        dup2(up[0], READER_FILE_FD);
        dup2(up[1], READER_PAIR_FD);
        for (int fd = READER_PAIR_FD + 1; fd < 64; fd++)
            close(fd);
        _exit(reader_main());
    }
    close(ends[1]);
    close(file);
}

/* One packet from the reader: its kind, or READER_REJECTED with h->reason. */
static enum reader_kind answer_wait(struct harness *h, struct reader_packet *packet)
{
    struct err e = {0};
    int got = child_wait(&h->child, packet, 15000, &e);
    if (got == 1 && packet->kind != READER_REJECTED)
        return packet->kind;
    snprintf(h->reason, sizeof h->reason, "%s", got == 1 ? packet->text : e.text);
    return READER_REJECTED;
}

/* Start on `path` and open the split. 0, or -1 and h->reason. */
int harness_open(struct harness *h, const char *path, const struct reader_open *open)
{
    struct reader_packet packet = {.kind = READER_OPEN, .open = *open};
    struct err e = {0};
    memset(h, 0, sizeof *h);
    h->arena.fd = h->door[0] = h->door[1] = -1;
    h->open = *open;
    reader_fork(h, path);
    CHECK_OK(child_send(&h->child, &packet, NULL, 0, &e), e);
    if (answer_wait(h, &packet) == READER_REJECTED)
        return -1;
    CHECK_EQ(packet.kind, READER_DESCRIBED);
    h->described = packet.described;
    return 0;
}

void harness_arm(struct harness *h, uint64_t slots)
{
    struct err e = {0};
    struct reader_packet packet = {.kind = READER_ARENA};
    CHECK_OK(arena_create(&h->arena, slots, h->described.span_bytes_max, &e), e);
    memset(h->arena.base, 0xee, h->arena.bytes);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, h->door) == 0);
    packet.arena.slots = slots;
    packet.arena.slot_bytes = h->arena.slot_bytes;
    CHECK_OK(child_send(&h->child, &packet, (int[]){h->arena.fd, h->door[1]}, 2, &e), e);
    CHECK_EQ(answer_wait(h, &packet), READER_ARMED);
}

void harness_send(struct harness *h, uint64_t epoch, uint64_t span, uint64_t slot)
{
    struct err e = {0};
    struct reader_packet packet = {
        .kind = READER_READ,
        .read = {.epoch = epoch, .span = span, .slot = slot, .generation = span + 1}};
    CHECK_OK(child_send(&h->child, &packet, NULL, 0, &e), e);
}

/* 0, or -1 and h->reason. */
int harness_answer(struct harness *h, uint64_t span, struct reader_done *done)
{
    struct reader_packet packet;
    if (answer_wait(h, &packet) == READER_REJECTED)
        return -1;
    CHECK_EQ(packet.kind, READER_DONE);
    CHECK_EQ(packet.done.generation, span + 1);
    *done = packet.done;
    return 0;
}

int harness_read(struct harness *h, uint64_t epoch, uint64_t span, uint64_t slot,
                 struct reader_done *done)
{
    harness_send(h, epoch, span, slot);
    return harness_answer(h, span, done);
}

void harness_close(struct harness *h)
{
    child_kill(&h->child);
    arena_close(&h->arena);
    for (int i = 0; i < 2; i++)
        if (h->door[i] >= 0)
            close(h->door[i]);
}

struct reader_open open_default(void)
{
    return (struct reader_open){.split = "train",
                                .features = "features",
                                .targets = "targets",
                                .seed = test_random(),
                                .span_bytes_chosen = LIMIT_BYTES,
                                .span_bytes_limit = LIMIT_BYTES,
                                .workers = 2,
                                .shuffle = 1,
                                .verify = 1,
                                .receipt = 1};
}

/* ---- files ---------------------------------------------------------------------------------- */

void filters_set(hid_t dcpl, enum filters filters)
{
    if (filters == SHUFFLE || filters == SHUFFLE_GZIP || filters == SHUFFLE_GZIP_FLETCHER)
        H5Pset_shuffle(dcpl);
    if (filters == FLETCHER_SHUFFLE_GZIP) {
        H5Pset_fletcher32(dcpl);
        H5Pset_shuffle(dcpl);
    }
    if (filters >= GZIP && filters <= GZIP_TWICE)
        H5Pset_deflate(dcpl, (unsigned)(test_random() % 10));
    if (filters == GZIP_TWICE)
        H5Pset_filter(dcpl, H5Z_FILTER_DEFLATE, H5Z_FLAG_OPTIONAL, 1, (unsigned[]){6});
    if (filters == GZIP_SHUFFLE)
        H5Pset_shuffle(dcpl);
    if (filters == FLETCHER || filters == SHUFFLE_GZIP_FLETCHER)
        H5Pset_fletcher32(dcpl);
    if (filters == NBIT)
        H5Pset_nbit(dcpl);
    if (filters == SCALE_OFFSET)
        H5Pset_scaleoffset(dcpl, H5Z_SO_INT, H5Z_SO_INT_MINBITS_DEFAULT);
    if (filters == SZIP)
        H5Pset_szip(dcpl, H5_SZIP_NN_OPTION_MASK, 4);
}

hid_t type_short_float(size_t exponent_bits, int big_endian)
{
    hid_t type = H5Tcopy(big_endian ? H5T_IEEE_F32BE : H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 15 - exponent_bits, exponent_bits, 0, 15 - exponent_bits);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, ((size_t)1 << (exponent_bits - 1)) - 1);
    return type;
}

hid_t set_create(hid_t group, const struct set_config *c)
{
    hsize_t dims_max[4];
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    memcpy(dims_max, c->dims, sizeof dims_max);
    if (c->dims_max0)
        dims_max[0] = c->dims_max0;
    hid_t space = H5Screate_simple(c->rank, c->dims, dims_max);
    if (c->chunk[0]) {
        CHECK(H5Pset_chunk(dcpl, c->rank, c->chunk) >= 0);
        filters_set(dcpl, c->filters);
    }
    hid_t set = H5Dcreate2(group, c->name, c->stored, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    CHECK(set >= 0);
    H5Sclose(space);
    H5Pclose(dcpl);
    return set;
}

/* Values that compress somewhat: low bytes random, the others slowly changing. */
void set_fill(hid_t set, const struct set_config *c)
{
    size_t count = 1;
    for (int i = 0; i < c->rank; i++)
        count *= c->dims[i];
    int64_t *values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (int64_t)(test_random() % 97) + (int64_t)(i / 50 % 20);
    CHECK(H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    free(values);
}

hid_t file_create(const char *path, const char *group, hid_t *group_p)
{
    test_file_forget(path);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    CHECK(file >= 0);
    *group_p = H5Gcreate2(file, group, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    return file;
}

void file_make(const char *path, const struct set_config *sets, int count)
{
    hid_t group, file = file_create(path, "train", &group);
    for (int i = 0; i < count; i++) {
        hid_t set = set_create(group, &sets[i]);
        set_fill(set, &sets[i]);
        H5Dclose(set);
    }
    H5Gclose(group);
    H5Fclose(file);
}

void file_refused(const char *path, const struct reader_open *open, const char *words)
{
    struct harness h;
    struct reader_done done;
    int failed = harness_open(&h, path, open);
    if (!failed) {
        harness_arm(&h, 1);
        for (uint64_t span = 0; span < h.described.spans && !failed; span++)
            failed = harness_read(&h, 0, span, 0, &done);
    }
    if (!failed)
        test_fail(__FILE__, __LINE__, "%s was not refused; expected: %s", path, words);
    CHECK_HAS(h.reason, words);
    harness_close(&h);
}
