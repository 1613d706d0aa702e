/* model_text.c - a model as one text, as a checkpoint's `model` attribute keeps it:
 *
 *   inputs=784 loss=softmax_cross_entropy
 *   linear out=256
 *   relu
 *
 * A loss with keys has them behind its name: "loss=huber delta=0.5" (loss_text.h). Of graphs the
 * first line is "graphs inputs=38 edge_inputs=5 loss=...".
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/layer.h"
#include "engine/layer_text.h"
#include "engine/loss_text.h"
#include "engine/model.h"

int model_text(const struct model *m, char *text, size_t bytes, struct err *e)
{
    char line[LAYER_LINE_MAX], loss[LOSS_TEXT_MAX];
    if (loss_format(m, loss, e) < 0)
        return -1;
    size_t used =
        (size_t)(m->graphs
                     ? snprintf(text, bytes,
                                "graphs inputs=%" PRIu64 " edge_inputs=%" PRIu64 " loss=%s\n",
                                m->inputs, m->edge_inputs, loss)
                     : snprintf(text, bytes, "inputs=%" PRIu64 " loss=%s\n", m->inputs, loss));
    for (uint32_t i = 0; i < m->layer_count && used < bytes; i++) {
        layer_format(&m->layers[i], line, sizeof line);
        used += (size_t)snprintf(text + used, bytes - used, "%s\n", line);
    }
    if (used >= bytes)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "cannot write the model as text: it takes more than the %zu bytes there are",
                       bytes);
    return 0;
}

/* "inputs=784 loss=...": the loss is the rest of the line; model_open_input reads it. */
static int head_parse(const char *head, struct model_input *input, const char **loss)
{
    int end = 0;
    *input = (struct model_input){.graphs = strncmp(head, "graphs ", 7) == 0};
    if (input->graphs)
        sscanf(head, "graphs inputs=%" SCNu64 " edge_inputs=%" SCNu64 " loss=%n", &input->values,
               &input->edge_values, &end);
    else
        sscanf(head, "inputs=%" SCNu64 " loss=%n", &input->values, &end);
    *loss = head + end;
    return end > 0;
}

/* Cut `text` into lines in place; a last empty one does not count. -1: too many. */
static int lines_split(char *text, char **lines, int max)
{
    int count = 0;
    for (char *rest = NULL, *line = strtok_r(text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest)) {
        if (count == max)
            return -1;
        lines[count++] = line;
    }
    return count;
}

int model_from_text(struct model *m, const char *text, struct err *e)
{
    char *lines[MODEL_LAYERS_MAX + 1];
    const char *loss = "";
    struct model_input input;
    int result = -1;
    *m = (struct model){0};
    char *copy = strndup(text, MODEL_TEXT_MAX);
    if (!copy)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot allocate a copy of the model's text");
    int count = strlen(copy) < MODEL_TEXT_MAX ? lines_split(copy, lines, MODEL_LAYERS_MAX + 1) : -1;
    if (count < 0)
        err_set(e, EXIT_CODE_PERMANENT,
                "cannot read the model's text: it has more than %d bytes or %d layers",
                MODEL_TEXT_MAX - 1, MODEL_LAYERS_MAX);
    else if (count == 0 || !head_parse(lines[0], &input, &loss))
        err_set(e, EXIT_CODE_PERMANENT,
                "cannot read the model's text: its first line is '%.64s'; accepted: inputs=N "
                "loss=NAME, or graphs inputs=N edge_inputs=N loss=NAME",
                count ? lines[0] : "");
    else
        result = model_open_input(m, (const char *const *)lines + 1, (uint32_t)count - 1, &input,
                                  loss, e);
    free(copy);
    return result;
}
