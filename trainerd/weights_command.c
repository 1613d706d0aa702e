/* weights_command.c - `trainerd --weights`: the weights of a checkpoint as a safetensors file for
 * other tools, and a look into such files (pipelines/weights.sh).
 *
 * It is trainerd's because a checkpoint is: the model's text gives names and shapes, which are
 * PyTorch's. The way back in is model.pretrained (pretrained.c) and --predict, which read the same
 * files.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/quantised.h"
#include "trainerd/selection.h"
#include "trainerd/weights.h"

static const char help[] =
    "usage: weights.sh export (--run DIR | --checkpoint FILE) --out FILE.safetensors [--int8]\n"
    "       weights.sh list FILE\n\n"
    "export writes the weights under PyTorch's names (\"0.weight\": a layer's number is its place "
    "in\nmodel.layers, as in nn.Sequential) and layouts, float32; list prints the tensors of a "
    "checkpoint\nor a safetensors file.\n\n";

static const char example[] =
    "  --out FILE         the file to write\n"
    "  --int8             matrices of products as I8, with the scales of their rows as "
    "NAME.scale: weight =\n                     scale of its row times the number\n"
    "  --help             this\n\n"
    "Exit codes: 0 done; 100 cannot work; 111 may work later.\n\n"
    "example: pipelines/weights.sh export --run runs/fashion --task B --out fashion.safetensors\n";

static int help_print(void)
{
    printf("%s%s%s", help, selection_help, example);
    return fflush(stdout) == 0 ? EXIT_CODE_DONE : EXIT_CODE_TEMPORARY;
}

static int list_print(const char *path, struct err *e)
{
    struct weights w;
    uint64_t items = 0;
    if (weights_open(&w, path, e) < 0)
        return -1;
    for (uint32_t i = 0; i < w.safetensors.count; i++) {
        const struct safetensor *t = &w.safetensors.tensors[i];
        printf("%-40s %-7s [", t->name, safetensors_type_name(t->type));
        for (int d = 0; d < t->rank; d++)
            printf("%s%" PRIu64, d ? ", " : "", t->dims[d]);
        puts("]");
        items += safetensor_items(t);
    }
    printf("%u tensors, %" PRIu64 " numbers; sha256 of the file %s\n", w.safetensors.count, items,
           w.sha256);
    if (w.model)
        printf("model:\n%s", w.model);
    weights_close(&w);
    return fflush(stdout) == 0 ? 0 : err_errno(e, EXIT_CODE_TEMPORARY, "cannot print the list");
}

/* What is written: at most two tensors for each of the model, and num_batches_tracked. */
struct export
{
    const struct weights *w;
    const struct model *m;
    float *parameters, *buffers;
    int64_t batches_tracked;
    struct quantised quantised; /* without tensors: everything stays float32 */
    struct safetensors_source *sources;
    uint32_t count;
    char(*names)[SAFETENSORS_NAME_MAX + 1]; /* of what the model has not, [weights_count] */
    int8_t **rows;                          /* of matrices in 8 bits, [weights_count]; owned */
};

static void source_add(struct export *x, const char *name, enum safetensors_type type, int rank,
                       const uint64_t *dims, const void *data)
{
    struct safetensors_source *s = &x->sources[x->count++];
    *s = (struct safetensors_source){.name = name, .type = type, .rank = rank, .data = data};
    if (rank)
        memcpy(s->dims, dims, (size_t)rank * sizeof *dims);
}

/* The matrix without what pads its rows, and its scales. */
static int int8_add(struct export *x, uint32_t i, const struct int8_matrix *q, struct err *e)
{
    const struct tensor_info *info = &x->m->tensors[i];
    int8_t *rows = x->rows[i] = malloc(info->count);
    if (!rows)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for %s in 8 bits", info->name);
    for (uint64_t r = 0; r < q->rows; r++)
        memcpy(rows + r * q->columns, q->at + r * q->stride, q->columns);
    snprintf(x->names[i], sizeof x->names[i], "%s.scale", info->name);
    source_add(x, info->name, SAFETENSORS_I8, info->rank, info->dims, rows);
    source_add(x, x->names[i], SAFETENSORS_F32, 1, info->dims, q->scales);
    return 0;
}

/* torch.nn.BatchNorm1d has one more, behind its last buffer. */
static void batches_add(struct export *x, uint32_t i)
{
    const char *name = weights_info(x->m, i)->name, *last = strstr(name, ".running_var");
    if (!last)
        return;
    snprintf(x->names[i], sizeof x->names[i], "%.*s.num_batches_tracked", (int)(last - name), name);
    source_add(x, x->names[i], SAFETENSORS_I64, 0, NULL, &x->batches_tracked);
}

