/* device_limits.h - what the simulated devices are like. */
#ifndef MDL_SIM_DEVICE_LIMITS_H
#define MDL_SIM_DEVICE_LIMITS_H

typedef struct {
    const char *name;
    int multiprocessors;
    int shared, shared_optin; /* bytes per multiprocessor, and of one block at most */
    int threads, blocks;      /* per multiprocessor */
    int l2_bytes, clock_khz;
} DeviceLimits;
const DeviceLimits *device_limits(void);

#endif
