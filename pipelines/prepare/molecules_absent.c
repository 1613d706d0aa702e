/* molecules_absent.c - `prepare molecules` of a build without the chemistry libraries (make
 * CHEMISTRY=0, which is what make takes where Open Babel's headers or g++ are not installed): it
 * says what is missing. Everything else works without.
 */
#include <stdio.h>

#include "pipelines/prepare/prepare.h"
#include "proto/err.h"

int prepare_molecules(int argc, char **argv)
{
    (void)argc;
    fprintf(stderr,
            "prepare %s: cannot read molecules: this build has no chemistry library; install "
            "libopenbabel-dev, libinchi-dev and g++, and run make again\n",
            argv[0]);
    return EXIT_CODE_PERMANENT;
}
