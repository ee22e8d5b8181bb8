/* cudart_copy.c - copies and fills.
 *
 * A copy is an operation with two ranges. What the host may not rely on is made visible: a
 * copy from pinned memory that changes before the copy has run is reported, and the
 * destination of a pending copy to the host holds NaNs until then. Pageable memory is staged
 * when the call is made, or copied to before it returns; but CUDA does not say of a copy from
 * it that it is over when the call returns, nor of an asynchronous one to it, and so other
 * streams have to wait for these.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "functions.h"
#include "host.h"

enum { PARTS = 64 }; /* of a source: each has a hash */

typedef struct {
    uint64_t to, from, to_pitch, from_pitch, width, height;
    int to_device, from_device; /* as the call says; -1: any */
    bool synchronous, hashed;
    uint64_t hash[PARTS];
    void *staged; /* the source's bytes, packed, as they were at the call */
} CopyData;

static bool is_device(uint64_t address)
{
    return sim_device_of(address) >= 0;
}

static bool is_pageable(uint64_t address)
{
    return !is_device(address) && !pinned_find(address, 1);
}

/* The bytes or rows of a part of the source: where it begins and, of the next one, the end. */
static uint64_t part_begin(const CopyData *c, int part)
{
    uint64_t n = c->height == 1 ? c->width : c->height;
    return n / PARTS * (uint64_t)part + n % PARTS * (uint64_t)part / PARTS;
}

static uint64_t part_hash(const CopyData *c, int part)
{
    uint64_t hash = 0, end = part_begin(c, part + 1);
    const char *source = (const char *)(uintptr_t)c->from;
    if (c->height == 1)
        return XXH3_64bits(source + part_begin(c, part), end - part_begin(c, part));
    for (uint64_t i = part_begin(c, part); i < end; i++)
        hash = XXH3_64bits_withSeed(source + i * c->from_pitch, c->width, hash);
    return hash;
}

static bool overlap(uint64_t a, uint64_t na, uint64_t b, uint64_t nb)
{
    return a < b + nb && b < a + na;
}

static void copy_prepare(SimOp *op);

/* Whether a pending operation may access the range: a copy tells; a host function may do
 * anything; of others, every word of their data may be an address in the same piece of memory. */
static bool op_may_use(const SimOp *op, uint64_t address, uint64_t bytes)
{
    const SimBlockOfMemory *b = pinned_find(address, bytes);
    const uint64_t *words = op->data;
    if (op->kind == SIM_OP_CALLBACK)
        return true;
    if (op->prepare == copy_prepare) {
        const CopyData *c = op->data;
        return overlap(address, bytes, c->from, (c->height - 1) * c->from_pitch + c->width) ||
               overlap(address, bytes, c->to, (c->height - 1) * c->to_pitch + c->width);
    }
    for (size_t i = 0; i < op->size / sizeof *words; i++)
        if (words[i] >= b->address && words[i] - b->address < b->size)
            return true;
    return false;
}

static bool pinned_idle(uint64_t address, uint64_t bytes)
{
    if (!pinned_find(address, bytes))
        return false;
    for (const SimStream *s = streams_first(); s; s = s->next)
        for (const SimOp *op = s->head; op; op = op->next)
            if (op_may_use(op, address, bytes))
                return false;
    return true;
}

/* What the host's side of an asynchronous copy looks like until it has run. */
static void copy_prepare(SimOp *op)
{
    CopyData *c = op->data;
    uint64_t from_bytes = (c->height - 1) * c->from_pitch + c->width;
    uint64_t to_bytes = (c->height - 1) * c->to_pitch + c->width;
    if (c->synchronous)
        return;
    if (is_pageable(c->from)) {
        c->staged = malloc(c->width * c->height);
        if (!c->staged)
            abort();
        for (uint64_t i = 0; i < c->height; i++)
            memcpy((char *)c->staged + i * c->width,
                   (const void *)(uintptr_t)(c->from + i * c->from_pitch), c->width);
    } else if (pinned_idle(c->from, from_bytes)) {
        for (int i = 0; i < PARTS; i++)
            c->hash[i] = part_hash(c, i);
        c->hashed = true;
    }
    if (pinned_idle(c->to, to_bytes))
        for (uint64_t i = 0; i < c->height; i++)
            memset((void *)(uintptr_t)(c->to + i * c->to_pitch), 0xFF, c->width);
}

