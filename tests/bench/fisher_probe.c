/* fisher_probe.c - the Fisher information's way to disk and back by itself, as fisherd and trainerd
 * go it: blocks, stored forms, packed chunks, durable parts, the joined file.
 *
 *   fisher_probe store DIR [form=log_rank1 ratio=0.1 step=0.16 level=6 block=1000000 threads=1]
 *       DIR/values.f32 and DIR/tensors.txt (a line a tensor: name rows columns, 0 rows for a
 *       vector) -> DIR/out.h5, and what a reader has of it in DIR/decoded.f32
 *
 *   fisher_probe resident DIR
 *       DIR/decoded.f32 and DIR/tensors.txt -> what trainerd's sweep makes of it in
 *       DIR/resident.f32
 *
 *   fisher_probe stream DIR parameters=70000000 [samples=2 ...]
 *       a made-up model of that many parameters in matrices of 4096 x 4096: the squares of made-up
 *       gradients are added up, stored and joined, block after block, with nothing of the model's
 *       size anywhere
 *
 * Prints one line of JSON: seconds of one core for storing and joining, bytes, error, peak memory;
 * of what is resident its bytes and error.
 */
#include <inttypes.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/cpu/cpu.h"
#include "engine/fisher_code.h"
#include "engine/importance.h"
#include "fisherd/blocks.h"
#include "fisherd/store.h"
#include "tests/probe.h"

enum { STREAM_COLUMNS = 4096, TENSORS_MAX = 4096 };

struct probe {
    const char *directory;
    char parts[4096], file[4096];
    struct options options;
    struct model model;
    struct tensor_info tensors[TENSORS_MAX];
    uint64_t block_size, samples;
    struct pool *pool;
    double made_s; /* CPU time of the made-up gradients, which is not ours */
};

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static double option_number(int argc, char **argv, const char *key, double otherwise)
{
    for (int i = 3; i < argc; i++)
        if (strncmp(argv[i], key, strlen(key)) == 0 && argv[i][strlen(key)] == '=')
            return atof(argv[i] + strlen(key) + 1);
    return otherwise;
}

static char *option_form(int argc, char **argv)
{
    for (int i = 3; i < argc; i++)
        if (strncmp(argv[i], "form=", 5) == 0)
            return argv[i] + 5;
    return "log_rank1";
}

static void tensor_add(struct probe *p, const char *name, uint64_t rows, uint64_t columns)
{
    struct model *m = &p->model;
    struct tensor_info *t = &p->tensors[m->tensor_count];
    if (m->tensor_count++ == TENSORS_MAX)
        probe_fail("too many tensors");
    *t = (struct tensor_info){
        .rank = rows ? 2 : 1, .first = m->parameter_count, .count = (rows ? rows : 1) * columns};
    t->dims[0] = rows ? rows : columns;
    t->dims[1] = columns;
    snprintf(t->name, sizeof t->name, "%s", name);
    m->parameter_count += t->count;
}

static void tensors_read(struct probe *p)
{
    char path[4200], name[64];
    uint64_t rows, columns;
    snprintf(path, sizeof path, "%s/tensors.txt", p->directory);
    FILE *f = fopen(path, "r");
    while (f && fscanf(f, "%63s %" SCNu64 " %" SCNu64, name, &rows, &columns) == 3)
        tensor_add(p, name, rows, columns);
    if (!f || !p->model.parameter_count)
        probe_fail("DIR/tensors.txt has no tensors");
    fclose(f);
}

/* Sums of the squares of made-up gradients: what a row and a column have, and chance. */
static void squares_make(const struct probe *p, uint64_t first, uint64_t count, float *sums)
{
    memset(sums, 0, count * sizeof *sums);
    for (uint64_t n = 0; n < p->samples; n++)
        for (uint64_t i = 0; i < count; i++) {
            uint64_t at = first + i, bits = (at * 2654435761u + n) * 0x9e3779b97f4a7c15u;
            float row = (float)(1 + at / STREAM_COLUMNS % 97),
                  column = (float)(1 + at % STREAM_COLUMNS % 89);
            float gradient = 1e-5f * row * column * (float)(1 + (bits >> 48));
            sums[i] += gradient * gradient;
        }
}

