/* exec_grid.c - launches.
 *
 * In: a kernel with its grid. Out: all blocks have run, one after another; what was wrong is
 * reported. Under the scheduler "random" the blocks, a block's warps and a warp's lanes come
 * in an order that the seed and the operation's place in its stream determine.
 */
#include <stdlib.h>
#include <string.h>

#include "exec.h"

static Exec engine;

enum { GRID_X_MAX = 0x7fffffff, GRID_YZ_MAX = 65535, BLOCK_Z_MAX = 64 };

/* Shuffled grids need a number per block; larger ones are cut into pieces of so many. */
enum { SHUFFLED_MAX = 1 << 16 };

static uint32_t round_up(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to * to;
}

static uint32_t dynamic_offset(const SimKernelTable *table)
{
    return round_up(table->shared_bytes, table->shared_align > 16 ? table->shared_align : 16);
}

SimLaunchFault sim_launch_check(const SimKernel *kernel, const SimLaunch *launch,
                                uint32_t dynamic_limit, char *why, size_t size)
{
    const SimKernelTable *table = sim_kernel_table(kernel);
    const unsigned *g = launch->grid, *b = launch->block;
    uint64_t threads = (uint64_t)b[0] * b[1] * b[2];
    uint64_t shared = (uint64_t)dynamic_offset(table) + launch->dynamic_shared;
    if (!g[0] || !g[1] || !g[2] || g[0] > GRID_X_MAX || g[1] > GRID_YZ_MAX || g[2] > GRID_YZ_MAX) {
        snprintf(why, size, "a grid of (%u,%u,%u) blocks; 1 ... (%d,%d,%d) are possible", g[0],
                 g[1], g[2], GRID_X_MAX, GRID_YZ_MAX, GRID_YZ_MAX);
        return SIM_LAUNCH_CONFIGURATION;
    }
    if (!b[0] || !b[1] || !b[2] || b[0] > EXEC_THREADS || b[1] > EXEC_THREADS ||
        b[2] > BLOCK_Z_MAX || threads > EXEC_THREADS) {
        snprintf(why, size, "a block of (%u,%u,%u) threads; %d in all and %d in z are possible",
                 b[0], b[1], b[2], EXEC_THREADS, BLOCK_Z_MAX);
        return SIM_LAUNCH_CONFIGURATION;
    }
    if (launch->dynamic_shared > dynamic_limit || shared > EXEC_SHARED_MAX) {
        snprintf(why, size,
                 "%u bytes of dynamic shared memory; the function's attribute allows %u (and %u "
                 "static, %d in all)",
                 launch->dynamic_shared, dynamic_limit, table->shared_bytes, EXEC_SHARED_MAX);
        return SIM_LAUNCH_SHARED;
    }
    if (table->max_threads && threads > table->max_threads) {
        snprintf(why, size, "%u threads in a block; the kernel's __launch_bounds__ say %u",
                 (unsigned)threads, table->max_threads);
        return SIM_LAUNCH_RESOURCES;
    }
    why[0] = '\0';
    return SIM_LAUNCH_OK;
}

uint64_t exec_random(Exec *e)
{
    uint64_t z = e->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void shuffle(Exec *e, uint32_t *of, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t k = (uint32_t)(exec_random(e) % i), t = of[k];
        of[k] = of[i - 1];
        of[i - 1] = t;
    }
}

/* ------------------------------------------------------------------- services */

static void service_fence(SimThread *t, int scope)
{
    ExecThread *th = exec_thread(t);
    th->fenced = true;
    if (th->exec->race)
        exec_segment(th, shadow_fence(th->index, slot_segment(th->me), scope == 0));
}

static void service_trap(SimThread *t, uint32_t site)
{
    ExecThread *th = exec_thread(t);
    char where[512], place[128], stream[128];
    sim_report(SIM_MISUSE, "%s traps, %s, %s", exec_where(th->exec, site, where, sizeof where),
               exec_place(th->exec, th, place, sizeof place),
               exec_stream(th->exec, stream, sizeof stream));
    exec_stop(th);
}