static bool copy_devices_fit(const SimOp *op, const CopyData *c)
{
    int to = sim_device_of(c->to), from = sim_device_of(c->from);
    bool to_wrong = c->to_device >= 0 && to >= 0 && to != c->to_device;
    bool from_wrong = c->from_device >= 0 && from >= 0 && from != c->from_device;
    char place[512];
    if (to_wrong || from_wrong)
        sim_report(SIM_WRONG_DEVICE, "%s: the %s is given as gpu %d's but lies on gpu %d\nin %s",
                   op->name, to_wrong ? "destination" : "source",
                   to_wrong ? c->to_device : c->from_device, to_wrong ? to : from,
                   sim_op_describe(op, place, sizeof place));
    return !to_wrong && !from_wrong;
}

/* Reports the first part of the source that is not as it was at the call. */
static void copy_source_check(const SimOp *op)
{
    const CopyData *c = op->data;
    char place[512], text[256];
    int part = 0;
    while (part < PARTS && part_hash(c, part) == c->hash[part])
        part++;
    if (part == PARTS)
        return;
    uint64_t step = c->height == 1 ? 1 : c->from_pitch;
    uint64_t first = part_begin(c, part) * step, end = part_begin(c, part + 1) * step;
    sim_report(SIM_HOST_RACE,
               "%s: the source changed between the call and the copy, in its bytes %llu to %llu, "
               "from %s\nin %s\nwait for the copy before writing to its source",
               op->name, (unsigned long long)first, (unsigned long long)(end - 1),
               sim_memory_describe(c->from + first, text, sizeof text),
               sim_op_describe(op, place, sizeof place));
}

/* CUDA wants no row of the source to overlap one of the destination. Only the two rows of the
 * destination around the beginning of a row can. */
static bool copy_overlaps(const CopyData *c)
{
    for (uint64_t i = 0; i < c->height; i++) {
        uint64_t row = c->from + i * c->from_pitch;
        uint64_t first = row > c->to ? (row - c->to) / c->to_pitch : 0;
        for (uint64_t j = first; j < first + 2 && j < c->height; j++)
            if (overlap(row, c->width, c->to + j * c->to_pitch, c->width))
                return true;
    }
    return false;
}

static void copy_overlap_check(const SimOp *op)
{
    const CopyData *c = op->data;
    char place[512], text[256];
    if (copy_overlaps(c))
        sim_report(SIM_MISUSE,
                   "%s: source and destination overlap; the destination begins at %s\nin %s",
                   op->name, sim_memory_describe(c->to, text, sizeof text),
                   sim_op_describe(op, place, sizeof place));
}

static void copy_run(SimOp *op)
{
    CopyData *c = op->data;
    void *from = c->staged, *to = NULL;
    uint64_t pitch = c->staged ? c->width : c->from_pitch;
    if (!copy_devices_fit(op, c))
        return;
    if (!from)
        from = range_check(op, c->from, c->width, c->from_pitch, c->height, SIM_READ, true, true,
                           "the source");
    if (from)
        to = range_check(op, c->to, c->width, c->to_pitch, c->height, SIM_WRITE, true, true,
                         "the destination");
    if (to && c->hashed)
        copy_source_check(op);
    if (to && !c->staged)
        copy_overlap_check(op);
    for (uint64_t i = 0; to && i < c->height; i++)
        memmove((char *)to + i * c->to_pitch, (const char *)from + i * pitch, c->width);
    free(c->staged);
    c->staged = NULL;
}

/* -- which way a copy goes */

