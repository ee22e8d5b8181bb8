/* simt_matrix.h - what the lanes of a warp compute together: ldmatrix, mma, wmma.
 *
 * Only translated kernels include this. All lanes come to the same instruction, put their
 * registers onto a board, which lies on lane 0's stack, and each makes its own part of the
 * result from what all have put there. Like shuffles, these instructions order no memory.
 *
 * What PTX leaves open: an element of a product is one chain of fused multiply-adds in float,
 * k = 0, 1, ..., that begins with C's element; of tf32 operands the lowest 13 bits are dropped.
 * Fragments of wmma hold their matrix row by row, lane 0 the first elements. Lines are read and
 * written 16 bytes at a time, which is the alignment that PTX wants of them.
 */
#ifndef MDL_SIMT_MATRIX_H
#define MDL_SIMT_MATRIX_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { SIM_LANES = 32, SIM_BOARD_WORDS = 12, SIM_CHUNK = 16 };
#define SIM_ALL_LANES UINT32_MAX

typedef struct {
    uint32_t words[SIM_LANES][SIM_BOARD_WORDS];
} SimBoard;

typedef enum { SIM_MMA_F16, SIM_MMA_BF16, SIM_MMA_TF32 } SimElement;

/* No lane goes on before all are here. */
static inline void sim_board_wait(SimThread *t, uint32_t site)
{
    t->service->vote(t, SIM_VOTE_ANY, true, SIM_ALL_LANES, site);
}

/* Lane 0's board, with `n` words of this lane on it; NULL after a report: lanes have ended or
 * are elsewhere. Whoever has it ends with sim_board_wait: until then the board is there. */
static __attribute__((noinline, unused)) SimBoard *
sim_board_share(SimThread *t, SimBoard *mine, const uint32_t *words, uint32_t n, uint32_t site)
{
    bool valid;
    const uint64_t here = UINT64_C(0x6d61747269780000) << 8 ^ site;
    if (t->service->match_any(t, here, SIM_ALL_LANES, site) != SIM_ALL_LANES) {
        const uint32_t came = t->service->vote(t, SIM_VOTE_BALLOT, true, SIM_ALL_LANES, site);
        if (came == SIM_ALL_LANES)
            t->service->trap(t, site);
        else /* it is the shuffle that says which lane is missing */
            t->service->shuffle(t, SIM_SHFL_IDX, 0, (uint32_t)__builtin_ctz(~came), 31,
                                SIM_ALL_LANES, &valid, site);
        return NULL;
    }
    const uint64_t place = (uint64_t)(uintptr_t)mine;
    const uint32_t low =
        t->service->shuffle(t, SIM_SHFL_IDX, (uint32_t)place, 0, 31, SIM_ALL_LANES, &valid, site);
    const uint32_t high = t->service->shuffle(t, SIM_SHFL_IDX, (uint32_t)(place >> 32), 0, 31,
                                              SIM_ALL_LANES, &valid, site);
    SimBoard *board = (SimBoard *)(uintptr_t)((uint64_t)high << 32 | low);
    memcpy(board->words[t->lane], words, n * sizeof *words);
    sim_board_wait(t, site);
    return board;
}

static inline float sim_element(const uint32_t *words, uint32_t i, SimElement kind)
{
    if (kind == SIM_MMA_TF32)
        return ptx_f32_from(words[i] & 0xffffe000u);
    const uint16_t half = (uint16_t)(words[i / 2] >> 16 * (i % 2));
    return kind == SIM_MMA_F16 ? float_of_half(half) : float_of_bfloat(half);
}

/* ------------------------------------------------------------------- ldmatrix */

