/* capture.c - stream capture: operations are kept in a graph instead of being queued.
 *
 * A captured stream knows the nodes that its next operation comes after: its last one, and
 * those that the events it waited for were recorded after. A stream that waits for an event
 * recorded in a capture joins the capture, and must be joined to the first stream again
 * before the capture ends.
 */
#include <stdlib.h>

#include "capture.h"

static SimCapture *captures;
static uint64_t numbers;
static _Thread_local enum cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

SimGraph *graph_new(void)
{
    SimGraph *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    g->refs = 1;
    return g;
}

void graph_release(SimGraph *g)
{
    if (!g || --g->refs > 0)
        return;
    for (int i = 0; i < g->nnodes; i++) {
        op_free(g->nodes[i].op);
        free(g->nodes[i].after);
    }
    free(g->nodes);
    free(g->lane_device);
    free(g);
}

static void *grown(void *array, int n, size_t size)
{
    void *larger = realloc(array, ((size_t)n + 1) * size);
    if (!larger)
        abort();
    return larger;
}

/* -------------------------------------------------------------- streams in a capture */

bool capture_active(const SimStream *s)
{
    return s->capture != NULL;
}

static void tail_add(SimStream *s, int node)
{
    for (int i = 0; i < s->ncapture_tail; i++)
        if (s->capture_tail[i] == node)
            return;
    s->capture_tail = grown(s->capture_tail, s->ncapture_tail, sizeof *s->capture_tail);
    s->capture_tail[s->ncapture_tail++] = node;
}

static void stream_join(SimStream *s, SimCapture *c)
{
    SimGraph *g = c->graph;
    s->capture = c;
    s->ncapture_tail = 0;
    s->capture_lane = g->nlanes;
    g->lane_device = grown(g->lane_device, g->nlanes, sizeof *g->lane_device);
    g->lane_device[g->nlanes++] = s->device;
}

static void capture_close(SimCapture *c)
{
    SimCapture **at = &captures;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    for (SimStream *s = streams_first(); s; s = s->next)
        if (s->capture == c) {
            s->capture = NULL;
            s->ncapture_tail = 0;
        }
    free(c);
}

cudaError_t capture_begin(SimStream *s, enum cudaStreamCaptureMode mode)
{
    if (s->legacy)
        return cudaErrorStreamCaptureUnsupported;
    if (s->capture)
        return cudaErrorIllegalState;
    SimCapture *c = calloc(1, sizeof *c);
    if (!c)
        return cudaErrorMemoryAllocation;
    c->graph = graph_new();
    c->origin = s;
    c->mode = mode;
    c->thread = host_thread();
    c->number = ++numbers;
    c->next = captures;
    captures = c;
    stream_join(s, c);
    return cudaSuccess;
}

bool capture_take(SimStream *s, SimOp *op)
{
    if (s->legacy && captures)
        capture_forbids_stream(s);
    if (!s->capture)
        return false;
    SimGraph *g = s->capture->graph;
    g->nodes = grown(g->nodes, g->nnodes, sizeof *g->nodes);
    GraphNode *node = &g->nodes[g->nnodes];
    *node = (GraphNode){.op = op, .lane = s->capture_lane, .nafter = s->ncapture_tail};
    node->after = grown(NULL, s->ncapture_tail, sizeof *node->after);
    for (int i = 0; i < s->ncapture_tail; i++)
        node->after[i] = s->capture_tail[i];
    s->ncapture_tail = 0;
    tail_add(s, g->nnodes++);
    return true;
}

/* ------------------------------------------------------------------------- events */

void capture_record(SimStream *s, SimEvent *e)
{
    e->capture_number = s->capture->number;
    free(e->nodes);
    e->nodes = grown(NULL, s->ncapture_tail, sizeof *e->nodes);
    e->nnodes = s->ncapture_tail;
    for (int i = 0; i < e->nnodes; i++)
        e->nodes[i] = s->capture_tail[i];
}

