/* reader_base.h - what a reader takes of memory before it has any work. */
#ifndef LOADERD_READER_BASE_H
#define LOADERD_READER_BASE_H

/* `loaderd --base reader`: opens a tiny file as a reader does and prints "base.reader=<bytes>", its
 * private memory then (what it shares is counted in loaderd's). Returns the exit code. */
int reader_base_main(void);

#endif
