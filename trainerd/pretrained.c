/* pretrained.c - model.pretrained: what tasks `from: start` begin with instead of fresh weights
 * alone.
 *
 * Tensors are taken by name and shape. A layer is called by its place, or as model.pretrained_map
 * says. With pretrained_head: fresh the head stays as fresh weights are: the layers behind
 * training.backbone_layers; where that is 0 the last layer with parameters, and with it everything
 * from the first layer on whose tensors the file does not have in that shape. What was and was not
 * taken over is a fact in the journal and in the report.
 *
 * The file is part of the run's identity: its digest is in every checkpoint once a task has begun
 * with it, and a later start that still needs the file refuses another one.
 */
#include "trainerd/trainer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/layer.h"
#include "proto/log.h"
#include "trainerd/weights.h"

struct taking {
    const struct options *o;
    const struct model *m;
    struct weights w;
    const struct safetensor **found; /* [weights_count]; NULL: stays fresh */
    uint32_t taken;
};

/* The next "PLACE:NAME" of a map; 1: *place and the name's range are set; 0: no more; -1: it is
 * none. */
static int map_next(const char **at, uint64_t *place, const char **name, int *length)
{
    int used = 0;
    *at += strspn(*at, " ");
    if (!**at)
        return 0;
    if (**at < '0' || **at > '9' || sscanf(*at, "%4" SCNu64 ":%n", place, &used) != 1 || !used)
        return -1;
    *name = *at + used;
    *length = (int)strcspn(*name, " ");
    *at = *name + *length;
    return 1;
}

int pretrained_options_check(const struct options *o, struct err *e)
{
    const char *at = o->pretrained_map, *name;
    uint8_t seen[OPTION_LAYERS_MAX] = {0};
    uint64_t place = 0;
    int length, more;
    while ((more = map_next(&at, &place, &name, &length)) > 0) {
        if (place >= o->layer_count || seen[place]++)
            return err_set(e, EXIT_CODE_PERMANENT,
                           "model.pretrained_map has layer %" PRIu64
                           " %s; accepted are the places 0 to %u of model.layers, each once",
                           place, place >= o->layer_count ? ", which is not there" : "twice",
                           o->layer_count - 1);
    }
    if (more < 0)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "model.pretrained_map is \"%.200s\", where \"%.60s\" is no PLACE:NAME; "
                       "accepted is for example \"0:encoder.0 2:encoder.2\"",
                       o->pretrained_map, at);
    if (!o->pretrained[0] && o->pretrained_map[0])
        return err_set(e, EXIT_CODE_PERMANENT,
                       "model.pretrained_map is given, and model.pretrained names no file");
    return 0;
}

/* How the file calls the model's tensor "2.weight". */
static void name_in_file(const struct options *o, const char *tensor, char *name, size_t bytes)
{
    const char *at = o->pretrained_map, *to, *rest = strchr(tensor, '.');
    uint64_t place, own = strtoull(tensor, NULL, 10);
    int length;
    while (map_next(&at, &place, &to, &length) > 0)
        if (place == own) {
            snprintf(name, bytes, "%.*s%s", length, to, length ? rest : rest + 1);
            return;
        }
    snprintf(name, bytes, "%s", tensor);
}

