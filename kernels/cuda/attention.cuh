/* attention.cuh - what the kernels of attention share: the shape as they are told of it, which
 * block computes what, and the rows of a tile that exist.
 *
 * A result (o, dq, dk or dv) is cut into tiles of TILE positions of one head, and where the heads
 * are wider than a block has registers for, into slices of columns; a block computes one of
 * them, walking over the other sequence tile by tile. How things are cut depends on the shape
 * alone, and no block adds to what another has written.
 */
#ifndef MDL_ATTENTION_CUH
#define MDL_ATTENTION_CUH

#include "common.cuh"

enum { TILE = 64 /* positions */ };

/* exp(x) = 2^(x LOG2_E), log(x) = LN_2 log2(x) */
static constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

typedef struct {
    int64_t t, s, heads, kv_heads, group; /* group: query heads of a key/value head */
    int64_t ldq, ldk, ldv, ldo;
    int width, slices;
    float scale, scale_log2; /* of scores; of scores that become powers of 2 */
    bool causal, vector;     /* vector: rows begin and end at multiples of 16 bytes */
    int64_t first_head;      /* of this launch: a number among those of all samples */
    int64_t first_job;
} AttentionShape;

/* What a block computes: a tile of a head, counted over all samples, and some columns. */
typedef struct {
    int64_t head, sample, of_sample; /* head = sample x heads of a sample + of_sample */
    int64_t position;
    int tile, slice;
} AttentionJob;

/* blockIdx.x, which the compiler takes for another number every time: what follows from it can be
 * computed again at the end of a kernel instead of being kept in registers until then. */
MDL_DEVICE unsigned block_number(void)
{
    unsigned number;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(number));
    return number;
}

/* Tiles that are neighbours read the same operands, so their blocks come one after the other; where
 * the last tiles have most to do, they come first. */
MDL_DEVICE AttentionJob attention_job(const AttentionShape &a, int64_t heads, int64_t positions,
                                      bool last_first)
{
    const int64_t number = a.first_job + block_number(), tiles = (positions + TILE - 1) / TILE;
    const int64_t rest = number / tiles;
    AttentionJob job;
    job.tile = (int)(number - rest * tiles);
    if (last_first)
        job.tile = (int)tiles - 1 - job.tile;
    job.position = (int64_t)job.tile * TILE;
    job.head = rest / a.slices;
    job.slice = (int)(rest - job.head * a.slices);
    job.head += a.first_head;
    job.sample = job.head / heads;
    job.of_sample = job.head - job.sample * heads;
    return job;
}

/* Of the positions from ... on, those in a tile. */
MDL_DEVICE int tile_rows(int64_t positions, int64_t from)
{
    return (int)(positions - from < TILE ? positions - from : TILE);
}

/* Tiles of `each` keys that the queries of a tile see. */
MDL_DEVICE int tiles_seen(const AttentionShape &a, int64_t query, int each)
{
    const int64_t seen = a.causal && query + TILE < a.s ? query + TILE : a.s;
    return (int)((seen + each - 1) / each);
}

/* What of a tile of scores counts: its first `keys` keys and, of row r, no key after r + diagonal.
 */
typedef struct {
    int keys, diagonal;
} Seen;

MDL_DEVICE Seen seen_here(const AttentionShape &a, int64_t query, int64_t key)
{
    const int64_t ahead = query - key;
    return {tile_rows(a.s, key), a.causal && ahead < TILE ? (int)ahead : TILE};
}

/* Whether all of the first `keys` keys count. */
MDL_DEVICE bool is_whole(const Seen &seen, int keys)
{
    return seen.keys >= keys && seen.diagonal >= keys - 1;
}

MDL_DEVICE bool is_seen(const Seen &seen, int query, int key)
{
    return key < seen.keys && key <= query + seen.diagonal;
}

/* ------------------------------------------------------------ asynchronous copies */

