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

#include "trainerd/selection.h"
#include "trainerd/weights.h"

static const char help[] =
    "usage: weights.sh export (--run DIR | --checkpoint FILE) --out FILE.safetensors\n"
    "       weights.sh list FILE\n\n"
    "export writes the weights under PyTorch's names (\"0.weight\": a layer's number is its place "
    "in\nmodel.layers, as in nn.Sequential) and layouts, float32; list prints the tensors of a "
    "checkpoint\nor a safetensors file.\n\n";

static const char example[] =
    "  --out FILE         the file to write\n"
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

/* All of a model's tensors out of the file, end to end. The caller frees *parameters. */
static int model_weights(const struct weights *w, const struct model *m, float **parameters,
                         struct err *e)
{
    *parameters = malloc(m->parameter_count * sizeof **parameters);
    if (!*parameters)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory for the weights of %s", w->path);
    for (uint32_t i = 0; i < m->tensor_count; i++) {
        const struct tensor_info *info = &m->tensors[i];
        const struct safetensor *t = weights_find(w, info->name);
        if (!t || safetensor_items(t) != info->count)
            return err_set(e, EXIT_CODE_PERMANENT, "%s lacks the tensor %s of its own model",
                           w->path, info->name);
        if (weights_read(w, t, *parameters + info->first, e) < 0)
            return -1;
    }
    return 0;
}

static int file_write(const struct weights *w, const struct model *m, const float *parameters,
                      const char *out, struct err *e)
{
    struct safetensors_source *sources = calloc(m->tensor_count, sizeof *sources);
    const struct safetensors_text texts[] = {{(char *)"format", (char *)"pt"},
                                             {(char *)"model", w->model},
                                             {(char *)"source_sha256", (char *)w->sha256}};
    if (!sources)
        return err_set(e, EXIT_CODE_TEMPORARY, "no memory to write %s", out);
    for (uint32_t i = 0; i < m->tensor_count; i++) {
        const struct tensor_info *info = &m->tensors[i];
        sources[i] = (struct safetensors_source){.name = info->name,
                                                 .type = SAFETENSORS_F32,
                                                 .rank = info->rank,
                                                 .data = parameters + info->first};
        memcpy(sources[i].dims, info->dims, sizeof info->dims);
    }
    int result =
        safetensors_write(out, sources, m->tensor_count, texts, sizeof texts / sizeof texts[0], e);
    free(sources);
    return result;
}

static int export_make(const char *path, const char *out, struct err *e)
{
    struct weights w;
    struct model m = {0};
    float *parameters = NULL;
    int result = -1;
    if (weights_open(&w, path, e) < 0)
        return -1;
    if (!w.model) {
        err_set(e, EXIT_CODE_PERMANENT, "%s does not say of which model its weights are", path);
        goto out;
    }
    if (model_from_text(&m, w.model, e) < 0 || model_weights(&w, &m, &parameters, e) < 0 ||
        file_write(&w, &m, parameters, out, e) < 0)
        goto out;
    printf("weights: %" PRIu64 " numbers in %u tensors of %s -> %s\n", m.parameter_count,
           m.tensor_count, path, out);
    result = 0;
out:
    free(parameters);
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
    for (int i = 0; i < argc; i++) {
        int taken = selection_argument(&s, argc, argv, &i, e);
        if (taken == 0 && strcmp(argv[i], "--out") == 0)
            taken = selection_value(argc, argv, &i, &out, e) < 0 ? -1 : 1;
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
        result = export_make(path, out, e);
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
