/* main.c - `prepare`: readies data and run directories before any daemon starts.
 *
 * One subcommand a row below; finetune.sh calls them, and each works by hand as well. Nothing here
 * stays running.
 */
#include <stdio.h>
#include <string.h>

#include "pipelines/prepare/prepare.h"
#include "proto/daemon.h"
#include "proto/err.h"
#include "proto/options.h"

static int options_reference(int argc, char **argv)
{
    if (argc > 1) {
        int help = strcmp(argv[1], "--help") == 0;
        fprintf(help ? stdout : stderr, "usage: prepare options-reference > docs/OPTIONS.md\n");
        return help ? EXIT_CODE_DONE : EXIT_CODE_PERMANENT;
    }
    options_print_docs(stdout);
    return fflush(stdout) == 0 ? EXIT_CODE_DONE : EXIT_CODE_TEMPORARY;
}

static const struct {
    const char *name, *does;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"run", "make or resume a run's directory with its effective pipeline file", prepare_run},
    {"get", "print effective options of a pipeline file", prepare_get},
    {"files", "print the data files of a pipeline file's tasks", prepare_files},
    {"bases", "measure what each process takes of memory before it has work", prepare_bases},
    {"idx", "turn idx image files into the dense HDF5 layout", prepare_idx},
    {"csv", "turn a table as text into the dense HDF5 layout", prepare_csv},
    {"npy", "turn NumPy's arrays into the dense HDF5 layout", prepare_npy},
    {"bars", "turn bars of prices into windows of several timeframes", prepare_bars},
    {"text", "turn files into byte tokens", prepare_text},
    {"molecules", "turn MassBank records or SMILES into the graph HDF5 layout", prepare_molecules},
    {"like", "print which file new rows of a run are prepared like", prepare_like},
    {"times", "write when the rows that evaluate are decided", prepare_times},
    {"check", "print what a pipeline file's data hold, before a long run", prepare_check},
    {"options-reference", "print docs/OPTIONS.md", options_reference},
};

enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void help_print(FILE *out)
{
    fputs("prepare - readies data and run directories before any daemon starts\n\n"
          "usage: prepare COMMAND [arguments]; prepare COMMAND --help\n\n",
          out);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-18s %s\n", commands[i].name, commands[i].does);
    fputs("  --version          version\n\n", out);
    options_print_help(out);
    fputs("\nexample: prepare run --config pipelines/fashion.yaml --run runs/fashion\n", out);
}

int main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        help_print(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_CODE_PERMANENT : EXIT_CODE_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("prepare %s\n", FINETUNED_VERSION);
        return EXIT_CODE_DONE;
    }
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "prepare: there is no command \"%.100s\"; accepted are", argv[1]);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(stderr, "%s %s", i ? "," : "", commands[i].name);
    fputs("\n", stderr);
    return EXIT_CODE_PERMANENT;
}
