/* stand.c - devices, streams and reports for the engine's tests. */
#define _GNU_SOURCE
#include "stand.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define BASE UINT64_C(0x300000000000)
enum { DEVICES = 2, MEMORY = 512 << 20, BLOCKS = 512, STREAMS = 64, SITES = 100, GAP = 256 };

SimConfig stand_config;

static struct {
    SimBlockOfMemory blocks[BLOCKS];
    int nblocks;
    uint64_t used[DEVICES];
    bool peers[DEVICES][DEVICES];
    SimStream *streams[STREAMS];
    int nstreams;
    int findings[SIM_FINDINGS];
    char text[8192];
    char ops[STREAMS][4096][24]; /* names */
} stand;

void stand_begin(void)
{
    static bool mapped;
    for (int d = 0; d < DEVICES && !mapped; d++) {
        void *at = sim_bytes(sim_device_base(d));
        void *p = mmap(at, MEMORY, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        assert_ptr_equal(p, at);
    }
    mapped = true;
    stand_config = (SimConfig){.devices = DEVICES,
                               .memory = MEMORY,
                               .schedule = SIM_RANDOM,
                               .seed = 1,
                               .race = true,
                               .keep_going = true,
                               .timeout = 0.3};
    memset(stand.findings, 0, sizeof stand.findings);
    memset(stand.peers, 0, sizeof stand.peers);
    stand.text[0] = '\0';
}

const SimConfig *sim_config(void)
{
    return &stand_config;
}

/* ---------------------------------------------------------------------- reports */

void sim_report(SimFinding kind, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t used = stand_found_any() ? strlen(stand.text) : 0;
    vsnprintf(stand.text + used, sizeof stand.text - used, format, args);
    va_end(args);
    stand.findings[kind]++;
    if (getenv("STAND_SHOW"))
        fprintf(stderr, "finding %d: %s\n", (int)kind, stand.text + used);
}

int stand_found(SimFinding kind)
{
    return stand.findings[kind];
}

int stand_found_any(void)
{
    int n = 0;
    for (int i = 0; i < SIM_FINDINGS; i++)
        n += stand.findings[i];
    return n;
}

const char *stand_text(void)
{
    return stand.text;
}

void stand_clean(void)
{
    if (stand_found_any())
        print_message("found: %s\n", stand.text);
    assert_int_equal(stand_found_any(), 0);
}

void stand_only(SimFinding kind, const char *part)
{
    if (stand.findings[kind] != 1 || stand_found_any() != 1 || !strstr(stand.text, part))
        print_message("found: %s\nwanted: %s\n", stand.text, part);
    assert_int_equal(stand.findings[kind], 1);
    assert_int_equal(stand_found_any(), 1);
    assert_non_null(strstr(stand.text, part));
    memset(stand.findings, 0, sizeof stand.findings);
}

double stand_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ----------------------------------------------------------------------- memory */

uint64_t sim_device_base(int device)
{
    return BASE + (uint64_t)device * SIM_DEVICE_SPAN;
}

int sim_device_of(uint64_t address)
{
    return address >= BASE && address < BASE + DEVICES * SIM_DEVICE_SPAN
               ? (int)((address - BASE) / SIM_DEVICE_SPAN)
               : -1;
}

uint64_t stand_alloc(int device, uint64_t size)
{
    assert_true(stand.nblocks < BLOCKS);
    SimBlockOfMemory *b = &stand.blocks[stand.nblocks];
    *b = (SimBlockOfMemory){.address = sim_device_base(device) + stand.used[device],
                            .size = size,
                            .device = device,
                            .number = (uint64_t)++stand.nblocks};
    stand.used[device] += (size + GAP) / GAP * GAP;
    assert_true(stand.used[device] <= MEMORY);
    sim_shadow_fresh(device, b->address, size);
    return b->address;
}

const SimBlockOfMemory *sim_memory_find(uint64_t address)
{
    const SimBlockOfMemory *near = NULL;
    for (int i = 0; i < stand.nblocks; i++) {
        const SimBlockOfMemory *b = &stand.blocks[i];
        if (address >= b->address && address < b->address + b->size + GAP)
            near = b; /* later ones lie higher */
    }
    return near;
}

void stand_free(uint64_t address)
{
    SimBlockOfMemory *b = &stand.blocks[sim_memory_find(address)->number - 1];
    b->freed = true;
    sim_shadow_fresh(b->device, b->address, b->size);
}

char *sim_memory_describe(uint64_t address, char *out, size_t size)
{
    const SimBlockOfMemory *b = sim_memory_find(address);
    if (b)
        snprintf(out, size, "+%lld in %llu bytes of gpu %d", (long long)(address - b->address),
                 (unsigned long long)b->size, b->device);
    else
        snprintf(out, size, "unknown");
    return out;
}

bool sim_peer_enabled(int from, int to)
{
    return stand.peers[from][to];
}

void stand_peer(int from, int to, bool enabled)
{
    stand.peers[from][to] = enabled;
}

/* ---------------------------------------------------------------------- streams */

SimStream *stand_stream(int device)
{
    assert_true(stand.nstreams < STREAMS);
    SimStream *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->id = (uint32_t)stand.nstreams;
    s->device = device;
    stand.streams[stand.nstreams++] = s;
    return s;
}

void stand_wait(SimStream *stream, const SimStream *other)
{
    SimClock *c = &stream->clock;
    for (int i = 0; i < other->clock.n; i++) {
        if (i >= c->n || other->clock.at[i] > c->at[i])
            c->at[i] = other->clock.at[i];
    }
    c->n = other->clock.n > c->n ? other->clock.n : c->n;
    c->at[other->id] = other->sequence;
    c->n = (int)other->id >= c->n ? (int)other->id + 1 : c->n;
}

static SimOp *op_next(SimStream *stream, const char *name)
{
    SimOp *op = calloc(1, sizeof *op);
    assert_non_null(op);
    snprintf(op->name, sizeof op->name, "%s", name);
    op->stream = stream;
    op->device = stream->device;
    op->stream_id = stream->id;
    op->sequence = ++stream->sequence;
    stream->clock.at[stream->id] = op->sequence - 1;
    stream->clock.n = (int)stream->id >= stream->clock.n ? (int)stream->id + 1 : stream->clock.n;
    op->clock = stream->clock;
    snprintf(stand.ops[stream->id][op->sequence % 4096], 24, "%s", name);
    return op;
}

char *sim_stream_describe(const SimStream *stream, char *out, size_t size)
{
    snprintf(out, size, "gpu %d, stream %u", stream->device, stream->id);
    return out;
}

char *sim_op_describe(const SimOp *op, char *out, size_t size)
{
    char stream[64];
    snprintf(out, size, "%s, %s", op->name, sim_stream_describe(op->stream, stream, sizeof stream));
    return out;
}

char *sim_history_describe(uint32_t stream_id, uint32_t sequence, char *out, size_t size)
{
    char stream[64];
    snprintf(out, size, "%s, %s", stand.ops[stream_id][sequence % 4096],
             sim_stream_describe(stand.streams[stream_id], stream, sizeof stream));
    return out;
}

/* ---------------------------------------------------------------------- kernels */

const SimKernelTable *sim_kernel_table(const SimKernel *kernel)
{
    return &kernel->table;
}

const char *sim_kernel_name(const SimKernel *kernel)
{
    return kernel->table.name;
}

uint64_t sim_kernel_global(const SimKernel *kernel, uint32_t variable, int device)
{
    static uint64_t variables[DEVICES];
    (void)kernel;
    if (!variables[device]) {
        variables[device] = stand_alloc(device, 64);
        memset(sim_bytes(variables[device]), 7, 64);
        sim_shadow_known(device, variables[device], 64);
    }
    return variables[device] + variable * 4;
}

/* Reports name places in kernels that ran long ago: their tables stay. */
static SimKernel *kernel_kept(const SimKernel *k)
{
    static SimKernel *all;
    for (SimKernel *old = all; old; old = old->next) {
        const SimKernelTable *a = &old->table, *b = &k->table;
        if (a->name == b->name && a->run == b->run && a->shared_bytes == b->shared_bytes &&
            a->local_bytes == b->local_bytes)
            return old;
    }
    SimKernel *kept = malloc(sizeof *kept);
    assert_non_null(kept);
    *kept = *k;
    kept->next = all;
    all = kept;
    return kept;
}

void stand_run(SimStream *stream, const char *name, Kernel *kernel, Shape shape)
{
    static SimSite sites[SITES];
    for (int i = 0; i < SITES; i++)
        sites[i] = (SimSite){"test.cu", i ? i : 1, "instruction"};
    SimKernel k = {{.name = name,
                    .run = kernel,
                    .sites = sites,
                    .nsites = SITES,
                    .nparams = 4,
                    .param_bytes = sizeof shape.params,
                    .shared_bytes = shape.shared,
                    .shared_align = 16,
                    .local_bytes = shape.local},
                   NULL};
    SimKernel *kept = kernel_kept(&k);
    SimLaunch launch = {.dynamic_shared = shape.dynamic, .params = shape.params};
    for (int i = 0; i < 3; i++) {
        launch.grid[i] = shape.grid[i] ? shape.grid[i] : 1;
        launch.block[i] = shape.block[i] ? shape.block[i] : 1;
    }
    SimOp *op = op_next(stream, name);
    sim_kernel_run(op, kept, &launch);
    free(op);
}

void stand_range(SimStream *stream, const char *name, uint64_t address, uint64_t bytes,
                 SimAccess access)
{
    SimOp *op = op_next(stream, name);
    sim_shadow_range(op, sim_device_of(address), address, bytes, access, "source");
    free(op);
}