static void shape_text(char *text, size_t bytes, int rank, const uint64_t *dims)
{
    size_t used = (size_t)snprintf(text, bytes, "[");
    for (int i = 0; i < rank && used < bytes; i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s%" PRIu64, i ? ", " : "", dims[i]);
    if (used < bytes)
        snprintf(text + used, bytes - used, "]");
}

/* The file's tensor for the model's number `i`, or NULL and *e. */
static const struct safetensor *tensor_find(const struct taking *k, uint32_t i, struct err *e)
{
    const struct tensor_info *info = weights_info(k->m, i);
    char name[SAFETENSORS_NAME_MAX + 1], here[64], there[192];
    name_in_file(k->o, info->name, name, sizeof name);
    const struct safetensor *s = weights_find(&k->w, name);
    if (s && weights_fits(s, info))
        return s;
    shape_text(here, sizeof here, info->rank, info->dims);
    if (s)
        shape_text(there, sizeof there, s->rank, s->dims);
    if (s)
        err_set(e, EXIT_CODE_PERMANENT, "the model's tensor %s is %s, that of %s (%s) is %s",
                info->name, here, k->w.path, name, there);
    else
        err_set(e, EXIT_CODE_PERMANENT, "the model's tensor %s, %s, is in %s under no name %s",
                info->name, here, k->w.path, name);
    return NULL;
}

/* All tensors and module buffers of one layer into k->found: a layer is taken whole or not. */
static int layer_find(struct taking *k, const struct layer_instance *l, struct err *e)
{
    const struct model *m = k->m;
    uint32_t taken = 0;
    int result = 0;
    for (uint32_t i = 0; i < weights_count(m); i++) {
        if (strtoul(weights_info(m, i)->name, NULL, 10) != l->place)
            continue;
        k->found[i] = result == 0 ? tensor_find(k, i, e) : NULL;
        result = k->found[i] ? result : -1;
        taken++;
    }
    for (uint32_t i = 0; result < 0 && i < weights_count(m); i++)
        if (strtoul(weights_info(m, i)->name, NULL, 10) == l->place)
            k->found[i] = NULL;
    k->taken += result == 0 ? taken : 0;
    return result;
}

/* What is taken of each tensor, by the rule above. */
static int tensors_find(struct taking *k, struct err *e)
{
    const struct model *m = k->m;
    uint32_t end = m->layer_count, backbone = (uint32_t)k->o->backbone_layers;
    int fresh = strcmp(k->o->pretrained_head, "fresh") == 0;
    struct err why = {.text = "the model has one layer with parameters, and that is its head"};
    ensure(backbone < m->layer_count);
    if (fresh && backbone)
        end = backbone;
    else if (fresh)
        while (!m->layers[--end].tensor_count) /* a model has at least one with some */
            ;
    for (uint32_t i = 0; i < end; i++) {
        if (layer_find(k, &m->layers[i], &why) == 0)
            continue;
        if (fresh && !backbone)
            break;
        k->taken = 0;
        goto out;
    }
out:
    if (k->taken)
        return 0;
    return err_set(e, EXIT_CODE_PERMANENT,
                   "cannot begin with model.pretrained: %s; accepted are the same names and "
                   "shapes (pipelines/weights.sh list shows a file's), model.pretrained_map for "
                   "other names, and model.pretrained_head: fresh for other last layers",
                   why.text);
}

static void taking_close(struct taking *k)
{
    weights_close(&k->w);
    free(k->found);
    k->found = NULL;
}

/* known: digest of the file that the run began with, or "". */
static int taking_open(struct taking *k, const struct options *o, const struct model *m,
                       const char *known, struct err *e)
{
    *k = (struct taking){.o = o, .m = m};
    if (weights_open(&k->w, o->pretrained, e) < 0)
        return err_prefix(e, "model.pretrained");
    if (known[0] && strcmp(known, k->w.sha256) != 0) {
        err_set(e, EXIT_CODE_PERMANENT,
                "model.pretrained: %s is another file (sha256 %.12s) than the run began with "
                "(%.12s); bring the old file back or use another --run",
                k->w.path, k->w.sha256, known);
        goto fail;
    }
    k->found = calloc(weights_count(m), sizeof *k->found);
    if (!k->found) {
        err_set(e, EXIT_CODE_TEMPORARY, "no memory for the list of pretrained tensors");
        goto fail;
    }
    if (tensors_find(k, e) == 0)
        return 0;
fail:
    taking_close(k);
    return -1;
}

/* A name at the end of a list of them, which ends in "..." where it is full. */
static void list_add(char *list, size_t bytes, const char *name)
{
    size_t used = strlen(list), room = bytes - used;
    if (used && strcmp(list + used - 3, "...") == 0)
        return;
    if (strlen(name) + 8 < room)
        snprintf(list + used, room, "%s%s", used ? ", " : "", name);
    else
        snprintf(list + used, room, ", ...");
}

static int is_taken(const struct taking *k, const struct safetensor *s)
{
    for (uint32_t i = 0; i < weights_count(k->m); i++)
        if (k->found[i] == s)
            return 1;
    return weights_is_scale(&k->w, s);
}

static int pretrained_fact(struct trainer *t, const struct taking *k, struct err *e)
{
    struct msg_event_pretrained m = {.taken = k->taken};
    const struct model *model = k->m;
    char fresh[sizeof m.fresh] = "", unused[sizeof m.unused] = "";
    for (uint32_t i = 0; i < weights_count(model); i++)
        if (!k->found[i])
            list_add(fresh, sizeof fresh, weights_info(model, i)->name);
    for (uint32_t i = 0; i < k->w.safetensors.count; i++)
        if (!is_taken(k, &k->w.safetensors.tensors[i]))
            list_add(unused, sizeof unused, k->w.safetensors.tensors[i].name);
    MSG_STR(m.task, tasks_current(t)->name);
    MSG_STR(m.file, k->w.path);
    MSG_STR(m.sha256, k->w.sha256);
    MSG_STR(m.fresh, fresh);
    MSG_STR(m.unused, unused);
    log_info("file=%s sha256=%.12s taken=%u fresh=\"%s\" unused=\"%s\" weights were taken over",
             k->w.path, k->w.sha256, k->taken, fresh, unused);
    return daemon_fact(t->daemon, MSG_event_pretrained, &m, e);
}

int pretrained_fits(const struct options *o, const struct model *m, const char *known,
                    struct err *e)
{
    struct taking k;
    if (taking_open(&k, o, m, known, e) < 0)
        return -1;
    taking_close(&k);
    return 0;
}

int pretrained_check(struct trainer *t, struct err *e)
{
    int needed = 0;
    for (uint32_t i = (uint32_t)t->meta.task; i < t->options->task_count; i++)
        if (strcmp(t->options->tasks[i].from, "start") == 0)
            needed |= i > t->meta.task || t->state == TRAINER_BEGIN;
    if (!t->options->pretrained[0] || !needed)
        return 0;
    return pretrained_fits(t->options, &t->model, t->meta.pretrained_sha256, e);
}

int pretrained_load(struct trainer *t, float *parameters, float *buffers, struct err *e)
{
    struct taking k;
    int result = 0;
    if (!t->options->pretrained[0])
        return 0;
    if (taking_open(&k, t->options, &t->model, t->meta.pretrained_sha256, e) < 0)
        return -1;
    for (uint32_t i = 0; result == 0 && i < weights_count(&t->model); i++)
        if (k.found[i])
            result =
                weights_read(&k.w, k.found[i], weights_place(&t->model, i, parameters, buffers), e);
    if (result == 0)
        result = pretrained_fact(t, &k, e);
    memcpy(t->meta.pretrained_sha256, k.w.sha256, sizeof k.w.sha256);
    taking_close(&k);
    return result < 0 ? err_prefix(e, "model.pretrained") : 0;
}
