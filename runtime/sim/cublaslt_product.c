/* cublaslt_product.c - a matrix product as an operation of a stream.
 *
 * In: a Product whose arguments have been checked. When it runs: every operand's memory is
 * checked and noted (bounds, device, races, reads of what was never written), then each
 * matrix of the batch is multiplied a panel of columns at a time, scaled, taken through the
 * epilogue and stored. Where beta is 0, C is not read.
 */
#include <stdlib.h>
#include <string.h>

#include "cublaslt_product.h"
#include "cublaslt_tile.h"

/* The memory of one matrix of the batch. */
typedef struct {
    void *a, *b, *c, *d;
    ProductExtras extras;
} Operands;

/* Memory that is kept from product to product: one runs at a time. */
typedef enum {
    ROOM_PACKED,
    ROOM_SCRATCH,
    ROOM_OUT,
    ROOM_LINE,
    ROOM_SUMS,
    ROOM_OPERANDS,
    ROOMS
} Room;

static void *room(Room which, int64_t bytes)
{
    static struct {
        void *data;
        size_t size;
    } rooms[ROOMS];
    size_t size = ((size_t)bytes + 127) / 64 * 64;
    if (rooms[which].size >= size)
        return rooms[which].data;
    free(rooms[which].data);
    rooms[which].size = size;
    rooms[which].data = aligned_alloc(64, size);
    if (!rooms[which].data) {
        fputs("mdl-sim: out of memory\n", stderr);
        exit(EXIT_FAILURE);
    }
    return rooms[which].data;
}

bool sim_product_scalar(ProductScalar *scalar, const void *pointer, bool on_device, bool in_double,
                        const char *call, const char *what)
{
    *scalar = (ProductScalar){0};
    if (on_device) {
        scalar->address = (uint64_t)(uintptr_t)pointer;
        return true;
    }
    if (sim_device_of((uint64_t)(uintptr_t)pointer) >= 0) {
        sim_report(SIM_HOST_ACCESS,
                   "%s: %s is in device memory, but the pointer mode says that scalars are in the "
                   "host's",
                   call, what);
        return false;
    }
    float narrow;
    if (in_double) {
        memcpy(&scalar->value, pointer, sizeof scalar->value);
    } else {
        memcpy(&narrow, pointer, sizeof narrow);
        scalar->value = narrow;
    }
    return true;
}

static bool scalar_at_run(SimOp *op, const ProductScalar *scalar, bool in_double, const char *what,
                          double *value)
{
    *value = scalar->value;
    if (scalar->address == 0)
        return true;
    size_t size = in_double ? sizeof(double) : sizeof(float);
    const void *at = sim_range(op, scalar->address, size, size, 1, SIM_READ, false, what);
    if (!at)
        return false;
    float narrow;
    if (in_double) {
        memcpy(value, at, sizeof *value);
    } else {
        memcpy(&narrow, at, sizeof narrow);
        *value = narrow;
    }
    return true;
}

/* --------------------------------------------------------------------- memory */

static bool aligned(const Product *p, uint64_t address, uint64_t to, const char *what)
{
    if (address % to == 0)
        return true;
    sim_report(SIM_MISALIGNED, "%s: %s (0x%llx) is not a multiple of %llu bytes", p->call, what,
               (unsigned long long)address, (unsigned long long)to);
    return false;
}

static int64_t line_of(const ProductMatrix *m)
{
    return m->row_major ? m->cols : m->rows;
}

static int64_t lines_of(const ProductMatrix *m)
{
    return m->row_major ? m->rows : m->cols;
}

/* The whole batch as one range, where nothing lies between its elements. */
static void *matrices_packed(SimOp *op, const Product *p, const ProductMatrix *m, SimAccess access,
                             const char *what)
{
    uint64_t bytes = (uint64_t)(line_of(m) * lines_of(m) * sim_product_size_of(m->type));
    return sim_range(op, m->address, bytes * (uint64_t)p->batch, 0, 1, access, false, what);
}

/* Checks one matrix at an address; returns where it lies. */
static void *matrix_at(SimOp *op, const Product *p, const ProductMatrix *m, uint64_t address,
                       SimAccess access, const char *what)
{
    uint64_t size = (uint64_t)sim_product_size_of(m->type);
    uint64_t line = (uint64_t)line_of(m), lines = (uint64_t)lines_of(m), ld = (uint64_t)m->ld;
    if (!aligned(p, address, size, what))
        return NULL;
    if (ld == line || lines == 1)
        return sim_range(op, address, line * lines * size, 0, 1, access, false, what);
    return sim_range(op, address, line * size, ld * size, lines, access, false, what);
}

