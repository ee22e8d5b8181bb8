/* catalogue.h - devices that people have, by name. */
#ifndef MDLC_CATALOGUE_H
#define MDLC_CATALOGUE_H

#include <stdint.h>

typedef struct DeviceType {
    const char *name;
    int64_t memory;   /* bytes; 0: no limit */
    double compute;   /* FLOP/s of dense products in f32, which trainers never do in TF32 */
    double half;      /* … in bf16 or f16, added up in f32 */
    double bandwidth; /* bytes/s of the device's memory */
    double link;      /* bytes/s between two devices of one node, one way */
    double latency;   /* s, of a message between them */
    double call;      /* s, to begin a kernel */
    double host_link; /* bytes/s to the host's memory, one way; 0: it is the host's memory */
} DeviceType;

extern const DeviceType catalogue[];
extern const int catalogue_size;

const DeviceType *catalogue_find(const char *name); /* NULL: not there */

/* A core of a processor: what is assumed where neither the model nor the target says more. It has
 * no name. */
extern const DeviceType catalogue_core;

#endif