static uint64_t service_global(SimThread *t, uint32_t variable)
{
    Exec *e = exec_thread(t)->exec;
    const uint32_t n = sizeof e->globals / sizeof *e->globals;
    if (variable >= n)
        return sim_kernel_global(e->kernel, variable, e->op->device);
    if (!e->globals[variable])
        e->globals[variable] = sim_kernel_global(e->kernel, variable, e->op->device);
    return e->globals[variable];
}

static uint64_t service_clock(SimThread *t)
{
    return exec_thread(t)->exec->clock += 32;
}

static const SimServices services = {
    .access = exec_access,
    .barrier = exec_barrier,
    .warp_sync = exec_warp_sync,
    .shuffle = exec_shuffle,
    .vote = exec_vote,
    .match_any = exec_match_any,
    .reduce = exec_reduce,
    .active_mask = exec_active_mask,
    .fence = service_fence,
    .trap = service_trap,
    .global = service_global,
    .print = exec_print,
    .clock = service_clock,
};

/* -------------------------------------------------------------------- threads */

static void threads_begin(Exec *e)
{
    const unsigned *b = e->launch->block;
    for (uint32_t i = 0; i < e->nthreads; i++) {
        ExecThread *th = &e->threads[i];
        th->exec = e;
        th->index = i;
        th->simt = (SimThread){
            .service = &services,
            .params = e->launch->params,
            .tid = {i % b[0], i / b[0] % b[1], i / b[0] / b[1]},
            .ntid = {b[0], b[1], b[2]},
            .nctaid = {e->launch->grid[0], e->launch->grid[1], e->launch->grid[2]},
            .lane = i % 32,
            .warp = i / 32,
            .dynamic_shared_offset = dynamic_offset(e->table),
            .dynamic_shared_bytes = e->launch->dynamic_shared,
        };
        e->order[i] = th;
    }
}

/* Warps in any order, lanes of a warp in the order of i ^ flips. */
static void threads_order(Exec *e)
{
    uint32_t warps[EXEC_WARPS], n = 0;
    for (uint32_t w = 0; w < e->nwarps; w++)
        warps[w] = w;
    shuffle(e, warps, e->nwarps);
    for (uint32_t w = 0; w < e->nwarps; w++) {
        uint32_t flips = (uint32_t)exec_random(e) & 31;
        for (uint32_t i = 0; i < 32; i++) {
            uint32_t t = warps[w] * 32 + (i ^ flips);
            if (t < e->nthreads)
                e->order[n++] = &e->threads[t];
        }
    }
    e->flips = (uint32_t)exec_random(e) & 31;
}

static const void *parts_kernels[64]; /* that let parts meet: their code, hashed by it */

static const void **parts_place(const Exec *e)
{
    uintptr_t code;
    memcpy(&code, &e->table->run, sizeof code);
    return &parts_kernels[code / 16 % (sizeof parts_kernels / sizeof *parts_kernels)];
}

static bool parts_known(const Exec *e)
{
    return memcmp(parts_place(e), &e->table->run, sizeof(void *)) == 0;
}

void exec_parts_note(Exec *e)
{
    e->view.parts = e->shared_view.parts = true;
    memcpy(parts_place(e), &e->table->run, sizeof(void *));
}

static void shadow_begin(Exec *e)
{
    shadow_op_begin(&e->view, e->op, e->table, e->launch);
    e->view.parts = parts_known(e);
    e->shared_view =
        (ShadowView){.op = e->op, .kernel = true, .shared = true, .parts = e->view.parts};
}