/* Fills place(i) for every matrix of the batch; false after a report. */
static bool matrices(SimOp *op, const Product *p, const ProductMatrix *m, SimAccess access,
                     const char *what, Operands *operands, size_t offset)
{
    int64_t size = sim_product_size_of(m->type), elements = line_of(m) * lines_of(m);
    const uint64_t *pointers = NULL;
    char *first = NULL;
    if (m->pointers) {
        if (!aligned(p, m->address, sizeof *pointers, what))
            return false;
        pointers = sim_range(op, m->address, (uint64_t)p->batch * sizeof *pointers, 0, 1, SIM_READ,
                             false, "the array of pointers");
        if (!pointers)
            return false;
    }
    bool packed = !m->pointers && p->batch > 1 && m->ld == line_of(m) && m->stride == elements;
    if (packed) {
        first = aligned(p, m->address, (uint64_t)size, what)
                    ? matrices_packed(op, p, m, access, what)
                    : NULL;
        if (!first)
            return false;
    }
    for (int i = 0; i < p->batch; i++) {
        void **place = (void **)(void *)((char *)&operands[i] + offset);
        uint64_t address =
            m->pointers ? pointers[i] : m->address + (uint64_t)(i * m->stride * size);
        if (packed)
            *place = first + i * elements * size;
        else if (i > 0 && !m->pointers && m->stride == 0)
            *place = *(void **)(void *)((char *)&operands[0] + offset);
        else
            *place = matrix_at(op, p, m, address, access, what);
        if (!*place)
            return false;
    }
    return true;
}

static bool extras(SimOp *op, const Product *p, Operands *operands)
{
    bool writes = product_epilogue_writes_bias(p->epilogue);
    bool bits = product_epilogue_aux_is_bits(p->epilogue);
    for (int i = 0; i < p->batch; i++) {
        ProductExtras *e = &operands[i].extras;
        if (writes || product_epilogue_reads_bias(p->epilogue)) {
            uint64_t size = (uint64_t)sim_product_size_of(p->bias_type);
            uint64_t address = p->bias + (uint64_t)(i * p->bias_stride) * size;
            e->bias = !aligned(p, address, size, "the bias")
                          ? NULL
                          : sim_range(op, address, (uint64_t)product_bias_length(p) * size, 0, 1,
                                      writes ? SIM_WRITE : SIM_READ, false, "the bias");
            if (!e->bias)
                return false;
        }
        if (!product_epilogue_has_aux(p->epilogue))
            continue;
        uint64_t size = (uint64_t)sim_product_size_of(p->aux_type), ld = (uint64_t)p->aux_ld;
        uint64_t width = bits ? ((uint64_t)p->m + 127) / 128 * 16 : (uint64_t)p->m * size;
        uint64_t pitch = bits ? ld / 8 : ld * size;
        uint64_t stride = (uint64_t)p->aux_stride;
        uint64_t address = p->aux + (uint64_t)i * (bits ? stride / 8 : stride * size);
        e->aux = !aligned(p, address, bits ? 16 : size, "the auxiliary matrix")
                     ? NULL
                     : sim_range(op, address, width, pitch, (uint64_t)p->n,
                                 product_epilogue_writes_aux(p->epilogue) ? SIM_WRITE : SIM_READ,
                                 false, "the auxiliary matrix");
        if (!e->aux)
            return false;
    }
    return true;
}

/* Whether two matrices share bytes. Of two that are interleaved with different pitches, only
 * the first bytes are compared. */
static bool overlap(const ProductMatrix *x, const char *at_x, const ProductMatrix *y,
                    const char *at_y)
{
    int64_t size_x = sim_product_size_of(x->type), size_y = sim_product_size_of(y->type);
    int64_t width_x = line_of(x) * size_x, width_y = line_of(y) * size_y;
    int64_t pitch = x->ld * size_x, distance = at_y - at_x;
    int64_t span_x = (lines_of(x) - 1) * pitch + width_x;
    int64_t span_y = (lines_of(y) - 1) * y->ld * size_y + width_y;
    if (distance >= span_x || -distance >= span_y || lines_of(x) == 0 || lines_of(y) == 0)
        return false;
    if (pitch != y->ld * size_y)
        return distance == 0 || (line_of(x) == x->ld && line_of(y) == y->ld);
    int64_t shift = distance % pitch < 0 ? distance % pitch + pitch : distance % pitch;
    return shift < width_x || shift + width_y > pitch;
}

