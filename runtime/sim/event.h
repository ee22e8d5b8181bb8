/* event.h - events: the latest record of each, in a stream or in a capture. */
#ifndef MDL_SIM_EVENT_H
#define MDL_SIM_EVENT_H

#include "host.h"

typedef struct SimEvent {
    int device;
    unsigned number, flags;
    bool destroyed;
    SimPoint *record;        /* NULL: never recorded */
    uint64_t capture_number; /* of the capture that it was last recorded in; 0: in none */
    int *nodes;              /* what it was recorded after there */
    int nnodes;
    void *caller;
} SimEvent;
SimEvent *event_of_handle(cudaEvent_t handle, const char *call);
char *event_describe(const SimEvent *event, char *out, size_t size);

/* capture.c */
/* cudaEventRecord in a captured stream. */
void capture_record(SimStream *stream, SimEvent *event);
/* cudaStreamWaitEvent where the stream or the event's record is captured. */
cudaError_t capture_wait(SimStream *stream, SimEvent *event);

#endif
