/* capture.h - graphs: operations with what they come after, and the captures that make them. */
#ifndef MDL_SIM_CAPTURE_H
#define MDL_SIM_CAPTURE_H

#include "event.h"
#include "host.h"

typedef struct {
    SimOp *op; /* never run itself: launches run copies of it */
    int lane;  /* which of the graph's streams it was captured in */
    int *after, nafter;
} GraphNode;

/* Shared by a cudaGraph_t and those instantiated from it. */
typedef struct {
    int refs;
    GraphNode *nodes;
    int nnodes, nlanes;
    int *lane_device;
} SimGraph;

struct SimCapture {
    SimGraph *graph;
    SimStream *origin;
    enum cudaStreamCaptureMode mode;
    const HostThread *thread;
    uint64_t number;
    bool invalid;
    struct SimCapture *next;
};

SimGraph *graph_new(void);
void graph_release(SimGraph *graph);
cudaError_t capture_begin(SimStream *stream, enum cudaStreamCaptureMode mode);
/* *graph is NULL after an error. */
cudaError_t capture_end(SimStream *stream, SimGraph **graph);
enum cudaStreamCaptureMode capture_mode_exchange(enum cudaStreamCaptureMode mode);

#endif