static bool result_apart(const SimOp *op, const Product *p, const Operands *operands)
{
    char where[256];
    for (int i = 0; i < p->batch; i++) {
        const Operands *o = &operands[i];
        bool a = p->k > 0 && overlap(&p->a, o->a, &p->d, o->d);
        bool b = p->k > 0 && overlap(&p->b, o->b, &p->d, o->d);
        if (!a && !b)
            continue;
        sim_report(SIM_RACE, "%s: the result overlaps %s, which is read while it is written",
                   sim_op_describe(op, where, sizeof where), a ? "A" : "B");
        return false;
    }
    return true;
}

/* ------------------------------------------------------------------ computing */

static TileMatrix tile_matrix(const ProductMatrix *m, bool transpose, const void *data)
{
    TileMatrix tile = {.data = data,
                       .row = m->row_major ? m->ld : 1,
                       .column = m->row_major ? 1 : m->ld,
                       .type = m->type == CUDA_R_64F    ? TILE_DOUBLE
                               : m->type == CUDA_R_16F  ? TILE_HALF
                               : m->type == CUDA_R_16BF ? TILE_BFLOAT
                                                        : TILE_FLOAT};
    if (transpose) {
        int64_t row = tile.row;
        tile.row = tile.column;
        tile.column = row;
    }
    return tile;
}

/* Column j of a matrix: where it begins and how far its elements are apart. */
static char *column_of(const ProductMatrix *m, void *data, int64_t j, int64_t *step)
{
    *step = m->row_major ? m->ld : 1;
    return (char *)data + (m->row_major ? j : j * m->ld) * sim_product_size_of(m->type);
}

static void finish_float(const Product *p, const Operands *o, double alpha, double beta, int64_t j,
                         float *sums, float *scratch)
{
    int64_t step;
    for (int64_t i = 0; i < p->m; i++)
        sums[i] = (float)alpha * sums[i];
    if (beta != 0) {
        const char *c = column_of(&p->c, o->c, j, &step);
        sim_product_load(c, p->c.type, step, p->m, scratch);
        for (int64_t i = 0; i < p->m; i++)
            sums[i] += (float)beta * scratch[i];
    }
    if (p->epilogue != CUBLASLT_EPILOGUE_DEFAULT)
        product_epilogue(p, &o->extras, j, sums);
    char *d = column_of(&p->d, o->d, j, &step);
    sim_product_store(sums, p->m, d, p->d.type, step);
}

static void multiply_float(const Product *p, Operands *o, double alpha, double beta)
{
    TileMatrix a = tile_matrix(&p->a, p->transpose_a, o->a);
    TileMatrix b = tile_matrix(&p->b, p->transpose_b, o->b);
    int64_t height = tile_height_f32(p->m), wide = sizeof(float);
    float *packed = room(ROOM_PACKED, height * p->k * wide);
    float *scratch = room(ROOM_SCRATCH, TILE_PANEL * p->k * wide);
    float *out = room(ROOM_OUT, height * TILE_PANEL * wide);
    float *line = room(ROOM_LINE, p->m * wide);
    bool gradient = p->epilogue == CUBLASLT_EPILOGUE_DRELU_BGRAD ||
                    p->epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD;
    if (gradient) {
        o->extras.sums = room(ROOM_SUMS, p->m * wide);
        memset(o->extras.sums, 0, (size_t)(p->m * wide));
    }
    tile_pack_f32(p->m, p->k, &a, packed);
    for (int64_t from = 0; from < p->n; from += TILE_PANEL) {
        int64_t n = p->n - from < TILE_PANEL ? p->n - from : TILE_PANEL;
        tile_panel_f32(p->m, n, p->k, packed, &b, from, scratch, out);
        for (int64_t j = 0; j < n; j++)
            finish_float(p, o, alpha, beta, from + j, out + j * height, line);
    }
    if (gradient)
        sim_product_store(o->extras.sums, p->m, o->extras.bias, p->bias_type, 1);
    else if (product_epilogue_writes_bias(p->epilogue))
        product_sum_operand(p, o->a, o->b, o->extras.bias);
}