static void blocks_store(struct probe *p, FILE *values)
{
    struct err e;
    uint64_t blocks = blocks_count(&p->model, p->block_size);
    struct fisher_code code = {0};
    float *sums = malloc(p->block_size * sizeof *sums);
    if (!sums)
        probe_fail("no memory for a block");
    for (uint64_t i = 0; i < blocks; i++) {
        struct fisherfile_block block = {0};
        double before = cpu_s();
        blocks_at(&p->model, p->block_size, i, &block);
        if (!values)
            squares_make(p, block.first, block.count, sums);
        else if (fread(sums, sizeof *sums, block.count, values) != block.count)
            probe_fail("DIR/values.f32 is too short");
        p->made_s += cpu_s() - before;
        if (store_block(&code, &p->options, &p->model, p->pool, p->parts, i, "probe", &block, sums,
                        &e) < 0)
            probe_fail(e.text);
    }
    free(sums);
    fisher_code_free(&code);
}

static void block_decode(const struct fisherfile_block *block, FILE *out)
{
    struct fisher_code code;
    struct err e;
    float *values = malloc(block->count * sizeof *values);
    if (fisher_code_begin(&code, block->form, block->count, &e) < 0)
        probe_fail(e.text);
    for (int i = 0; i < block->arrays; i++)
        fisher_code_add(&code, block->array[i].name, h5type_name(block->array[i].type),
                        block->array[i].count, block->array[i].data);
    if (!values || fisher_decode(&code, values, &e) < 0)
        probe_fail(values ? e.text : "no memory");
    if (out && fwrite(values, sizeof *values, block->count, out) != block->count)
        probe_fail("cannot write DIR/decoded.f32");
    free(values);
}

/* The file as a reader has it, into `out` unless that is NULL. */
static void file_decode(const struct probe *p, FILE *out)
{
    struct fisherfile *f;
    struct fisherfile_meta meta;
    struct fisherfile_block block;
    struct err e;
    int more = fisherfile_open(&f, p->file, &meta, &e);
    while (more >= 0 && (more = fisherfile_next(f, &block, &e)) > 0) {
        block_decode(&block, out);
        fisherfile_block_free(&block);
    }
    if (more < 0)
        probe_fail(e.text);
    fisherfile_close(&f);
}

static uint64_t kib_of(const char *key)
{
    char line[256];
    uint64_t kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            kib = strtoull(line + strlen(key), NULL, 10);
    if (f)
        fclose(f);
    return kib;
}

static void all_run(struct probe *p, FILE *values, FILE *decoded)
{
    struct fisherfile_meta meta = {.job = "probe", .task = "probe", .samples = p->samples};
    struct stat st;
    struct err e;
    double start = cpu_s(), stored, joined;
    meta.parameters = p->model.parameter_count;
    meta.block_size = p->block_size;
    meta.blocks = blocks_count(&p->model, p->block_size);
    snprintf(meta.compression, sizeof meta.compression, "%s", store_form(&p->options));
    blocks_store(p, values);
    stored = cpu_s();
    if (fisherfile_join(p->file, p->parts, &meta, &e) < 0)
        probe_fail(e.text);
    joined = cpu_s();
    file_decode(p, decoded);
    if (stat(p->file, &st) < 0)
        probe_fail("cannot look at DIR/out.h5");
    printf("{\"parameters\": %" PRIu64 ", \"blocks\": %" PRIu64
           ", \"store_s\": %.6f, \"join_s\": %.6f, "
           "\"read_s\": %.6f, \"bytes\": %" PRIu64 ", \"file_bytes\": %" PRIu64
           ", \"error\": %.6g, \"peak_bytes\": %" PRIu64 "}\n",
           meta.parameters, meta.blocks, stored - start - p->made_s, joined - stored,
           cpu_s() - joined, meta.bytes, (uint64_t)st.st_size, meta.error, kib_of("VmHWM:") << 10);
}

