/* layer_reference.c - see layer_reference.h. */
#include "engine/layer_reference.h"

#include "engine/layer.h"
#include "engine/layer_text.h"
#include "engine/loss.h"

static void number_print(double value, FILE *out)
{
    char text[32];
    value_format(value, text, sizeof text);
    fputs(text, out);
}

/* "`out` (whole number from 1 to 16777216)", "`kind` (last, mean, sum or max)". */
static void key_print(const struct layer_key *k, FILE *out)
{
    fprintf(out, "`%s` (", k->name);
    for (int i = 0; k->words && k->words[i]; i++)
        fprintf(out, "%s%s", !i ? "" : k->words[i + 1] ? ", " : " or ", k->words[i]);
    if (!k->words) {
        fprintf(out, "%snumber from ", k->whole ? "whole " : "");
        number_print(k->low, out);
        fprintf(out, " to %s", k->below_high ? "below " : "");
        number_print(k->high, out);
    }
    if (!k->required) {
        fputs("; without it ", out);
        if (k->words)
            fputs(k->words[(int)k->normal], out);
        else
            number_print(k->normal, out);
    }
    fputc(')', out);
}

static void layers_print(FILE *out)
{
    fputs("| type | what it does | keys |\n|---|---|---|\n", out);
    for (int i = 0; layer_types[i]; i++) {
        const struct layer_type *type = layer_types[i];
        fprintf(out, "| `%s` | %s | ", type->name, type->purpose);
        for (int k = 0; type->keys[k].name; k++) {
            fputs(k ? ", " : "", out);
            key_print(&type->keys[k], out);
        }
        fputs(" |\n", out);
    }
}

static void losses_print(FILE *out)
{
    fputs("| model.loss | targets of a row | training.metric |\n|---|---|---|\n", out);
    for (int i = 0; loss_types[i]; i++) {
        const struct loss_type *type = loss_types[i];
        fprintf(out, "| `%s` | %s | ", type->name,
                !type->values      ? "one class, a whole number from 0 (for each step that is left)"
                : type->high < 1e9 ? "a number from 0 to 1 for each output"
                                   : "a number for each output");
        for (int k = 0; type->metrics[k]; k++)
            fprintf(out, "%s, ", type->metrics[k]->name);
        fprintf(out, "%s |\n", metric_loss.name);
    }
}

void layer_reference_print(FILE *out)
{
    fputs("# Layers and losses\n\n"
          "Made by `make docs` from the layers' own declarations. `model.layers` is a list of "
          "them:\n\n"
          "```yaml\n"
          "model:\n"
          "  loss: mean_squared_error\n"
          "  layers:\n"
          "    - {type: sequence, steps: 360}   # features [N, 360, 167]\n"
          "    - {type: lstm, out: 128, layers: 2}\n"
          "    - {type: residual_begin}\n"
          "    - {type: layernorm}\n"
          "    - {type: linear, out: 128}\n"
          "    - {type: gelu}\n"
          "    - {type: residual_end}\n"
          "    - {type: pool, kind: last}\n"
          "    - {type: linear, out: 36}\n"
          "```\n\n"
          "A row is one vector until a `sequence` reads it as steps; from there on every layer "
          "works on\n"
          "each step by itself, but `lstm`, which goes over them, and `pool`, which makes one of "
          "them.\n"
          "Of graphs a row is a matrix of nodes: layers work on each node by itself, but `gcn`, "
          "which goes\n"
          "along the edges, and `pool`, which makes one vector of a graph; a model of graphs needs "
          "one.\n"
          "Tensors are named as in PyTorch's `nn.Sequential`: the layer's place in the list, from "
          "0,\n"
          "then `weight`, `bias`, `weight_ih_l0` and so on, with PyTorch's layouts.\n\n",
          out);
    layers_print(out);
    fputs("\nThe first metric named is the usual one.\n\n", out);
    losses_print(out);
}
