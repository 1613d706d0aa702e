/* molecules.c - see molecules.h. One pass over the source; an entry goes to its part by a keyed
 * hash of its InChIKey's first block, so that its part depends on nothing but the molecule and the
 * seed.
 */
#include "pipelines/prepare/molecules.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/prepare/graph.h"
#include "pipelines/prepare/graphs.h"
#include "pipelines/prepare/hashes.h"
#include "pipelines/prepare/molecule_memo.h"
#include "pipelines/prepare/molecule_targets.h"
#include "pipelines/prepare/own.h"
#include "pipelines/prepare/progress.h"
#include "pipelines/prepare/skeleton.h"
#include "pipelines/prepare/spectrum.h"
#include "proto/order.h"

enum {
    NODE_FEATURES_MAX = GRAPH_NODE_FEATURES + ENERGY_FEATURES,
    EDGES_MAX = 2 * MOLECULE_BONDS_MAX,
    SPLIT_KEY = 0x6d6f6c65,  /* "mole": the split's own stream of the seed */
    ENERGY_KEY = 0x656e6572, /* "ener": that of the energies which ions are computed at */
    ENERGY_CLASSES = 11,     /* of 10 eV each, to 110 eV: hardly any in MassBank are above */
    PROGRESS_ROWS = 256,     /* between looks at the clock */
    SKELETONS_MAX = 2 << 20, /* counted exactly up to so many */
};

/* What becomes of an entry. Skipped: nothing is wrong with it. */
enum fate {
    FATE_TAKEN,
    FATE_ADDUCT,
    FATE_MS_TYPE,
    FATE_DEPRECATED,
    FATE_NO_STRUCTURE,
    FATE_ATOMS,
    FATE_NO_PEAK,
    FATE_MALFORMED, /* the first that counts against prepare.refused_max */
    FATE_NO_SKELETON,
    FATE_MOLECULE,
    FATES = FATE_MOLECULE + MOLECULE_REFUSALS,
};

static const char *const fate_names[FATE_MOLECULE] = {
    [FATE_ADDUCT] = "skipped_other_adduct",   [FATE_MS_TYPE] = "skipped_not_ms2",
    [FATE_DEPRECATED] = "skipped_deprecated", [FATE_NO_STRUCTURE] = "skipped_no_structure",
    [FATE_ATOMS] = "skipped_atoms_max",       [FATE_NO_PEAK] = "skipped_no_peak",
    [FATE_MALFORMED] = "refused_malformed",   [FATE_NO_SKELETON] = "refused_no_inchikey",
};

static void fate_name(int fate, char name[64])
{
    if (fate < FATE_MOLECULE)
        snprintf(name, 64, "%s", fate_names[fate]);
    else
        snprintf(name, 64, "refused_%s",
                 molecule_refusal_name((enum molecule_refusal)(fate - FATE_MOLECULE)));
}

struct molecules {
    const struct options *options;
    const struct molecule_like *like;
    struct molecule_source *source;
    struct digest *digest;
    struct graphs *graphs;
    struct molecule_memo memo;
    struct molecule molecule;
    struct hashes skeletons[2]; /* first blocks of each part */
    struct molecule_targets targets;
    uint32_t node_features;
    uint8_t node[MOLECULE_ATOMS_MAX * NODE_FEATURES_MAX];
    uint8_t edge[EDGES_MAX * GRAPH_EDGE_FEATURES];
    uint16_t from[EDGES_MAX], to[EDGES_MAX];
    uint64_t count[FATES];
    char first_where[300], first_why[201]; /* of the first refusal; empty: there is none */
    struct progress progress;
};

/* ---- one entry ------------------------------------------------------------------------------ */

/* The first refusal is told at the end if there are too many. */
static int refuse(struct molecules *x, int fate, const char *why)
{
    if (!x->first_why[0]) {
        x->source->where(x->source, x->first_where, sizeof x->first_where);
        snprintf(x->first_why, sizeof x->first_why, "%s", why);
    }
    return fate;
}

static int record_look(struct molecules *x, const struct massbank_record *r)
{
    if (r->deprecated)
        return FATE_DEPRECATED;
    if (r->ms_type[0] && strcmp(r->ms_type, "MS2") != 0)
        return FATE_MS_TYPE;
    if (strcmp(massbank_adduct(r), x->options->prepare_adduct) != 0)
        return FATE_ADDUCT;
    return r->fault ? refuse(x, FATE_MALFORMED, r->fault) : FATE_TAKEN;
}

