/* molecules_command.c - `prepare molecules`: MassBank records or SMILES become the graph HDF5 file.
 */
#include <stdio.h>

#include "pipelines/prepare/molecules.h"
#include "pipelines/prepare/own.h"
#include "pipelines/prepare/prepare.h"

static int source_open(void **self_p, const struct options *o, struct err *e)
{
    return molecule_source_open((struct molecule_source **)self_p, o, e);
}

static int stamp_write(void *self, char *stamp, size_t bytes, struct err *e)
{
    const struct molecule_source *s = self;
    const struct options *o = s->options;
    int used =
        snprintf(stamp, bytes,
                 "molecules smiles=%s inchikey=%s header=%s delimiter=%s compute=%s descriptors=%s "
                 "adduct=%s "
                 "bin_da=%.17g mz_max=%.17g intensity=%s refused_max=%.17g fraction=%.17g "
                 "seed=%llu energy=%d atoms_max=%llu rows_max=%llu\n"
                 "%llu files %llu bytes %s",
                 o->prepare_smiles, o->prepare_inchikey, o->prepare_header, o->prepare_delimiter,
                 o->prepare_compute, o->prepare_descriptors, o->prepare_adduct, o->prepare_bin_da,
                 o->prepare_mz_max, o->prepare_intensity, o->prepare_refused_max,
                 o->prepare_validation_fraction, (unsigned long long)o->prepare_split_seed,
                 o->prepare_energy, (unsigned long long)o->prepare_atoms_max,
                 (unsigned long long)o->prepare_rows_max, (unsigned long long)s->files.count,
                 (unsigned long long)s->files.stored_bytes, s->files.digest);
    return used < (int)bytes
               ? 0
               : err_set(e, EXIT_CODE_PERMANENT, "the options of the section prepare are too long");
}

static int file_make(void *self, const char *out, const char *stamp, struct err *e)
{
    return molecules_convert(self, out, stamp, e);
}

static void source_close(void *self)
{
    struct molecule_source *s = self;
    s->close(s);
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
        .open = source_open,
        .stamp = stamp_write,
        .make = file_make,
        .close = source_close,
    };
    return own_prepare(argc, argv, &molecules);
}
