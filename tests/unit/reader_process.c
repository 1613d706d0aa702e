/* reader_process.c - see reader_process.h. */
#include "tests/unit/reader_process.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loaderd/decode.h"
#include "proto/door.h"
#include "proto/h5file_type.h"
#include "proto/order.h"
#include "proto/rowhash.h"
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

/* Read one span into a slot. 0, or -1 and h->reason. */
int harness_read(struct harness *h, uint64_t epoch, uint64_t span, uint64_t slot,
                 struct reader_done *done)
{
    struct err e = {0};
    struct reader_packet packet = {
        .kind = READER_READ,
        .read = {.epoch = epoch, .span = span, .slot = slot, .generation = span + 1}};
    CHECK_OK(child_send(&h->child, &packet, NULL, 0, &e), e);
    if (answer_wait(h, &packet) == READER_REJECTED)
        return -1;
    CHECK_EQ(packet.kind, READER_DONE);
    CHECK_EQ(packet.done.generation, span + 1);
    *done = packet.done;
    return 0;
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
                                .seed = test_random(),
                                .span_bytes_limit = LIMIT_BYTES,
                                .workers = 2,
                                .shuffle = 1,
                                .verify = 1,
                                .receipt = 1};
}

/* ---- comparison with libhdf5 ---------------------------------------------------------------- */

static unsigned char *rows_expected(const char *path, const char *split,
                                    const struct msg_field_info *f)
{
    char name[200];
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    snprintf(name, sizeof name, "%s/%s", split, f->name);
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    CHECK(file >= 0 && set >= 0);
    hid_t space = H5Dget_space(set);
    unsigned char *data = calloc((size_t)H5Sget_simple_extent_npoints(space), f->row_bytes);
    CHECK(data);
    CHECK(H5Dread(set, h5_type(h5type_of(f->type)), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
    return data;
}

/* The row of the file that is row `row` of a span. */
static uint64_t file_row(const struct order *o, uint64_t epoch, uint64_t span, uint64_t row)
{
    uint64_t laid = span * o->span_rows + row;
    if (!o->shuffle)
        return order_span_first(o, span) + row;
    return order_chunk_at(o, epoch, laid / o->chunk_rows) * o->chunk_rows + laid % o->chunk_rows;
}

static void span_compare(const struct harness *h, const struct order *o,
                         const struct reader_done *done, unsigned char *const *expected)
{
    const unsigned char *slot = arena_slot(&h->arena, done->slot);
    struct rowhash_field fields[8];
    uint64_t bytes = 0;
    uint32_t crc = 0;
    CHECK_EQ(done->rows, order_span_rows(o, done->span));
    for (uint32_t i = 0; i < h->described.field_count; i++) {
        const struct msg_field_info *f = &h->described.fields[i];
        CHECK_EQ(f->offset % 64, 0);
        CHECK(f->offset + done->rows * f->row_bytes <= h->described.span_bytes_max);
        for (uint64_t row = 0; row < done->rows; row++) {
            uint64_t from = file_row(o, done->epoch, done->span, row);
            if (memcmp(slot + f->offset + row * f->row_bytes, expected[i] + from * f->row_bytes,
                       f->row_bytes) != 0)
                test_fail(__FILE__, __LINE__, "%s (%s): span %llu row %llu differs", f->name,
                          f->type, (unsigned long long)done->span, (unsigned long long)row);
        }
        crc = decode_crc32(crc, slot + f->offset, done->rows * f->row_bytes);
        fields[i] = (struct rowhash_field){slot + f->offset, f->row_bytes};
        bytes += done->rows * f->row_bytes;
    }
    CHECK_EQ(done->checksum, crc);
    CHECK_EQ(done->digest, rowhash_sum_plain(fields, h->described.field_count, done->rows));
    CHECK_EQ(done->bytes_delivered, bytes);
}

uint64_t file_compare(const char *path, const struct reader_open *open)
{
    struct harness h;
    struct reader_done done;
    unsigned char *expected[8];
    if (harness_open(&h, path, open) != 0)
        test_fail(__FILE__, __LINE__, "rejected: %s", h.reason);
    const struct reader_described *d = &h.described;
    struct order o = {open->seed, open->shuffle, d->rows, d->chunk_rows, d->span_rows,
                      4,          d->streams};
    CHECK_EQ(d->streams, open->streams);
    CHECK_EQ(d->spans, order_spans(&o));
    CHECK_EQ(d->span_rows % d->chunk_rows, 0);
    for (uint32_t i = 0; i < d->field_count; i++)
        expected[i] = rows_expected(path, open->split, &d->fields[i]);
    harness_arm(&h, 3);
    for (uint64_t epoch = 0; epoch < 2; epoch++)
        for (uint64_t span = 0; span < d->spans; span++) {
            if (harness_read(&h, epoch, span, span % 3, &done) != 0)
                test_fail(__FILE__, __LINE__, "rejected: %s", h.reason);
            span_compare(&h, &o, &done, expected);
        }
    uint64_t spans = 2 * d->spans;
    for (uint32_t i = 0; i < d->field_count; i++)
        free(expected[i]);
    harness_close(&h);
    return spans;
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
