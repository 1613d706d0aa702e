/* test_reader.c - bad and hostile files end in one sentence, and the border between loaderd and its
 * reader holds.
 */
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/highwater.h"
#include "tests/test.h"
#include "tests/unit/reader_process.h"

/* ---- bad files ------------------------------------------------------------------------------ */

static void refused(const char *path, const char *words)
{
    struct reader_open open = open_default();
    file_refused(path, &open, words);
}

static void text_write(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static const struct set_config good = {"features", 0, 2, {64, 10}, {16, 10}, SHUFFLE_GZIP, 0};

static struct set_config good_set(void)
{
    struct set_config c = good;
    c.stored = H5T_STD_U16LE;
    return c;
}

TEST(files_that_are_no_hdf5_are_refused)
{
    struct set_config set = good_set();
    struct err e = {0};
    CHECK(child_file_open("absent.h5", &e) < 0);
    CHECK_HAS(e.text, "No such file");
    CHECK_EQ(e.code, EXIT_CODE_PERMANENT);
    CHECK(child_file_open(".", &e) < 0);
    CHECK_HAS(e.text, "directory");
    CHECK(child_file_open("/dev/zero", &e) < 0);
    CHECK_HAS(e.text, "not a regular file");
    text_write("empty.h5", "");
    refused("empty.h5", "empty");
    text_write("text.h5", "a,b,c\n1,2,3\n");
    refused("text.h5", "not an HDF5 file");
    file_make("cut.h5", &set, 1);
    CHECK(truncate("cut.h5", 2000) == 0);
    refused("cut.h5", "truncated");
}

TEST(wrong_contents_are_named)
{
    static const struct {
        struct set_config set;
        const char *words;
    } cases[] = {
        {{"images", 0, 2, {8, 8}, {0}, PLAIN, 0},
         "train has no data set features (there is: images)"},
        {{"features", 0, 1, {8}, {0}, PLAIN, 0},
         "train/features has 1 dimension (8); expected 2 or 3"},
        {{"features", 0, 4, {8, 2, 2, 2}, {0}, PLAIN, 0}, "has 4 dimensions (8 x 2 x 2 x 2)"},
        {{"features", 0, 2, {0, 8}, {4, 8}, PLAIN, 100}, "has no rows (0 x 8)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct set_config set = cases[i].set;
        set.stored = H5T_STD_U8LE;
        hid_t group, file = file_create("wrong.h5", "train", &group);
        hid_t made = set_create(group, &set);
        if (set.dims[0])
            set_fill(made, &set);
        H5Dclose(made);
        H5Gclose(group);
        H5Fclose(file);
        refused("wrong.h5", cases[i].words);
    }
    struct set_config pair[2] = {good_set(), good_set()};
    pair[1].name = "targets";
    pair[1].dims[0] = 63;
    file_make("differ.h5", pair, 2);
    refused("differ.h5", "train/features has 64 rows and train/targets has 63");

    struct harness h;
    struct reader_open open = open_default();
    snprintf(open.split, sizeof open.split, "test/images");
    CHECK(harness_open(&h, "differ.h5", &open) != 0);
    CHECK_HAS(h.reason, "there is no group test");
    CHECK_HAS(h.reason, "there is: train");
    harness_close(&h);
}

TEST(types_that_are_no_numbers_are_refused)
{
    hid_t text = H5Tcopy(H5T_C_S1), brain = type_short_float(8, 0);
    H5Tset_size(text, 5);
    hid_t choice = H5Tenum_create(H5T_STD_I8LE);
    H5Tenum_insert(choice, "FALSE", (int8_t[]){0});
    hid_t types[] = {text, brain, choice, H5T_STD_REF_OBJ, H5Tvlen_create(H5T_STD_I32LE)};
    const char *words[] = {"text", "2-byte floats", "enumerated", "not numeric", "variable-length"};
    for (int i = 0; i < 5; i++) {
        struct set_config set = good_set();
        set.stored = types[i];
        set.chunk[0] = 0;
        hid_t group, file = file_create("type.h5", "train", &group);
        H5Dclose(set_create(group, &set));
        H5Gclose(group);
        H5Fclose(file);
        refused("type.h5", words[i]);
    }
}

TEST(data_in_other_files_are_refused)
{
    struct set_config set = good_set();
    file_make("other.h5", &set, 1);
    hsize_t dims[2] = {64, 10};
    hid_t group, file, dcpl, space = H5Screate_simple(2, dims, NULL);

    file = file_create("link.h5", "train", &group);
    H5Lcreate_external("other.h5", "/train/features", group, "features", H5P_DEFAULT, H5P_DEFAULT);
    H5Gclose(group);
    H5Fclose(file);
    refused("link.h5", "is a link to another file");

    file = file_create("soft.h5", "elsewhere", &group);
    H5Lcreate_external("other.h5", "/train", file, "far", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/far", file, "train", H5P_DEFAULT, H5P_DEFAULT);
    H5Gclose(group);
    H5Fclose(file);
    refused("soft.h5", "link to elsewhere");

    file = file_create("external.h5", "train", &group);
    dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(dcpl, "other.h5", 0, 64 * 20);
    H5Dclose(H5Dcreate2(group, "features", H5T_STD_U16LE, space, H5P_DEFAULT, dcpl, H5P_DEFAULT));
    H5Pclose(dcpl);
    H5Gclose(group);
    H5Fclose(file);
    refused("external.h5", "lies in other files");

    file = file_create("virtual.h5", "train", &group);
    dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_virtual(dcpl, space, "other.h5", "/train/features", space);
    H5Dclose(H5Dcreate2(group, "features", H5T_STD_U16LE, space, H5P_DEFAULT, dcpl, H5P_DEFAULT));
    H5Pclose(dcpl);
    H5Gclose(group);
    H5Fclose(file);
    refused("virtual.h5", "virtual data set");
}

static size_t filter_unknown(unsigned flags, size_t count, const unsigned *values, size_t bytes,
                             size_t *capacity, void **buffer)
{
    (void)flags, (void)count, (void)values, (void)capacity, (void)buffer;
    return bytes;
}

TEST(unknown_filters_are_named)
{
    static const H5Z_class2_t class = {H5Z_CLASS_T_VERS, 4242, 1,    1,
                                       "zigzag",         NULL, NULL, filter_unknown};
    struct set_config set = good_set();
    hid_t group, file = file_create("filter.h5", "train", &group);
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(2, set.dims, NULL);
    CHECK(H5Zregister(&class) >= 0);
    H5Pset_chunk(dcpl, 2, set.chunk);
    H5Pset_filter(dcpl, 4242, H5Z_FLAG_MANDATORY, 0, NULL);
    hid_t made = H5Dcreate2(group, "features", set.stored, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    set_fill(made, &set);
    H5Dclose(made);
    H5Pclose(dcpl);
    H5Gclose(group);
    H5Fclose(file);
    CHECK(H5Zunregister(4242) >= 0);
    refused("filter.h5", "filter 4242 (zigzag)");
}

TEST(declared_sizes_that_the_file_cannot_back_are_refused)
{
    struct set_config set = good_set();
    set.dims[0] = 1ull << 36;
    set.dims_max0 = H5S_UNLIMITED;
    hid_t group, file = file_create("huge.h5", "train", &group);
    hid_t made = set_create(group, &set);
    H5Dclose(made);
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    refused("huge.h5", "was never written");
    made = H5Dopen2(group, "features", H5P_DEFAULT);
    hsize_t at[2] = {0, 0};
    char raw[16 * 10 * 2] = "";
    CHECK(H5Dwrite_chunk(made, H5P_DEFAULT, 3, at, sizeof raw, raw) >= 0);
    H5Dclose(made);
    H5Gclose(group);
    H5Fclose(file);
    refused("huge.h5", "cannot hold");
}

TEST(damaged_chunks_are_named)
{
    static const struct {
        enum filters filters;
        size_t bytes;
        const char *words;
    } cases[] = {
        {SHUFFLE_GZIP, 100, "its gzip data (100 bytes) are damaged"},
        {FLETCHER, 324, "its fletcher32 checksum is"},
        {FLETCHER, 2, "shorter than its checksum"},
        {SHUFFLE, 300, "it holds 300 bytes where 320 belong"},
        {GZIP, 200000, "claims 200000 stored bytes for 320"},
    };
    unsigned char *raw = malloc(200000);
    for (int i = 0; i < 200000; i++)
        raw[i] = (unsigned char)test_random();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct set_config set = good_set();
        hsize_t at[2] = {32, 0};
        set.filters = cases[i].filters;
        hid_t group, file = file_create("damage.h5", "train", &group);
        hid_t made = set_create(group, &set);
        set_fill(made, &set);
        CHECK(H5Dwrite_chunk(made, H5P_DEFAULT, 0, at, cases[i].bytes, raw) >= 0);
        H5Dclose(made);
        H5Gclose(group);
        H5Fclose(file);
        refused("damage.h5", cases[i].words);
        refused("damage.h5", "chunk 2 of train/features");
    }
    free(raw);
}

/* While it is read: of a filtered chunk, one that is not, and rows that lie in none. */
TEST(files_that_are_cut_are_named)
{
    static const char *const words[] = {
        "chunk 3 of train/features cannot be read: the file was cut",
        "chunk 3 of train/features cannot be read: the file was cut",
        "train/features cannot be read: the file was cut"};
    for (int i = 0; i < 3; i++) {
        struct set_config set = good_set();
        struct harness h;
        struct reader_done done;
        struct reader_open open = open_default();
        set.filters = i == 0 ? SHUFFLE : PLAIN;
        set.dims[1] = set.chunk[1] = 4000;
        set.chunk[0] = i < 2 ? 16 : 0;
        file_make("cutting.h5", &set, 1);
        open.shuffle = 0;
        open.span_rows = 16;
        CHECK(harness_open(&h, "cutting.h5", &open) == 0);
        harness_arm(&h, 1);
        CHECK(harness_read(&h, 0, 0, 0, &done) == 0);
        CHECK(truncate("cutting.h5", 450000) == 0); /* of 512,000 and what describes them */
        CHECK(harness_read(&h, 0, h.described.spans - 1, 0, &done) != 0);
        CHECK_HAS(h.reason, words[i]);
        harness_close(&h);
    }
}

/* Flipped bytes anywhere: an answer, a sentence or a dead reader, always soon. */
TEST_LIMIT(random_damage_never_hurts_the_parent, 120)
{
    struct set_config sets[2] = {good_set(), good_set()};
    sets[1].name = "targets";
    file_make("fuzz.h5", sets, 2);
    FILE *f = fopen("fuzz.h5", "rb");
    static unsigned char bytes[65536], copy[65536];
    size_t size = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    CHECK(size > 2000 && size < sizeof bytes);
    for (int round = 0; round < 120; round++) {
        struct harness h;
        struct reader_done done;
        struct reader_open open = open_default();
        memcpy(copy, bytes, size);
        for (int i = 0; i < 1 + round % 6; i++)
            copy[test_random() % size] = (unsigned char)test_random();
        test_file_forget("fuzzed.h5");
        f = fopen("fuzzed.h5", "wb");
        CHECK(f && fwrite(copy, 1, size, f) == size && fclose(f) == 0);
        if (harness_open(&h, "fuzzed.h5", &open) == 0) {
            harness_arm(&h, 1);
            for (uint64_t span = 0; span < h.described.spans; span++)
                if (harness_read(&h, 0, span, 0, &done) != 0)
                    break;
        }
        harness_close(&h);
    }
}

/* ---- the border ----------------------------------------------------------------------------- */

TEST(impossible_packets_of_a_reader_are_refused)
{
    struct reader_packet packet = {.kind = READER_DESCRIBED}, got;
    struct err e = {0};
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    struct child child = {.pair = ends[0]};
    CHECK_EQ(child_recv(&child, &got, &e), 0);
    packet.described = (struct reader_described){.rows = 1,
                                                 .chunk_rows = 1,
                                                 .spans = 1,
                                                 .span_rows = 1,
                                                 .span_bytes_max = 64,
                                                 .field_count = 17};
    CHECK(send(ends[1], &packet, sizeof packet, 0) > 0);
    CHECK_EQ(child_recv(&child, &got, &e), -1);
    memset(packet.text, 'x', sizeof packet.text); /* a text without end */
    packet.kind = READER_REJECTED;
    CHECK(send(ends[1], &packet, sizeof packet, 0) > 0);
    CHECK_EQ(child_recv(&child, &got, &e), -1);
    CHECK(send(ends[1], &packet, 20, 0) > 0);
    CHECK_EQ(child_recv(&child, &got, &e), -1);
    CHECK_HAS(e.text, "impossible");
    close(ends[1]);
    CHECK_EQ(child_recv(&child, &got, &e), -1);
    CHECK_HAS(e.text, "died");
    child_kill(&child);
}

TEST(a_stopped_reader_is_seen)
{
    struct set_config set = good_set();
    struct harness h;
    struct reader_open open = open_default();
    siginfo_t info;
    file_make("stopped.h5", &set, 1);
    CHECK(harness_open(&h, "stopped.h5", &open) == 0);
    CHECK(!child_is_stopped(&h.child));
    CHECK(kill(h.child.pid, SIGSTOP) == 0);
    CHECK(waitid(P_PID, (id_t)h.child.pid, &info, WSTOPPED | WNOWAIT) == 0);
    CHECK(child_is_stopped(&h.child) && child_is_stopped(&h.child));
    CHECK(kill(h.child.pid, SIGCONT) == 0);
    CHECK(waitid(P_PID, (id_t)h.child.pid, &info, WCONTINUED) == 0);
    CHECK(!child_is_stopped(&h.child));
    harness_close(&h);
}

TEST(reader_ends_when_its_parent_hangs_up)
{
    struct set_config set = good_set();
    struct harness h;
    struct reader_open open = open_default();
    int status = -1;
    file_make("hangup.h5", &set, 1);
    CHECK(harness_open(&h, "hangup.h5", &open) == 0);
    harness_arm(&h, 1);
    close(h.child.pair);
    CHECK(waitpid(h.child.pid, &status, 0) == h.child.pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CODE_DONE);
    /* Its copy of the door's connection is gone with it: ours is the last. */
    close(h.door[1]);
    struct pollfd door = {.fd = h.door[0], .events = POLLIN};
    CHECK(poll(&door, 1, 0) == 1 && (door.revents & POLLHUP));
}

/* ---- memory --------------------------------------------------------------------------------- */

/* In a process of its own: what libhdf5 leaves in the heap of ours would be in the reader's. */
static void short_chunks_make(const char *path, hsize_t rows)
{
    struct set_config set = {"features", H5T_STD_U8LE, 2, {rows, 8}, {1, 8}, PLAIN, 0};
    unsigned char row[8] = {0};
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        hid_t group, file = file_create(path, "train", &group), made = set_create(group, &set);
        for (hsize_t at[2] = {0}; at[0] < rows; at[0]++)
            CHECK(H5Dwrite_chunk(made, H5P_DEFAULT, 0, at, sizeof row, row) >= 0);
        H5Dclose(made);
        H5Gclose(group);
        H5Fclose(file);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* Of a reader that has read the file's rows; *kept_bytes: what it says that it keeps. */
static uint64_t memory_of_reader(const char *path, hsize_t rows, uint64_t *kept_bytes)
{
    struct reader_open open = open_default();
    struct reader_done done;
    struct harness h;
    short_chunks_make(path, rows);
    open.verify = open.receipt = 0;
    CHECK(harness_open(&h, path, &open) == 0);
    CHECK(h.described.chunk_rows == 1 && h.described.spans == 1);
    harness_arm(&h, 1);
    CHECK(harness_read(&h, 0, 0, 0, &done) == 0);
    uint64_t bytes = highwater_bytes(h.child.pid, "RssAnon");
    *kept_bytes = h.described.kept_bytes;
    harness_close(&h);
    return bytes;
}

/* Where 90,000 chunks lie would take 29 MB; of a million it was the reader's whole memory. What is
 * kept is what the reader says, to a tenth. */
TEST(of_many_chunks_a_part_of_the_index_is_kept)
{
    uint64_t kept[2];
    if (TEST_ROUNDS(0, 1))
        test_skip("a sanitizer has memory of its own");
    uint64_t few = memory_of_reader("few.h5", 100, &kept[0]);
    uint64_t taken = memory_of_reader("many.h5", 90000, &kept[1]) - few;
    CHECK_EQ(kept[0], 100 * 330);
    if (taken > 24 << 20 || taken > kept[1] || taken < kept[1] / 10 * 9)
        test_fail(__FILE__, __LINE__, "the reader took %.2f MiB and said %.2f",
                  (double)taken / 1048576, (double)kept[1] / 1048576);
}