static int no_structure(const char *smiles)
{
    return !smiles[0] || strcmp(smiles, "N/A") == 0 || strcmp(smiles, "NA") == 0 ||
           strchr(smiles, '*');
}

/* The part an entry belongs to, and the hash of its molecule's first block; or -1 if it has no
 * InChIKey. The refusal is of a molecule that had to be read for it. */
static int part_choose(struct molecules *x, const struct molecule_entry *entry, uint64_t *skeleton,
                       enum molecule_refusal *refusal)
{
    char block[SKELETON_LETTERS + 1];
    if (!skeleton_of_text(entry->key, block)) {
        *refusal = molecule_read(&x->molecule, entry->smiles, MOLECULE_KEKULE);
        if (*refusal != MOLECULE_ACCEPTED || !skeleton_of_molecule(&x->molecule, block))
            return -1;
    }
    uint64_t word[2] = {0, 0};
    memcpy(word, block, SKELETON_LETTERS);
    *skeleton = order_key(order_key(SPLIT_KEY, word[0]), word[1]);
    uint64_t drawn = order_key(x->options->prepare_split_seed, *skeleton);
    return ldexp((double)drawn, -64) < x->options->prepare_validation_fraction;
}

/* The record's. Or, of ions, drawn by the row's number: the middle of a class, so that the columns
 * tell it, in any of the units, so that a model knows it in all of them. Or unknown. */
static struct energy energy_choose(const struct molecules *x, const struct molecule_entry *entry)
{
    static const enum energy_unit units[] = {ENERGY_PLAIN, ENERGY_EV, ENERGY_NCE};
    if (entry->record)
        return energy_parse(entry->record->energy);
    if (x->targets.kind != MOLECULE_IONS)
        return (struct energy){ENERGY_UNKNOWN, 0};
    uint64_t key = order_key(ENERGY_KEY, x->options->prepare_split_seed);
    uint64_t drawn = order_key(key, entry->number);
    return (struct energy){units[order_key(key, drawn) % 3], 5 + 10.0 * (drawn % ENERGY_CLASSES)};
}

static int graph_add(struct molecules *x, const struct molecule_entry *entry, int validation,
                     const struct energy *given, struct err *e)
{
    const struct molecule *m = &x->molecule;
    uint8_t energy[ENERGY_FEATURES];
    energy_features(given, energy);
    for (uint32_t i = 0; i < m->atoms; i++) {
        uint8_t *row = x->node + i * x->node_features;
        graph_node(&m->atom[i], row);
        if (x->node_features > GRAPH_NODE_FEATURES)
            memcpy(row + GRAPH_NODE_FEATURES, energy, sizeof energy);
    }
    for (uint32_t i = 0; i < m->bonds; i++) {
        uint8_t *row = x->edge + 2 * i * GRAPH_EDGE_FEATURES;
        graph_edge(&m->bond[i], row);
        memcpy(row + GRAPH_EDGE_FEATURES, row, GRAPH_EDGE_FEATURES);
        x->from[2 * i] = x->to[2 * i + 1] = m->bond[i].from;
        x->to[2 * i] = x->from[2 * i + 1] = m->bond[i].to;
    }
    const struct graph_row row = {
        .nodes = m->atoms,
        .edges = 2 * m->bonds,
        .node_features = x->node,
        .edge_features = x->edge,
        .from = x->from,
        .to = x->to,
        .targets = x->targets.value,
        .source_row = entry->number,
    };
    return graphs_add(x->graphs, validation, &row, e);
}

/* Read the entry's molecule. Its fate so far; *part is as part_choose has it. */
static int molecule_look(struct molecules *x, const struct molecule_entry *entry, int *part,
                         uint64_t *skeleton, struct err *e)
{
    enum molecule_refusal refusal = MOLECULE_ACCEPTED;
    *part = x->like->follows
                ? 1
                : part_choose(x, entry, skeleton, &refusal); /* before what it may replace */
    if (refusal != MOLECULE_MEMORY)
        refusal = molecule_memo_read(&x->memo, &x->molecule, entry->smiles, x->targets.flags);
    if (refusal == MOLECULE_MEMORY)
        return err_set(e, EXIT_CODE_TEMPORARY, "cannot read %s: no memory for a molecule",
                       x->options->data_source);
    if (refusal != MOLECULE_ACCEPTED)
        return refuse(x, FATE_MOLECULE + (int)refusal, molecule_why());
    if (*part < 0)
        return refuse(x, FATE_NO_SKELETON, "the InChI library makes no InChIKey of it");
    return x->molecule.atoms > x->options->prepare_atoms_max ? FATE_ATOMS : FATE_TAKEN;
}

