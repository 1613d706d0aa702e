/* molecule_like.c - see molecule_like.h. */
#include "pipelines/prepare/molecule_like.h"

#include <stdio.h>
#include <string.h>

#include "pipelines/prepare/graph.h"
#include "pipelines/prepare/spectrum.h"
#include "proto/h5file.h"

void molecule_node_names(int energy, char names[MOLECULE_NAMES_BYTES])
{
    snprintf(names, MOLECULE_NAMES_BYTES, "%s%s%s", graph_node_names, energy ? "\n" : "",
             energy ? energy_names : "");
}

int molecule_like_read(struct molecule_like *l, const char *path, struct err *e)
{
    char theirs[MOLECULE_NAMES_BYTES], ours[MOLECULE_NAMES_BYTES];
    struct h5reader *r = NULL;
    *l = (struct molecule_like){0};
    if (!*path)
        return 0;
    int result =
        h5reader_open(&r, path, e) < 0 ||
                h5reader_text(r, "", "node_feature_names", theirs, sizeof theirs, e) < 0 ||
                h5reader_text(r, "", "fingerprint", l->fingerprint, sizeof l->fingerprint, e) < 0
            ? err_prefix(e, "prepare.like: %s is no file of `prepare molecules`", path)
            : 0;
    h5reader_close(&r);
    for (l->energy = 0; result == 0 && l->energy < 2; l->energy++) {
        molecule_node_names(l->energy, ours);
        if (strcmp(ours, theirs) == 0)
            return l->follows = 1, 0;
    }
    return result < 0 ? -1
                      : err_set(e, EXIT_CODE_PERMANENT,
                                "prepare.like: atoms of %s have other columns than this program "
                                "makes; prepare its source anew and train with that",
                                path);
}
