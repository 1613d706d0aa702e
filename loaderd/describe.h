/* describe.h - `loaderd --describe`: what the splits of a pipeline's data file deliver, for the
 * plan. */
#ifndef LOADERD_DESCRIBE_H
#define LOADERD_DESCRIBE_H

/* argv after the program's name: --describe --config FILE [--set section.key=value]... Prints
 * key=value lines, those of the two splits prefixed train. and validation., and returns the exit
 * code. */
int describe_main(int argc, char **argv);

#endif