/* The entry's fate, or -1 and *e. */
static int entry_take(struct molecules *x, const struct molecule_entry *entry, struct err *e)
{
    int fate = entry->record ? record_look(x, entry->record) : FATE_TAKEN;
    if (fate == FATE_TAKEN && no_structure(entry->smiles))
        fate = FATE_NO_STRUCTURE;
    if (fate != FATE_TAKEN)
        return fate;
    uint64_t skeleton = 0;
    int validation;
    fate = molecule_look(x, entry, &validation, &skeleton, e);
    if (fate != FATE_TAKEN)
        return fate;
    const struct energy energy = energy_choose(x, entry);
    if (!x->like->follows &&
        !molecule_targets_make(&x->targets, &x->molecule, entry->record, &energy))
        return FATE_NO_PEAK;
    hashes_add(&x->skeletons[validation], skeleton);
    return graph_add(x, entry, validation, &energy, e) < 0 ? -1 : fate;
}

/* A row that others are told apart from by its number cannot be left out. */
static int row_refuse(struct molecules *x, int fate, struct err *e)
{
    char where[300], why[64];
    fate_name(fate, why);
    x->source->where(x->source, where, sizeof where);
    if (x->first_why[0])
        return err_set(e, EXIT_CODE_PERMANENT, "%s: cannot become a graph: %s", where,
                       x->first_why);
    if (fate == FATE_ATOMS)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: a molecule of %u atoms; prepare.atoms_max accepts %" PRIu64, where,
                       x->molecule.atoms, x->options->prepare_atoms_max);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s: there is no SMILES of a molecule (%s); each row needs one", where, why);
}

/* ---- the whole source ----------------------------------------------------------------------- */

static int entries_convert(struct molecules *x, struct err *e)
{
    struct molecule_entry entry;
    uint64_t row = 0;
    int more = 0;
    uint64_t most = x->like->follows ? UINT64_MAX : x->options->prepare_rows_max;
    while (x->count[FATE_TAKEN] < most && (more = x->source->next(x->source, &entry, e)) > 0) {
        int fate = entry_take(x, &entry, e);
        if (fate < 0)
            return -1;
        if (fate != FATE_TAKEN && x->like->follows)
            return row_refuse(x, fate, e);
        x->count[fate]++;
        if (++row % PROGRESS_ROWS == 0)
            progress_show(&x->progress, "molecules", "reading", x->source->share);
    }
    return more < 0 ? -1 : 0;
}

static int counts_judge(const struct molecules *x, struct err *e)
{
    uint64_t refused = 0, taken = x->count[FATE_TAKEN];
    for (int i = FATE_MALFORMED; i < FATES; i++)
        refused += x->count[i];
    double limit = x->options->prepare_refused_max;
    if ((double)refused > limit * (double)(refused + taken))
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s: %" PRIu64 " of %" PRIu64 " molecules cannot be used, more than "
                       "prepare.refused_max = %g allows; the first is %s: %s",
                       x->options->data_source, refused, refused + taken, limit, x->first_where,
                       x->first_why);
    uint64_t part[2] = {graphs_counts(x->graphs, 0).graphs, graphs_counts(x->graphs, 1).graphs};
    if ((part[0] || x->like->follows) && part[1])
        return 0;
    if (x->like->follows)
        return err_set(e, EXIT_CODE_PERMANENT, "%s holds no row", x->options->data_source);
    return err_set(e, EXIT_CODE_PERMANENT,
                   "%s gives %" PRIu64 " graphs to train with and %" PRIu64
                   " to evaluate; at least 1 of each is needed (prepare.validation_fraction, "
                   "prepare.split_seed%s)",
                   x->options->data_source, part[0], part[1],
                   x->source->spectra ? ", prepare.adduct" : "");
}

static int names_write(struct molecules *x, struct err *e)
{
    struct h5writer *w = graphs_writer(x->graphs);
    char names[MOLECULE_NAMES_BYTES];
    molecule_node_names(x->node_features > GRAPH_NODE_FEATURES, names);
    if (h5writer_text(w, "", "node_feature_names", names, e) < 0 ||
        h5writer_text(w, "", "edge_feature_names", graph_edge_names, e) < 0)
        return -1;
    return x->like->follows ? 0 : molecule_targets_name(&x->targets, w, e);
}