static cudaError_t copy_direction(uint64_t to, uint64_t from, enum cudaMemcpyKind kind)
{
    bool to_host = kind == cudaMemcpyHostToHost || kind == cudaMemcpyDeviceToHost;
    bool from_host = kind == cudaMemcpyHostToHost || kind == cudaMemcpyHostToDevice;
    if (kind == cudaMemcpyDefault)
        return cudaSuccess;
    if ((unsigned)kind > cudaMemcpyDefault)
        return cudaErrorInvalidMemcpyDirection;
    if (to_host ? is_device(to) : is_pageable(to))
        return cudaErrorInvalidValue;
    if (from_host ? is_device(from) : is_pageable(from))
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

typedef struct {
    const char *call;
    CopyData data;
    cudaStream_t stream;
    bool asynchronous;
} Copy;

/* The call without a stream comes after everything of both devices, and before what their
 * NULL streams order. */
static void copy_after_devices(SimOp *op, int to_device, int from_device)
{
    for (SimStream *s = streams_first(); s; s = s->next)
        if (s->device == to_device || s->device == from_device)
            op_after_stream(op, s);
}

/* What has happened to a copy when its call returns. */
typedef enum {
    COPY_PENDING, /* nothing; also where a synchronous call copies within devices */
    COPY_STAGED,  /* the source was read; what came before the copy is over */
    COPY_RUN,     /* it has run, as the host can see, but may not rely on */
    COPY_OVER
} CopyProgress;

static CopyProgress copy_progress(const Copy *request, const SimStream *s)
{
    bool to_host = !is_device(request->data.to), from_host = !is_device(request->data.from);
    if (capture_active(s) || (!to_host && !from_host))
        return COPY_PENDING;
    if (to_host && (from_host || !request->asynchronous))
        return COPY_OVER;
    if (to_host)
        return is_pageable(request->data.to) ? COPY_RUN : COPY_PENDING;
    if (request->asynchronous)
        return COPY_PENDING;
    return is_pageable(request->data.from) ? COPY_STAGED : COPY_OVER;
}

/* The host waits until the stream's turn has come. */
static cudaError_t copy_turn(SimStream *s, const char *call)
{
    sim_enqueue(s, sim_op_new(SIM_OP_WAIT, 0, "%s (begin)", call));
    return wait_for_stream(s, call);
}

static cudaError_t copy(const Copy *request)
{
    CopyData data = request->data;
    if (data.width == 0 || data.height == 0)
        return cudaSuccess;
    if (data.to == 0 || data.from == 0)
        return cudaErrorInvalidValue;
    if (data.height > 1 && (data.width > data.to_pitch || data.width > data.from_pitch))
        return cudaErrorInvalidPitchValue;
    SimStream *s = stream_of_handle(request->stream, request->call);
    if (!s)
        return cudaErrorInvalidResourceHandle;
    CopyProgress progress = copy_progress(request, s);
    if (!request->asynchronous) {
        cudaError_t error = capture_forbids_stream(s);
        error = error == cudaSuccess ? capture_forbids() : error;
        if (error != cudaSuccess)
            return error;
    }
    if (progress == COPY_STAGED) {
        cudaError_t error = copy_turn(s, request->call);
        if (error != cudaSuccess)
            return error;
    }
    data.synchronous = progress >= COPY_RUN;
    SimOp *op = sim_op_new(SIM_OP_RUN, sizeof data, "%s", request->call);
    memcpy(op->data, &data, sizeof data);
    op->prepare = copy_prepare;
    op->run = copy_run;
    op->host_sees = !is_device(data.to) || pinned_find(data.from, 1);
    if (!request->asynchronous && data.to_device >= 0)
        copy_after_devices(op, data.to_device, data.from_device);
    sim_enqueue(s, op);
    if (progress == COPY_RUN)
        return wait_unknowing(s, request->call);
    return progress == COPY_OVER ? wait_for_stream(s, request->call) : cudaSuccess;
}

static CopyData copy_flat(void *to, const void *from, size_t bytes)
{
    return (CopyData){.to = (uint64_t)(uintptr_t)to,
                      .from = (uint64_t)(uintptr_t)from,
                      .to_pitch = bytes,
                      .from_pitch = bytes,
                      .width = bytes,
                      .height = 1,
                      .to_device = -1,
                      .from_device = -1};
}

static cudaError_t copy_directed(Copy request, enum cudaMemcpyKind kind)
{
    cudaError_t error = copy_direction(request.data.to, request.data.from, kind);
    return error == cudaSuccess || request.data.width == 0 ? copy(&request) : error;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(copy_directed((Copy){__func__, copy_flat(to, from, bytes), NULL, false}, kind));
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(copy_directed((Copy){__func__, copy_flat(to, from, bytes), stream, true}, kind));
}

static CopyData copy_rows(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                          size_t width, size_t height)
{
    CopyData data = copy_flat(to, from, width);
    data.to_pitch = to_pitch;
    data.from_pitch = from_pitch;
    data.height = height;
    return data;
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                         size_t width, size_t height, enum cudaMemcpyKind kind)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    CopyData data = copy_rows(to, to_pitch, from, from_pitch, width, height);
    API_RETURN(copy_directed((Copy){__func__, data, NULL, false}, kind));
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    CopyData data = copy_rows(to, to_pitch, from, from_pitch, width, height);
    API_RETURN(copy_directed((Copy){__func__, data, stream, true}, kind));
}