/* `n` matrices of 8 rows of 8 halves; lane 8 m + r has the address of row r of matrix m. */
static __attribute__((noinline, unused)) void sim_ldmatrix(SimThread *t, SimSpace space,
                                                           uint64_t address, uint32_t n,
                                                           bool transposed, uint32_t *out,
                                                           uint32_t site)
{
    SimBoard mine;
    uint32_t row[4] = {0};
    memset(out, 0, n * sizeof *out);
    if (t->lane < 8 * n)
        memcpy(row, t->service->access(t, space, address, sizeof row, 1, site), sizeof row);
    const SimBoard *board = sim_board_share(t, &mine, row, 4, site);
    if (!board)
        return;
    const uint32_t group = t->lane / 4, place = t->lane % 4;
    for (uint32_t m = 0; m < n; m++) {
        const uint32_t(*rows)[SIM_BOARD_WORDS] = &board->words[8 * m];
        const uint32_t shift = 16 * (group % 2);
        out[m] = transposed ? (rows[2 * place][group / 2] >> shift & 0xffff) |
                                  (rows[2 * place + 1][group / 2] >> shift) << 16
                            : rows[group][place];
    }
    sim_board_wait(t, site);
}

/* ------------------------------------------------------------------------ mma */

/* D = A B + C of 16 x 8 x depth, with the fragments of mma.m16n8k*: of A, a word holds `per`
 * elements of a row, words 0 and 1 are 8 rows apart; 4 lanes share a row of A, a column of B. */
static __attribute__((noinline, unused)) void sim_mma(SimThread *t, SimElement kind, uint32_t depth,
                                                      const uint32_t *a, const uint32_t *b,
                                                      const float *c, float *d, uint32_t site)
{
    SimBoard mine;
    const uint32_t per = kind == SIM_MMA_TF32 ? 1 : 2, nb = depth / (4 * per), na = 2 * nb;
    uint32_t words[SIM_BOARD_WORDS];
    memcpy(words, a, na * sizeof *a);
    memcpy(words + na, b, nb * sizeof *b);
    memset(d, 0, 4 * sizeof *d);
    const SimBoard *board = sim_board_share(t, &mine, words, na + nb, site);
    if (!board)
        return;
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t row = t->lane / 4, half = i / 2, column = t->lane % 4 * 2 + i % 2;
        float sum = c[i];
        for (uint32_t k = 0; k < depth; k++) {
            const uint32_t place = k / per % 4, part = k / (4 * per);
            const uint32_t *of_a = &board->words[4 * row + place][2 * part + half];
            const uint32_t *of_b = &board->words[4 * column + place][na + part];
            sum = __builtin_fmaf(sim_element(of_a, k % per, kind), sim_element(of_b, k % per, kind),
                                 sum);
        }
        d[i] = ptx_nan_f32(sum);
    }
    sim_board_wait(t, site);
}

/* ----------------------------------------------------------------------- wmma */

/* A matrix in memory: `stride` elements of `size` bytes from line to line. */
typedef struct {
    SimSpace space;
    uint64_t address;
    uint32_t stride, size, rows, columns;
    bool column_major;
} SimMatrix;

/* Where the i-th of this lane's elements lies: its line, and its place there in bytes. */
static inline uint32_t sim_line_of(const SimMatrix *m, uint32_t element, uint32_t *byte)
{
    const uint32_t row = element / m->columns, column = element % m->columns;
    *byte = (m->column_major ? row : column) * m->size;
    return m->column_major ? column : row;
}

static inline uint32_t sim_chunks_per_line(const SimMatrix *m)
{
    return (m->column_major ? m->rows : m->columns) * m->size / SIM_CHUNK;
}

static inline char *sim_chunk(SimThread *t, const SimMatrix *m, uint32_t chunk, int access,
                              uint32_t site)
{
    const uint32_t per_line = sim_chunks_per_line(m);
    const uint64_t line = (uint64_t)(chunk / per_line) * m->stride * m->size;
    return (char *)t->service->access(t, m->space, m->address + line + chunk % per_line * SIM_CHUNK,
                                      SIM_CHUNK, access, site);
}