static void multiply_double(const Product *p, const Operands *o, double alpha, double beta)
{
    TileMatrix a = tile_matrix(&p->a, p->transpose_a, o->a);
    TileMatrix b = tile_matrix(&p->b, p->transpose_b, o->b);
    int64_t height = tile_height_f64(p->m), wide = sizeof(double), step, step_c = 1;
    double *packed = room(ROOM_PACKED, height * p->k * wide);
    double *scratch = room(ROOM_SCRATCH, TILE_PANEL * p->k * wide);
    double *out = room(ROOM_OUT, height * TILE_PANEL * wide);
    tile_pack_f64(p->m, p->k, &a, packed);
    for (int64_t from = 0; from < p->n; from += TILE_PANEL) {
        int64_t n = p->n - from < TILE_PANEL ? p->n - from : TILE_PANEL;
        tile_panel_f64(p->m, n, p->k, packed, &b, from, scratch, out);
        for (int64_t j = 0; j < n; j++) {
            double *d = (double *)(void *)column_of(&p->d, o->d, from + j, &step);
            const double *c =
                beta == 0 ? NULL
                          : (const double *)(void *)column_of(&p->c, o->c, from + j, &step_c);
            for (int64_t i = 0; i < p->m; i++) {
                double value = alpha * out[j * height + i];
                d[i * step] = c ? value + beta * c[i * step_c] : value;
            }
        }
    }
}

/* ------------------------------------------------------------------ operation */

static bool product_ranges(SimOp *op, const Product *p, Operands *operands, double beta)
{
    uint64_t noted =
        p->workspace_bytes < BLAS_WORKSPACE_NOTED ? p->workspace_bytes : BLAS_WORKSPACE_NOTED;
    if (p->k > 0 && (!matrices(op, p, &p->a, SIM_READ, "A", operands, offsetof(Operands, a)) ||
                     !matrices(op, p, &p->b, SIM_READ, "B", operands, offsetof(Operands, b))))
        return false;
    if (beta != 0 && !matrices(op, p, &p->c, SIM_READ, "C", operands, offsetof(Operands, c)))
        return false;
    if (!matrices(op, p, &p->d, SIM_WRITE, "the result", operands, offsetof(Operands, d)) ||
        !extras(op, p, operands))
        return false;
    if (p->workspace && noted &&
        !sim_range(op, p->workspace, noted, 0, 1, SIM_WRITE, false, "the workspace"))
        return false;
    return result_apart(op, p, operands);
}

static void product_run(SimOp *op)
{
    const Product *p = op->data;
    double alpha, beta;
    if (!scalar_at_run(op, &p->alpha, p->in_double, "alpha", &alpha) ||
        !scalar_at_run(op, &p->beta, p->in_double, "beta", &beta))
        return;
    Operands *operands = room(ROOM_OPERANDS, p->batch * (int64_t)sizeof *operands);
    memset(operands, 0, (size_t)p->batch * sizeof *operands);
    if (product_ranges(op, p, operands, beta))
        for (int i = 0; i < p->batch; i++) {
            if (p->in_double)
                multiply_double(p, &operands[i], alpha, beta);
            else
                multiply_float(p, &operands[i], alpha, beta);
        }
}

SimStream *sim_blas_stream(const BlasHandle *handle, void *stream, const char *call)
{
    char text[128];
    SimStream *s = sim_stream_of(stream, call);
    if (s && sim_stream_device(s) != handle->device) {
        sim_report(SIM_WRONG_DEVICE, "%s: the handle is of gpu %d, its stream is %s", call,
                   handle->device, sim_stream_describe(s, text, sizeof text));
        return NULL;
    }
    return s;
}

cublasStatus_t sim_product_enqueue(const BlasHandle *handle, void *stream, const Product *product)
{
    SimStream *s = sim_blas_stream(handle, stream, product->call);
    if (!s)
        return CUBLAS_STATUS_EXECUTION_FAILED;
    if (product->m == 0 || product->n == 0 || product->batch == 0)
        return CUBLAS_STATUS_SUCCESS;
    SimOp *op = sim_op_new(SIM_OP_RUN, sizeof *product, "%s %lldx%lldx%lld", product->call,
                           (long long)product->m, (long long)product->n, (long long)product->k);
    *(Product *)op->data = *product;
    op->run = product_run;
    sim_enqueue(s, op);
    return CUBLAS_STATUS_SUCCESS;
}
