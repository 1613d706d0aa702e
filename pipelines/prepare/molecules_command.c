/* molecules_command.c - `prepare molecules`: MassBank records or SMILES become the graph HDF5 file.
 */
#include <stdio.h>
#include <stdlib.h>

#include "pipelines/prepare/molecules.h"
#include "pipelines/prepare/own.h"
#include "pipelines/prepare/prepare.h"

struct command {
    struct molecule_source *source;
    struct molecule_like like;
};

static void command_close(void *self)
{
    struct command *c = self;
    if (c->source)
        c->source->close(c->source);
    free(c);
}

static int command_open(void **self_p, const struct options *o, struct err *e)
{
    struct command *c = calloc(1, sizeof *c);
    if (!c)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot read %s", o->data_source);
    if (molecule_like_read(&c->like, o->prepare_like, e) < 0 ||
        molecule_source_open(&c->source, o, e) < 0) {
        command_close(c);
        return -1;
    }
    *self_p = c;
    return 0;
}

static int stamp_write(void *self, char *stamp, size_t bytes, struct err *e)
{
    const struct command *c = self;
    const struct molecule_source *s = c->source;
    const struct options *o = s->options;
    int used =
        snprintf(stamp, bytes,
                 "molecules smiles=%s inchikey=%s header=%s delimiter=%s compute=%s descriptors=%s "
                 "adduct=%s "
                 "bin_da=%.17g mz_max=%.17g intensity=%s refused_max=%.17g fraction=%.17g "
                 "seed=%llu energy=%d atoms_max=%llu rows_max=%llu%s%s\n"
                 "%llu files %llu bytes %s",
                 o->prepare_smiles, o->prepare_inchikey, o->prepare_header, o->prepare_delimiter,
                 o->prepare_compute, o->prepare_descriptors, o->prepare_adduct, o->prepare_bin_da,
                 o->prepare_mz_max, o->prepare_intensity, o->prepare_refused_max,
                 o->prepare_validation_fraction, (unsigned long long)o->prepare_split_seed,
                 o->prepare_energy, (unsigned long long)o->prepare_atoms_max,
                 (unsigned long long)o->prepare_rows_max, c->like.follows ? " like=" : "",
                 c->like.fingerprint, (unsigned long long)s->files.count,
                 (unsigned long long)s->files.stored_bytes, s->files.digest);
    return used < (int)bytes
               ? 0
               : err_set(e, EXIT_CODE_PERMANENT, "the options of the section prepare are too long");
}

static int file_make(void *self, const char *out, const char *stamp, struct err *e)
{
    const struct command *c = self;
    return molecules_convert(c->source, &c->like, out, stamp, e);
}

int prepare_molecules(int argc, char **argv)
{
    static const struct maker molecules = {
        .name = "molecules",
        .does = "Turns molecules into graphs: MassBank records (a file, also compressed with zstd, "
                "or a directory\nof .txt files) with their spectra as targets, or a table with a "
                "column of SMILES with numbers\nabout the molecule or computed spectra. Groups "
                "train and validation, "
                "each with node_features, edge_index,\nedge_features, node_ptr, edge_ptr and "
                "targets. No molecule is in both.",
        .version = MOLECULES_VERSION,
        .open = command_open,
        .stamp = stamp_write,
        .make = file_make,
        .close = command_close,
    };
    return own_prepare(argc, argv, &molecules);
}