/* Lane n reads the chunks n, n + 32, ...; then each takes its elements from the board. */
static __attribute__((noinline, unused)) void sim_wmma_load(SimThread *t, const SimMatrix *m,
                                                            uint32_t *out, uint32_t site)
{
    SimBoard mine;
    uint32_t words[SIM_BOARD_WORDS] = {0};
    const uint32_t n = m->rows * m->columns / SIM_LANES, per_line = sim_chunks_per_line(m);
    const uint32_t chunks = m->rows * m->columns * m->size / SIM_CHUNK;
    char *to = (char *)out;
    memset(out, 0, n * m->size);
    for (uint32_t chunk = t->lane; chunk < chunks; chunk += SIM_LANES)
        memcpy(words + chunk / SIM_LANES * 4, sim_chunk(t, m, chunk, 1, site), SIM_CHUNK);
    const SimBoard *board = sim_board_share(t, &mine, words, SIM_BOARD_WORDS, site);
    if (!board)
        return;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t byte, line = sim_line_of(m, t->lane * n + i, &byte);
        const uint32_t chunk = line * per_line + byte / SIM_CHUNK;
        const char *from = (const char *)&board->words[chunk % SIM_LANES][chunk / SIM_LANES * 4];
        memcpy(to + i * m->size, from + byte % SIM_CHUNK, m->size);
    }
    sim_board_wait(t, site);
}

static __attribute__((noinline, unused)) void
sim_wmma_store(SimThread *t, const SimMatrix *m, const uint32_t *fragment, uint32_t site)
{
    SimBoard mine;
    const uint32_t n = m->rows * m->columns / SIM_LANES;
    const uint32_t chunks = m->rows * m->columns * m->size / SIM_CHUNK;
    const uint32_t per_line = sim_chunks_per_line(m);
    const SimBoard *board =
        sim_board_share(t, &mine, fragment, n * m->size / (uint32_t)sizeof *fragment, site);
    for (uint32_t chunk = t->lane; board && chunk < chunks; chunk += SIM_LANES) {
        char data[SIM_CHUNK];
        for (uint32_t at = 0; at < SIM_CHUNK; at += m->size) {
            const uint32_t line = chunk / per_line;
            const uint32_t place = (chunk % per_line * SIM_CHUNK + at) / m->size;
            const uint32_t row = m->column_major ? place : line;
            const uint32_t column = m->column_major ? line : place;
            const uint32_t element = row * m->columns + column;
            const char *from = (const char *)board->words[element / n];
            memcpy(data + at, from + element % n * m->size, m->size);
        }
        memcpy(sim_chunk(t, m, chunk, 2, site), data, sizeof data);
    }
    if (board)
        sim_board_wait(t, site);
}

/* D = A B + C, of `rows` x `columns` x `depth`: 8 elements of D for each lane. */
static __attribute__((noinline, unused)) void sim_wmma(SimThread *t, SimElement kind, uint32_t rows,
                                                       uint32_t columns, uint32_t depth,
                                                       const uint32_t *a, const uint32_t *b,
                                                       const float *c, float *d, uint32_t site)
{
    SimBoard mine;
    const uint32_t per = kind == SIM_MMA_TF32 ? 1 : 2;
    const uint32_t of_a = rows * depth / SIM_LANES, of_b = depth * columns / SIM_LANES;
    uint32_t words[SIM_BOARD_WORDS];
    memcpy(words, a, of_a / per * sizeof *a);
    memcpy(words + of_a / per, b, of_b / per * sizeof *b);
    memset(d, 0, 8 * sizeof *d);
    const SimBoard *board = sim_board_share(t, &mine, words, (of_a + of_b) / per, site);
    if (!board)
        return;
    for (uint32_t i = 0; i < 8; i++) {
        const uint32_t row = (t->lane * 8 + i) / columns, column = (t->lane * 8 + i) % columns;
        float sum = c[i];
        for (uint32_t k = 0; k < depth; k++) {
            const uint32_t x = row * depth + k, y = k * columns + column;
            sum = __builtin_fmaf(sim_element(board->words[x / of_a], x % of_a, kind),
                                 sim_element(board->words[y / of_b] + of_a / per, y % of_b, kind),
                                 sum);
        }
        d[i] = ptx_nan_f32(sum);
    }
    sim_board_wait(t, site);
}

#endif
