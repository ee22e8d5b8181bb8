/* test_samples.c - PTX that nvcc made: all of it is understood and compiles. */
#include <stdio.h>
#include <stdlib.h>

#include "translate_stand.h"

int main(int argc, char **argv)
{
    int unknown = 0;
    for (int i = 1; i < argc; i++) {
        size_t size;
        char *ptx = stand_read(argv[i], &size);
        const SimModuleTable *table = stand_load(ptx);
        free(ptx);
        if (!table || table->nkernels == 0) {
            printf("%s: no kernels\n", argv[i]);
            return 1;
        }
        for (uint32_t k = 0; k < table->nkernels; k++)
            if (table->kernels[k].unknown || !table->kernels[k].run) {
                printf("%s: %s\n", argv[i], table->kernels[k].unknown);
                unknown++;
            }
    }
    return unknown != 0 || argc < 2;
}