static void block_begin(Exec *e, uint64_t number)
{
    const unsigned *g = e->launch->grid;
    e->block_number = number;
    e->block[0] = (uint32_t)(number % g[0]);
    e->block[1] = (uint32_t)(number / g[0] % g[1]);
    e->block[2] = (uint32_t)(number / g[0] / g[1]);
    for (uint32_t w = 0; w < e->nwarps; w++) {
        uint32_t left = e->nthreads - w * 32;
        e->warps[w].lanes = left >= 32 ? UINT32_MAX : (1u << left) - 1;
        e->warps[w].exited = e->warps[w].ngroups = 0;
    }
    memset(e->barriers, 0, sizeof e->barriers);
    memset(e->shared, 0xff, e->shared_bytes);
    memset(e->locals, 0xff, (size_t)e->local_bytes * e->nthreads);
    if (e->config->schedule == SIM_RANDOM)
        threads_order(e);
    if (!e->race)
        return;
    if (shadow_segments_reserve())
        shadow_begin(e);
    uint32_t first = shadow_block_begin(&e->view, &e->shared_view, (uint32_t)number, e->nwarps);
    for (uint32_t i = 0; i < e->nthreads; i++)
        exec_segment(&e->threads[i], first + i / 32);
}

/* Blocks from ... from + n - 1, shuffled under the scheduler "random". */
static bool blocks_run(Exec *e, uint64_t from, uint32_t n)
{
    static uint32_t order[SHUFFLED_MAX];
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    if (e->config->schedule == SIM_RANDOM)
        shuffle(e, order, n);
    for (uint32_t i = 0; i < n; i++) {
        block_begin(e, from + order[i]);
        if (!exec_block_run(e))
            return false;
    }
    return true;
}

/* The block's shared memory and the threads' local memory, kept for later kernels. */
static void memory_make(Exec *e)
{
    static size_t locals_room;
    size_t locals = (size_t)e->local_bytes * e->nthreads;
    if (!e->shared)
        e->shared = aligned_alloc(128, round_up(EXEC_SHARED_MAX, 128));
    if (locals > locals_room || !e->locals) {
        free(e->locals);
        locals_room = (locals / 4096 + 1) * 4096;
        e->locals = aligned_alloc(128, locals_room);
    }
    if (!e->shared || !e->locals) {
        fprintf(stderr, "mdl-sim: no memory left for a block of kernel %s\n",
                sim_kernel_name(e->kernel));
        _Exit(SIM_EXIT);
    }
}

void sim_kernel_run(SimOp *op, SimKernel *kernel, const SimLaunch *launch)
{
    Exec *e = &engine;
    e->op = op;
    e->kernel = kernel;
    e->table = sim_kernel_table(kernel);
    e->launch = launch;
    e->config = sim_config();
    e->race = e->config->race;
    e->stopped = false;
    e->nthreads = launch->block[0] * launch->block[1] * launch->block[2];
    e->nwarps = (e->nthreads + 31) / 32;
    e->shared_bytes = dynamic_offset(e->table) + launch->dynamic_shared;
    if (!launch->dynamic_shared)
        e->shared_bytes = e->table->shared_bytes;
    e->local_bytes = round_up(e->table->local_bytes, 16);
    e->random = e->config->seed * UINT64_C(0xd1342543de82ef95) ^
                ((uint64_t)op->stream_id << 32 | op->sequence);
    e->flips = e->nseen = e->nunwritten = 0;
    e->progress = e->spun_at = 0;
    e->spinning_since = 0;
    memset(e->lookups, 0, sizeof e->lookups);
    memset(e->globals, 0, sizeof e->globals);
    memory_make(e);
    threads_begin(e);
    if (e->race) {
        shadow_order_reset();
        shadow_begin(e);
        e->shared_cells = shadow_shared_cells();
    }
    uint64_t blocks = (uint64_t)launch->grid[0] * launch->grid[1] * launch->grid[2];
    for (uint64_t from = 0; from < blocks; from += SHUFFLED_MAX) {
        uint64_t left = blocks - from;
        if (!blocks_run(e, from, left < SHUFFLED_MAX ? (uint32_t)left : SHUFFLED_MAX))
            break;
    }
    exec_report_unwritten(e, true);
}
