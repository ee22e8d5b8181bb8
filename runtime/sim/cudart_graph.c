/* cudart_graph.c - graphs: capture, instances, launches.
 *
 * An instance has a hidden stream for every stream that was captured. A launch puts copies of
 * the nodes into them; each comes after the nodes it was captured after, the first ones after
 * the launching stream's work and the last launch, and the launching stream goes on after all
 * of them. So parallel branches stay unordered, and their races are found.
 */
#include <stdlib.h>
#include <string.h>

#include "capture.h"

typedef struct {
    SimGraph *graph; /* NULL: destroyed */
    SimStream **lanes;
    SimPoint *last; /* the end of the last launch */
    void *caller;
    unsigned long long flags;
} Entry;

typedef struct {
    Entry *entries;
    size_t n;
    HandleKind kind;
    const char *name;
} Table;
static Table graphs = {.kind = HANDLE_GRAPH, .name = "graph"};
static Table execs = {.kind = HANDLE_EXEC, .name = "instantiated graph"};

static void *table_add(Table *t, Entry entry)
{
    Entry *grown = realloc(t->entries, (t->n + 1) * sizeof *grown);
    if (!grown)
        abort();
    t->entries = grown;
    entry.caller = host_thread()->caller;
    t->entries[t->n] = entry;
    return handle_make(t->kind, t->n++);
}

static Entry *table_find(const Table *t, const void *handle, const char *call)
{
    size_t index = handle_index(handle, t->kind);
    if (index < t->n && t->entries[index].graph)
        return &t->entries[index];
    sim_report(SIM_MISUSE, "%s: %p is %s", call, handle,
               index < t->n ? "a destroyed graph" : "no graph of this kind");
    return NULL;
}

static void table_leaks(const Table *t)
{
    char where[256];
    for (size_t i = 0; i < t->n; i++)
        if (t->entries[i].graph) {
            caller_describe(t->entries[i].caller, where, sizeof where);
            sim_report(SIM_LEAK, "%s %zu is never destroyed%s%s", t->name, i,
                       *where ? "\nmade at " : "", where);
        }
}

void graphs_leaks(void)
{
    table_leaks(&graphs);
    table_leaks(&execs);
}

/* ------------------------------------------------------------------------ capturing */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    if ((unsigned)mode > cudaStreamCaptureModeRelaxed)
        API_RETURN(cudaErrorInvalidValue);
    SimStream *s = stream_of_handle(stream, __func__);
    API_RETURN(s ? capture_begin(s, mode) : cudaErrorInvalidResourceHandle);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    SimStream *s = stream_of_handle(stream, __func__);
    SimGraph *graph;
    if (!s || !out)
        API_RETURN(cudaErrorInvalidValue);
    cudaError_t error = capture_end(s, &graph);
    *out = graph ? table_add(&graphs, (Entry){.graph = graph}) : NULL;
    API_RETURN(error);
}

static enum cudaStreamCaptureStatus capture_status(const SimStream *s)
{
    if (!s->capture)
        return cudaStreamCaptureStatusNone;
    return s->capture->invalid ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    const SimStream *s = stream_of_handle(stream, __func__);
    if (!s || !status)
        API_RETURN(cudaErrorInvalidValue);
    *status = capture_status(s);
    API_RETURN(cudaSuccess);
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                     size_t *nnodes)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    const SimStream *s = stream_of_handle(stream, __func__);
    if (!s || !status)
        API_RETURN(cudaErrorInvalidValue);
    *status = capture_status(s);
    if (id)
        *id = s->capture ? s->capture->number : 0;
    if (s->capture && (graph || nodes || edges || nnodes)) {
        sim_report(SIM_UNKNOWN, "%s: the graph and nodes of a capture", __func__);
        API_RETURN(cudaErrorNotSupported);
    }
    API_RETURN(cudaSuccess);
}

cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    if (!mode || (unsigned)*mode > cudaStreamCaptureModeRelaxed)
        API_RETURN(cudaErrorInvalidValue);
    *mode = capture_mode_exchange(*mode);
    API_RETURN(cudaSuccess);
}

/* --------------------------------------------------------------------------- graphs */

cudaError_t cudaGraphCreate(cudaGraph_t *out, unsigned flags)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    if (!out || flags != 0)
        API_RETURN(cudaErrorInvalidValue);
    *out = table_add(&graphs, (Entry){.graph = graph_new()});
    API_RETURN(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    API(SIM_CALL_FREE, cudaErrorUnknown);
    Entry *e = table_find(&graphs, graph, __func__);
    if (!e)
        API_RETURN(cudaErrorInvalidValue);
    graph_release(e->graph);
    e->graph = NULL;
    API_RETURN(cudaSuccess);
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    const Entry *e = table_find(&graphs, graph, __func__);
    if (!e || !n)
        API_RETURN(cudaErrorInvalidValue);
    size_t count = (size_t)e->graph->nnodes;
    for (size_t i = 0; nodes && i < *n; i++)
        nodes[i] = i < count ? handle_make(HANDLE_NODE, i) : NULL;
    if (!nodes || *n > count)
        *n = count;
    API_RETURN(cudaSuccess);
}

