/* fatbin.h - the images in nvcc's fat binaries. */
#ifndef MDL_SIM_FATBIN_H
#define MDL_SIM_FATBIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { FATBIN_PTX = 1, FATBIN_SASS = 2 } FatbinKind;

typedef struct {
    uint16_t kind;         /* a FatbinKind, or another */
    uint32_t architecture; /* 80 of sm_80 and compute_80 */
    bool compressed;
    const char *data;
    uint64_t size;
} FatbinImage;

/* One fat binary: header and entries. */
typedef struct {
    const char *data;
    uint64_t size; /* of all of it */
    uint64_t at;   /* of the next entry */
} Fatbin;

/* Opens the fat binary that begins at `data`, of which at most `limit` bytes may be read.
 * false: it is none, or does not fit. */
bool fatbin_open(Fatbin *fatbin, const void *data, uint64_t limit);
/* The next image: 1; at the end: 0; entries that do not fit: -1. */
int fatbin_next(Fatbin *fatbin, FatbinImage *image);
/* The uncompressed PTX that a device would take: of the highest architecture (80: 8.0) up to its
 * own, else of the lowest beyond, which it cannot run; false: there is none. */
bool fatbin_find_ptx(const Fatbin *fatbin, uint32_t architecture, FatbinImage *ptx);

#endif