cudaError_t capture_wait(SimStream *s, SimEvent *e)
{
    SimCapture *c = captures;
    while (c && c->number != e->capture_number)
        c = c->next;
    if (e->capture_number == 0) {
        s->capture->invalid = true;
        return cudaErrorStreamCaptureIsolation;
    }
    if (!c)
        return cudaErrorCapturedEvent;
    if (s->legacy)
        return cudaErrorStreamCaptureImplicit;
    if (!s->capture)
        stream_join(s, c);
    if (s->capture != c) {
        s->capture->invalid = c->invalid = true;
        return cudaErrorStreamCaptureMerge;
    }
    for (int i = 0; i < e->nnodes; i++)
        tail_add(s, e->nodes[i]);
    return cudaSuccess;
}

/* ------------------------------------------------------------- what is not allowed */

enum cudaStreamCaptureMode capture_mode_exchange(enum cudaStreamCaptureMode mode)
{
    enum cudaStreamCaptureMode old = thread_mode;
    thread_mode = mode;
    return old;
}

cudaError_t capture_forbids(void)
{
    cudaError_t error = cudaSuccess;
    if (thread_mode == cudaStreamCaptureModeRelaxed)
        return cudaSuccess;
    for (SimCapture *c = captures; c; c = c->next) {
        bool mine = c->thread == host_thread();
        if (mine ? c->mode == cudaStreamCaptureModeRelaxed
                 : c->mode != cudaStreamCaptureModeGlobal ||
                       thread_mode != cudaStreamCaptureModeGlobal)
            continue;
        c->invalid = true;
        error = cudaErrorStreamCaptureUnsupported;
    }
    return error;
}

/* Waiting for a captured stream, or work in the NULL stream, which comes after the work of
 * captured streams that block. */
cudaError_t capture_forbids_stream(SimStream *s)
{
    if (s->capture) {
        s->capture->invalid = true;
        return cudaErrorStreamCaptureUnsupported;
    }
    for (SimStream *other = streams_first(); s->legacy && other; other = other->next)
        if (other->capture && other->device == s->device &&
            !(other->flags & cudaStreamNonBlocking)) {
            other->capture->invalid = true;
            return cudaErrorStreamCaptureImplicit;
        }
    return cudaSuccess;
}

/* ------------------------------------------------------------------------ the end */

void capture_abandon(SimStream *s)
{
    SimCapture *c = s->capture;
    if (!c)
        return;
    c->invalid = true;
    if (c->origin == s) {
        graph_release(c->graph);
        capture_close(c);
    }
    s->capture = NULL;
}

/* Whether all that was captured comes before the end of the first stream. Nodes come after
 * nodes of smaller numbers only. */
static bool capture_joined(const SimCapture *c)
{
    const SimGraph *g = c->graph;
    bool *reached = calloc((size_t)g->nnodes + 1, sizeof *reached), all = true;
    if (!reached)
        abort();
    for (int i = 0; i < c->origin->ncapture_tail; i++)
        reached[c->origin->capture_tail[i]] = true;
    for (int i = g->nnodes - 1; i >= 0; i--) {
        for (int j = 0; reached[i] && j < g->nodes[i].nafter; j++)
            reached[g->nodes[i].after[j]] = true;
        all = all && reached[i];
    }
    free(reached);
    return all;
}

cudaError_t capture_end(SimStream *s, SimGraph **graph)
{
    SimCapture *c = s->capture;
    cudaError_t error = cudaSuccess;
    *graph = NULL;
    if (!c || c->origin != s)
        return c ? cudaErrorStreamCaptureUnmatched : cudaErrorIllegalState;
    if (c->thread != host_thread() && c->mode != cudaStreamCaptureModeRelaxed)
        return cudaErrorStreamCaptureWrongThread;
    if (c->invalid)
        error = cudaErrorStreamCaptureInvalidated;
    else if (!capture_joined(c))
        error = cudaErrorStreamCaptureUnjoined;
    if (error == cudaSuccess)
        *graph = c->graph;
    else
        graph_release(c->graph);
    capture_close(c);
    return error;
}