static void resident_run(struct probe *p, FILE *decoded, FILE *out)
{
    struct importance f;
    struct err e;
    uint64_t count = p->model.parameter_count;
    float *values = malloc(count * sizeof *values);
    if (!values || fread(values, sizeof *values, count, decoded) != count)
        probe_fail("DIR/decoded.f32 is too short, or there is no memory");
    if (importance_open(&f, &p->model, 0, &e) < 0)
        probe_fail(e.text);
    while (importance_next(&f))
        if (importance_take(&f, values, count, &e) < 0)
            probe_fail(e.text);
    for (uint32_t i = 0; i < p->model.tensor_count; i++)
        importance_expand(&f, &backend_cpu, i, 0, p->model.tensors[i].count,
                          values + p->model.tensors[i].first);
    if (fwrite(values, sizeof *values, count, out) != count || fclose(out) != 0)
        probe_fail("cannot write DIR/resident.f32");
    printf("{\"parameters\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"error\": %.6g}\n", count,
           f.region.bytes, f.error);
    importance_close(&f);
    free(values);
}

static FILE *file_in(const struct probe *p, const char *name, const char *mode)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", p->directory, name);
    FILE *f = fopen(path, mode);
    if (!f)
        probe_fail(path);
    return f;
}

int main(int argc, char **argv)
{
    static struct probe p;
    struct err e;
    if (argc < 3)
        probe_fail("usage: fisher_probe store|resident|stream DIR [key=value ...]");
    p.directory = argv[2];
    snprintf(p.parts, sizeof p.parts, "%.4000s/out.part", argv[2]);
    snprintf(p.file, sizeof p.file, "%.4000s/out.h5", argv[2]);
    p.model.tensors = p.tensors;
    p.options.fisher_compression = option_form(argc, argv);
    p.options.fisher_use_compression = strcmp(p.options.fisher_compression, "float32") != 0;
    p.options.fisher_compression_step = option_number(argc, argv, "step", 0.16);
    p.options.fisher_compression_ratio = option_number(argc, argv, "ratio", 0.1);
    p.options.fisher_compression_level = (uint64_t)option_number(argc, argv, "level", 6);
    p.block_size = (uint64_t)option_number(argc, argv, "block", 1e6);
    p.samples = (uint64_t)option_number(argc, argv, "samples", 2);
    if (pool_open(&p.pool, (int)option_number(argc, argv, "threads", 1), &e) < 0)
        probe_fail(e.text);
    if (strcmp(argv[1], "resident") == 0) {
        tensors_read(&p);
        resident_run(&p, file_in(&p, "decoded.f32", "rb"), file_in(&p, "resident.f32", "wb"));
        return 0;
    }
    int store = strcmp(argv[1], "store") == 0;
    uint64_t left = store ? 0 : (uint64_t)option_number(argc, argv, "parameters", 7e7);
    for (uint64_t rows = STREAM_COLUMNS; left >= STREAM_COLUMNS; left -= rows * STREAM_COLUMNS) {
        rows = left / STREAM_COLUMNS < rows ? left / STREAM_COLUMNS : rows;
        tensor_add(&p, "matrix", rows, STREAM_COLUMNS);
    }
    if (store)
        tensors_read(&p);
    FILE *values = store ? file_in(&p, "values.f32", "rb") : NULL;
    FILE *decoded = store ? file_in(&p, "decoded.f32", "wb") : NULL;
    all_run(&p, values, decoded);
    pool_close(&p.pool);
    return decoded && fclose(decoded) != 0;
}