static int attributes_write(struct molecules *x, const char *stamp, struct err *e)
{
    struct h5writer *w = graphs_writer(x->graphs);
    char name[64];
    if (own_attributes(w, &x->digest, x->options->data_source, stamp, "graph", e) < 0 ||
        names_write(x, e) < 0)
        return -1;
    for (int i = FATE_TAKEN + 1; i < FATES; i++) {
        fate_name(i, name);
        if (i != FATE_MOLECULE + MOLECULE_ACCEPTED && h5writer_u64(w, "", name, x->count[i], e) < 0)
            return -1;
    }
    return 0;
}

static void summary_print(const struct molecules *x, const struct graph_counts part[2],
                          const char *out)
{
    char name[64];
    for (int i = 0; i < 2; i++)
        fprintf(stderr,
                "prepare molecules: %s: %" PRIu64 " graphs of %s%" PRIu64 " molecules, %" PRIu64
                " nodes, %" PRIu64 " edges\n",
                i ? "validation" : "train", part[i].graphs, x->skeletons[i].mask ? "over " : "",
                x->skeletons[i].count, part[i].nodes, part[i].edges);
    for (int i = FATE_TAKEN + 1; i < FATES; i++) {
        fate_name(i, name);
        if (x->count[i])
            fprintf(stderr, "prepare molecules: %s: %" PRIu64 "\n", name, x->count[i]);
    }
    if (x->first_why[0])
        fprintf(stderr, "prepare molecules: the first refused: %s: %s\n", x->first_where,
                x->first_why);
    fprintf(stderr, "prepare molecules: %u node features, %d edge features, targets: %u %s -> %s\n",
            x->node_features, GRAPH_EDGE_FEATURES, x->targets.count,
            molecule_targets_word(&x->targets), out);
}

static int convert(struct molecules *x, const char *out, const char *stamp, struct err *e)
{
    own_digest_options(x->digest, stamp);
    if (x->like->follows && x->source->spectra)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s holds MassBank records; prepare.like accepts a table with a column of "
                       "SMILES",
                       x->options->data_source);
    if (molecule_begin(e) < 0 || x->source->begin(x->source, x->digest, e) < 0 ||
        molecule_targets_open(&x->targets, x->options, x->source->spectra, e) < 0)
        return -1;
    int energy =
        x->source->spectra || x->targets.kind == MOLECULE_IONS || x->options->prepare_energy;
    if (x->like->follows)
        energy = x->like->energy;
    x->node_features = GRAPH_NODE_FEATURES + (energy ? ENERGY_FEATURES : 0);
    const struct graph_shape shape = {x->node_features, GRAPH_EDGE_FEATURES,
                                      x->like->follows ? 0 : x->targets.count, x->like->follows};
    if (graphs_open(&x->graphs, out, &shape, e) < 0 || entries_convert(x, e) < 0 ||
        counts_judge(x, e) < 0 || attributes_write(x, stamp, e) < 0)
        return -1;
    const struct graph_counts part[2] = {graphs_counts(x->graphs, 0), graphs_counts(x->graphs, 1)};
    if (graphs_commit(&x->graphs, out, e) < 0)
        return -1;
    progress_end(&x->progress);
    hashes_seal(&x->skeletons[0]);
    hashes_seal(&x->skeletons[1]);
    summary_print(x, part, out);
    return 0;
}

int molecules_convert(struct molecule_source *s, const struct molecule_like *like, const char *out,
                      const char *stamp, struct err *e)
{
    char hex[65];
    struct molecules *x = calloc(1, sizeof *x);
    if (!x)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", s->options->data_source);
    x->source = s;
    x->like = like;
    x->options = s->options;
    int result = hashes_open(&x->skeletons[0], SKELETONS_MAX, e) < 0 ||
                         hashes_open(&x->skeletons[1], SKELETONS_MAX, e) < 0 ||
                         digest_open(&x->digest, e) < 0
                     ? -1
                     : convert(x, out, stamp, e);
    if (result < 0)
        progress_end(&x->progress);
    graphs_abandon(&x->graphs);
    digest_close(&x->digest, hex);
    hashes_close(&x->skeletons[0]);
    hashes_close(&x->skeletons[1]);
    molecule_memo_clear(&x->memo);
    molecule_targets_close(&x->targets);
    free(x);
    return result;
}
