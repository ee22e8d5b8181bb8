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
        StandModule *module = stand_load(ptx);
        free(ptx);
        uint32_t n = 0;
        for (uint32_t k = 0; module && k < stand_ptx(module)->nfunctions; k++) {
            const PtxFunction *f = &stand_ptx(module)->functions[k];
            if (!f->entry)
                continue;
            const SimKernelTable *kernel = stand_kernel(module, f->name->text);
            n++;
            if (!kernel || kernel->unknown || !kernel->run) {
                printf("%s: %s\n", argv[i], kernel ? kernel->unknown : stand_report());
                unknown++;
            }
        }
        if (n == 0) {
            printf("%s: no kernels\n%s\n", argv[i], stand_report());
            return 1;
        }
    }
    return unknown != 0 || argc < 2;
}