static cudaError_t instantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags,
                               const char *call)
{
    const Entry *e = table_find(&graphs, graph, call);
    if (!e || !out)
        return cudaErrorInvalidValue;
    if (flags & ~(unsigned long long)cudaGraphInstantiateFlagUseNodePriority) {
        sim_report(SIM_UNKNOWN, "%s with flags 0x%llx", call, flags);
        return cudaErrorNotSupported;
    }
    SimGraph *g = e->graph;
    SimStream **lanes = calloc((size_t)g->nlanes + 1, sizeof *lanes);
    for (int i = 0; lanes && i < g->nlanes; i++) {
        lanes[i] = stream_new(g->lane_device[i], cudaStreamNonBlocking, 0, true);
        if (!lanes[i])
            abort();
    }
    if (!lanes)
        return cudaErrorMemoryAllocation;
    g->refs++;
    *out = table_add(&execs, (Entry){.graph = g, .lanes = lanes, .flags = flags});
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(instantiate(out, graph, flags, __func__));
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph,
                                          unsigned long long flags)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(instantiate(out, graph, flags, __func__));
}

cudaError_t cudaGraphInstantiateWithParams(cudaGraphExec_t *out, cudaGraph_t graph,
                                           cudaGraphInstantiateParams *params)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    if (!params)
        API_RETURN(cudaErrorInvalidValue);
    cudaError_t error = instantiate(out, graph, params->flags, __func__);
    params->errNode_out = NULL;
    params->result_out =
        error == cudaSuccess ? cudaGraphInstantiateSuccess : cudaGraphInstantiateError;
    API_RETURN(error);
}

cudaError_t cudaGraphExecGetFlags(cudaGraphExec_t exec, unsigned long long *flags)
{
    API(SIM_CALL_QUERY, cudaErrorUnknown);
    const Entry *e = table_find(&execs, exec, __func__);
    if (!e || !flags)
        API_RETURN(cudaErrorInvalidValue);
    *flags = e->flags;
    API_RETURN(cudaSuccess);
}

/* What is pending of it is finished by and by. */
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    API(SIM_CALL_FREE, cudaErrorUnknown);
    Entry *e = table_find(&execs, exec, __func__);
    if (!e)
        API_RETURN(cudaErrorInvalidValue);
    for (int i = 0; i < e->graph->nlanes; i++)
        stream_retire(e->lanes[i]);
    point_drop(e->last);
    free(e->lanes);
    graph_release(e->graph);
    *e = (Entry){0};
    API_RETURN(cudaSuccess);
}

/* ------------------------------------------------------------------------- launches */

static SimOp *op_copy(const SimOp *from)
{
    SimOp *op = sim_op_new(from->kind, from->size, "%s", from->name);
    if (from->size)
        memcpy(op->data, from->data, from->size);
    op->begin = from->begin;
    op->can_begin = from->can_begin;
    op->waits_for = from->waits_for;
    op->ready = from->ready;
    op->run = from->run;
    op->prepare = from->prepare;
    op->caller = from->caller;
    op->host_sees = from->host_sees;
    return op;
}

static void launch(Entry *e, SimStream *s)
{
    const SimGraph *g = e->graph;
    SimPoint **points = calloc((size_t)g->nnodes + 1, sizeof(SimPoint *));
    SimOp *begin = sim_op_new(SIM_OP_WAIT, 0, "cudaGraphLaunch (begin)");
    SimOp *end = sim_op_new(SIM_OP_WAIT, 0, "cudaGraphLaunch (end)");
    if (!points)
        abort();
    begin->caller = end->caller = host_thread()->caller;
    if (e->last)
        op_after_point(begin, e->last);
    stream_push(s, begin);
    for (int i = 0; i < g->nnodes; i++) {
        const GraphNode *node = &g->nodes[i];
        SimStream *lane = e->lanes[node->lane];
        SimOp *op = op_copy(node->op);
        for (int j = 0; j < node->nafter; j++)
            op_after_point(op, points[node->after[j]]);
        if (node->nafter == 0)
            op_after_stream(op, s);
        stream_push(lane, op);
        points[i] = point_keep(stream_tail_point(lane));
        op_after_point(end, points[i]);
    }
    stream_push(s, end);
    point_drop(e->last);
    e->last = point_keep(stream_tail_point(s));
    for (int i = 0; i < g->nnodes; i++)
        point_drop(points[i]);
    free(points);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    SimStream *s = stream_of_handle(stream, __func__);
    Entry *e = s ? table_find(&execs, exec, __func__) : NULL;
    if (!e)
        API_RETURN(cudaErrorInvalidValue);
    if (capture_active(s)) {
        sim_report(SIM_UNKNOWN, "%s in a captured stream", __func__);
        API_RETURN(cudaErrorNotSupported);
    }
    launch(e, s);
    API_RETURN(cudaSuccess);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    bool known = table_find(&execs, exec, __func__) && stream_of_handle(stream, __func__);
    API_RETURN(known ? cudaSuccess : cudaErrorInvalidValue);
}