static void copy_before_device(SimStream *copied, int device)
{
    SimStream *s = stream_legacy(device);
    if (s == copied)
        return;
    SimOp *op = sim_op_new(SIM_OP_WAIT, 0, "cudaMemcpyPeer (end)");
    op_after_stream(op, copied);
    stream_push(s, op);
}

static cudaError_t copy_peer(Copy request, int to_device, int from_device)
{
    int n = sim_config()->devices;
    if (to_device < 0 || to_device >= n || from_device < 0 || from_device >= n)
        return cudaErrorInvalidDevice;
    request.data.to_device = to_device;
    request.data.from_device = from_device;
    cudaError_t error = copy(&request);
    SimStream *s = stream_legacy(sim_current_device());
    if (error == cudaSuccess && !request.asynchronous) {
        copy_before_device(s, to_device);
        copy_before_device(s, from_device);
    }
    return error;
}

cudaError_t cudaMemcpyPeer(void *to, int to_device, const void *from, int from_device, size_t bytes)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(copy_peer((Copy){__func__, copy_flat(to, from, bytes), NULL, false}, to_device,
                         from_device));
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device,
                                size_t bytes, cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(copy_peer((Copy){__func__, copy_flat(to, from, bytes), stream, true}, to_device,
                         from_device));
}

/* ---------------------------------------------------------------------- symbols */

static cudaError_t symbol_address(const void *symbol, size_t offset, size_t bytes, void **address)
{
    const Variable *v = variable_find(symbol);
    size_t size = 0;
    if (!v || !v->module)
        return cudaErrorInvalidSymbol;
    uint64_t at = sim_module_global(v->module, v->name, sim_current_device(), &size);
    if (at == 0)
        return cudaErrorInvalidSymbol;
    if (offset > size || bytes > size - offset)
        return cudaErrorInvalidValue;
    *address = (void *)(uintptr_t)(at + offset);
    return cudaSuccess;
}

cudaError_t cudaGetSymbolAddress(void **address, const void *symbol)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(symbol_address(symbol, 0, 0, address));
}

cudaError_t cudaGetSymbolSize(size_t *size, const void *symbol)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    const Variable *v = variable_find(symbol);
    if (v)
        *size = v->size;
    API_RETURN(v ? cudaSuccess : cudaErrorInvalidSymbol);
}

static cudaError_t copy_to_symbol(Copy request, const void *symbol, const void *from, size_t bytes,
                                  size_t offset, enum cudaMemcpyKind kind)
{
    void *to;
    cudaError_t error = symbol_address(symbol, offset, bytes, &to);
    if (error != cudaSuccess)
        return error;
    request.data = copy_flat(to, from, bytes);
    return copy_directed(request, kind);
}

static cudaError_t copy_from_symbol(Copy request, void *to, const void *symbol, size_t bytes,
                                    size_t offset, enum cudaMemcpyKind kind)
{
    void *from;
    cudaError_t error = symbol_address(symbol, offset, bytes, &from);
    if (error != cudaSuccess)
        return error;
    request.data = copy_flat(to, from, bytes);
    return copy_directed(request, kind);
}

cudaError_t cudaMemcpyToSymbol(const void *symbol, const void *from, size_t bytes, size_t offset,
                               enum cudaMemcpyKind kind)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(copy_to_symbol((Copy){.call = __func__}, symbol, from, bytes, offset, kind));
}

cudaError_t cudaMemcpyToSymbolAsync(const void *symbol, const void *from, size_t bytes,
                                    size_t offset, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(copy_to_symbol((Copy){.call = __func__, .stream = stream, .asynchronous = true},
                              symbol, from, bytes, offset, kind));
}

cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t bytes, size_t offset,
                                 enum cudaMemcpyKind kind)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(copy_from_symbol((Copy){.call = __func__}, to, symbol, bytes, offset, kind));
}

cudaError_t cudaMemcpyFromSymbolAsync(void *to, const void *symbol, size_t bytes, size_t offset,
                                      enum cudaMemcpyKind kind, cudaStream_t stream)
{
    API(SIM_CALL_WORK, cudaErrorUnknown);
    API_RETURN(copy_from_symbol((Copy){.call = __func__, .stream = stream, .asynchronous = true},
                                to, symbol, bytes, offset, kind));
}