static int sources_make(struct export *x, int int8, struct err *e)
{
    const struct model *m = x->m;
    uint32_t all = weights_count(m);
    x->sources = calloc(all, 2 * sizeof *x->sources);
    x->names = calloc(all, sizeof *x->names);
    x->rows = calloc(all, sizeof *x->rows);
    if (!x->sources || !x->names || !x->rows)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the list of tensors");
    if (int8 && quantised_open(&x->quantised, m, x->parameters, 1, e) < 0)
        return -1;
    for (uint32_t i = 0; i < all; i++) {
        const struct tensor_info *info = weights_info(m, i);
        const struct int8_matrix *q =
            i < m->tensor_count ? quantised_find(&x->quantised, info->first) : NULL;
        if (q && int8_add(x, i, q, e) < 0)
            return -1;
        if (q)
            continue;
        source_add(x, info->name, SAFETENSORS_F32, info->rank, info->dims,
                   weights_place(m, i, x->parameters, x->buffers));
        batches_add(x, i);
    }
    return 0;
}

static int file_write(const struct weights *w, const struct model *m, float *parameters,
                      float *buffers, const char *out, int int8, struct err *e)
{
    struct export x = {.w = w,
                       .m = m,
                       .parameters = parameters,
                       .buffers = buffers,
                       .batches_tracked = (int64_t)w->batches_tracked};
    const struct safetensors_text texts[] = {
        {(char *)"format", (char *)"pt"},
        {(char *)"model", w->model},
        {(char *)"source_sha256", (char *)w->sha256},
        {(char *)"quantisation", (char *)"I8 matrices: weight = NAME.scale[row] * number"}};
    uint32_t text_count = sizeof texts / sizeof texts[0] - !int8;
    int result = sources_make(&x, int8, e);
    if (result == 0)
        result = safetensors_write(out, x.sources, x.count, texts, text_count, e);
    for (uint32_t i = 0; x.rows && i < weights_count(m); i++)
        free(x.rows[i]);
    free(x.rows);
    free(x.names);
    free(x.sources);
    quantised_close(&x.quantised);
    return result;
}

static int export_make(const char *path, const char *out, int int8, struct err *e)
{
    struct weights w;
    struct model m = {0};
    float *parameters = NULL, *buffers = NULL;
    int result = -1;
    if (weights_open(&w, path, e) < 0)
        return -1;
    if (!w.model) {
        err_set(e, EXIT_CODE_PERMANENT, "%s does not say of which model its weights are", path);
        goto out;
    }
    if (model_from_text(&m, w.model, e) < 0)
        goto out;
    parameters = calloc(m.parameter_count, sizeof *parameters);
    buffers = calloc(m.buffer_values + 1, sizeof *buffers);
    if (!parameters || !buffers) {
        err_set(e, EXIT_CODE_TEMPORARY, "no memory for the weights of %s", path);
        goto out;
    }
    if (weights_load(&w, &m, parameters, buffers, e) < 0 ||
        file_write(&w, &m, parameters, buffers, out, int8, e) < 0)
        goto out;
    printf("weights: %" PRIu64 " numbers in %u tensors of %s -> %s\n",
           m.parameter_count + m.buffer_values, weights_count(&m), path, out);
    result = 0;
out:
    free(parameters);
    free(buffers);
    model_close(&m);
    weights_close(&w);
    return result;
}

static int export_run(int argc, char **argv, struct err *e)
{
    static struct options o; /* large */
    struct selection s = {0};
    const char *out = NULL;
    char path[4096];
    int int8 = 0;
    for (int i = 0; i < argc; i++) {
        int taken = selection_argument(&s, argc, argv, &i, e);
        if (taken == 0 && strcmp(argv[i], "--out") == 0)
            taken = selection_value(argc, argv, &i, &out, e) < 0 ? -1 : 1;
        if (taken == 0 && strcmp(argv[i], "--int8") == 0)
            taken = int8 = 1;
        if (taken < 0)
            return -1;
        if (!taken)
            return err_set(e, EXIT_CODE_PERMANENT, "argument \"%.100s\" is unknown (see --help)",
                           argv[i]);
    }
    if (!out)
        return err_set(e, EXIT_CODE_PERMANENT, "--out FILE is missing (see --help)");
    int result = selection_find(&s, &o, path, sizeof path, e);
    if (result == 0)
        result = export_make(path, out, int8, e);
    options_free(&o);
    return result;
}

int weights_command(int argc, char **argv)
{
    struct err e = {0};
    int result = -1;
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0)
            return help_print();
    if (argc > 2 && strcmp(argv[2], "export") == 0)
        result = export_run(argc - 3, argv + 3, &e);
    else if (argc == 4 && strcmp(argv[2], "list") == 0)
        result = list_print(argv[3], &e);
    else
        err_set(&e, EXIT_CODE_PERMANENT, "accepted are `export ...` and `list FILE` (see --help)");
    if (result == 0)
        return EXIT_CODE_DONE;
    fprintf(stderr, "weights: %s\n", e.text);
    return e.code;
}