/* BYTES, 4 or 16, to shared memory; zeros where not `there`. */
template <int BYTES> MDL_DEVICE void copy_async(void *to, const void *from, bool there)
{
    const unsigned address = (unsigned)__cvta_generic_to_shared(to);
    const int size = there ? BYTES : 0;
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                     "r"(size)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from),
                     "r"(size)
                     : "memory");
}

MDL_DEVICE void await_copies(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* The tiles that a block walks over: of each, `steps` panels in turn, SIZE elements in shared
 * memory each. fetch(tile, step, to) begins to copy one; one is on its way while another is at
 * work. */
template <class T, int SIZE, class Fetch> struct Panels {
    T (*buffer)[SIZE]; /* [2] */
    const Fetch &fetch;
    int tiles, steps, tile, step, turn;

    __device__ __forceinline__ Panels(T (*to)[SIZE], const Fetch &f, int of_tile, int all)
        : buffer(to), fetch(f), tiles(all), steps(of_tile), tile(0), step(0), turn(0)
    {
        if (tiles > 0)
            fetch(0, 0, buffer[0]);
    }

    /* Waits for the next panel, and begins with the one after it. */
    __device__ __forceinline__ const T *next(void)
    {
        await_copies();
        __syncthreads();
        const T *const ready = buffer[turn];
        turn ^= 1;
        step++;
        if (step == steps) {
            step = 0;
            tile++;
        }
        if (tile < tiles)
            fetch(tile, step, buffer[turn]);
        return ready;
    }
};

/* ---------------------------------------------------------------- from the host */

static inline bool attention_is_empty(const Attention *a)
{
    return a->B <= 0 || a->t <= 0 || a->s <= 0 || a->kv_heads <= 0 || a->width <= 0;
}

/* Whether the shape fits the kernels' integers: what they count is steps of 32 positions. */
static inline bool attention_fits(const Attention *a)
{
    return a->width <= INDEX_MOST && ceil_div(a->s, 32) <= INDEX_MOST &&
           ceil_div(a->t, 32) * (a->heads / a->kv_heads) <= INDEX_MOST;
}

/* Columns of a result that one block takes, for heads of a width. */
static inline int slice_width(int64_t width)
{
    return width <= 32 ? 32 : width <= 64 ? 64 : width <= 128 ? 128 : 256;
}

static inline AttentionShape attention_shape(const Attention *a, bool vector)
{
    AttentionShape s = {};
    s.t = a->t;
    s.s = a->s;
    s.heads = a->heads;
    s.kv_heads = a->kv_heads;
    s.group = a->heads / a->kv_heads;
    s.ldq = a->ldq;
    s.ldk = a->ldk;
    s.ldv = a->ldv;
    s.ldo = a->heads * a->width;
    s.width = (int)a->width;
    s.slices = (int)ceil_div(a->width, slice_width(a->width));
    s.scale = (float)(1 / sqrt((double)a->width));
    s.scale_log2 = (float)(1.4426950408889634 / sqrt((double)a->width));
    s.causal = a->causal;
    s.vector = vector;
    return s;
}

/* Whether all rows of all operands may be read 16 bytes at a time. */
template <class... Pointers>
static inline bool attention_is_vector(const Attention *a, int64_t per_vector, Pointers... p)
{
    return ((uintptr_t(p) | ...) & 15) == 0 && a->width % per_vector == 0 &&
           a->ldq % per_vector == 0 && a->ldk % per_vector == 0 && a->ldv % per_vector == 0;
}

/* launch(shape, blocks) for all jobs of `heads` heads, in as many launches as grids need. */
template <class Launch>
static inline int over_jobs(AttentionShape s, int64_t heads, int64_t positions, Launch launch)
{
    const int64_t jobs = heads * s.slices * ceil_div(positions, TILE);
    for (s.first_job = 0; s.first_job < jobs; s.first_job += INT32_MAX) {
        launch(s, (unsigned)int_min(INT32_MAX, jobs - s.first_job));
        const int status = launch_status();
        if (status != 0)
            return status;
    }
    return 0;
}

#endif
