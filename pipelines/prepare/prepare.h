/* prepare.h - the subcommands of `prepare`, the program that readies a run before any daemon
 * starts.
 *
 * Each takes the arguments that follow the program's name (argv[0] is the subcommand's own name),
 * prints errors as one sentence on standard error, answers --help, and returns the exit code.
 */
#ifndef PIPELINES_PREPARE_H
#define PIPELINES_PREPARE_H

/* prepare idx --source DIR --out FILE [--classes N] [--only LIST] [--rebuild]: idx image files ->
 * dense HDF5. */
int prepare_idx(int argc, char **argv);

/* prepare csv|npy --config FILE --out FILE [--set section.key=value]... [--rebuild]: the table
 * data.source -> dense HDF5, as the options of the section prepare say. */
int prepare_csv(int argc, char **argv);
int prepare_npy(int argc, char **argv);

/* prepare bars --config FILE --out FILE [--set section.key=value]... [--rebuild]: bars of prices
 * (data.source) -> dense HDF5 of several timeframes. */
int prepare_bars(int argc, char **argv);

/* prepare text --config FILE --out FILE [--set section.key=value]... [--rebuild]: the file or
 * directory data.source -> byte tokens. */
int prepare_text(int argc, char **argv);

/* prepare molecules --config FILE --out FILE [--set section.key=value]... [--rebuild]: MassBank
 * records or a table of SMILES (data.source) -> graph HDF5. */
int prepare_molecules(int argc, char **argv);

/* prepare check --config FILE [--set section.key=value]...: print what data.file holds. */
int prepare_check(int argc, char **argv);

/* prepare run --config FILE --run DIR [--rows FILE] [--set section.key=value]...: make or resume a
 * run's directory. */
int prepare_run(int argc, char **argv);

/* prepare bases: print what each process takes before it has work, measured by starting it. */
int prepare_bases(int argc, char **argv);

/* prepare files --config FILE [--set section.key=value]...: print the data files of the tasks. */
int prepare_files(int argc, char **argv);

/* prepare like --config RUN/pipeline.yaml [--task NAME] [--rows FILE]: print the file that new rows
 * follow, and refuse rows that are not like its. */
int prepare_like(int argc, char **argv);

/* prepare times --config FILE --out FILE [--set section.key=value]...: the moments of the rows that
 * evaluate, for predict.sh. */
int prepare_times(int argc, char **argv);

/* prepare get --config FILE [--set section.key=value]... KEY: print one effective option. */
int prepare_get(int argc, char **argv);

#endif
