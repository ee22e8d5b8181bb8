/* cublas_vector.c - cuBLAS: vectors in float, a matrix times a vector, sums of matrices.
 *
 * In: the arguments of cublasS{scal,axpy,dot,nrm2,gemv,geam}. Out: an operation in the handle's
 * stream. A matrix times a vector is a product whose vectors are matrices of one column. Dot
 * products and norms are summed in double; a result that goes to the host is waited for.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cublaslt_product.h"

#include <cublas_v2.h>

typedef enum { VECTOR_SCALE, VECTOR_ADD, VECTOR_DOT, VECTOR_NORM } VectorKind;

/* Where a result goes that the host waits for. */
typedef struct {
    float value;
    bool done;
} Waited;

typedef struct {
    VectorKind kind;
    int64_t n, step_x, step_y;
    uint64_t x, y; /* y: of ADD and DOT */
    ProductScalar alpha;
    uint64_t result; /* in device memory, or */
    Waited *waited;
    char call[32];
} VectorOp;

static float *vector_at(SimOp *op, uint64_t address, int64_t step, int64_t n, SimAccess access,
                        const char *what)
{
    const VectorOp *v = op->data;
    uint64_t wide = sizeof(float);
    if (address % wide != 0) {
        sim_report(SIM_MISALIGNED, "%s: %s (0x%llx) is not a multiple of 4 bytes", v->call, what,
                   (unsigned long long)address);
        return NULL;
    }
    if (step == 1)
        return sim_range(op, address, (uint64_t)n * wide, 0, 1, access, false, what);
    return sim_range(op, address, wide, (uint64_t)step * wide, (uint64_t)n, access, false, what);
}

static bool vector_alpha(SimOp *op, const ProductScalar *scalar, float *alpha)
{
    *alpha = (float)scalar->value;
    if (scalar->address == 0)
        return true;
    const float *at = vector_at(op, scalar->address, 1, 1, SIM_READ, "alpha");
    if (at)
        *alpha = *at;
    return at != NULL;
}

static double vector_sum(const VectorOp *v, const float *x, const float *y)
{
    double sum = 0;
    if (v->kind == VECTOR_DOT)
        for (int64_t i = 0; i < v->n; i++)
            sum += (double)x[i * v->step_x] * (double)y[i * v->step_y];
    else
        for (int64_t i = 0; i < v->n; i++)
            sum += (double)x[i * v->step_x] * (double)x[i * v->step_x];
    return v->kind == VECTOR_DOT ? sum : sqrt(sum);
}

static void vector_result(SimOp *op, const VectorOp *v, float value)
{
    if (v->waited) {
        v->waited->value = value;
        v->waited->done = true;
        return;
    }
    float *to = vector_at(op, v->result, 1, 1, SIM_WRITE, "the result");
    if (to)
        *to = value;
}

static void vector_run(SimOp *op)
{
    const VectorOp *v = op->data;
    bool sums = v->kind == VECTOR_DOT || v->kind == VECTOR_NORM;
    float alpha = 0, *x = NULL, *y = NULL;
    int of_x = v->kind == VECTOR_SCALE ? SIM_READ | SIM_WRITE : SIM_READ;
    int of_y = v->kind == VECTOR_ADD ? SIM_READ | SIM_WRITE : SIM_READ;
    bool fine = sums || vector_alpha(op, &v->alpha, &alpha);
    for (int access = SIM_READ; access <= SIM_WRITE; access++) {
        if (fine && v->n > 0 && (of_x & access))
            fine = (x = vector_at(op, v->x, v->step_x, v->n, (SimAccess)access, "x")) != NULL;
        if (fine && v->n > 0 && v->y && (of_y & access))
            fine = (y = vector_at(op, v->y, v->step_y, v->n, (SimAccess)access, "y")) != NULL;
    }
    if (sums) {
        vector_result(op, v, fine ? (float)vector_sum(v, x, y) : 0);
        return;
    }
    for (int64_t i = 0; fine && i < v->n; i++) {
        if (v->kind == VECTOR_SCALE)
            x[i * v->step_x] *= alpha;
        else
            y[i * v->step_y] = fmaf(alpha, x[i * v->step_x], y[i * v->step_y]);
    }
}

static bool vector_done(void *data)
{
    return ((const Waited *)data)->done;
}

static cublasStatus_t vector_enqueue(const BlasHandle *h, VectorOp *v, float *result,
                                     const char *call)
{
    SimStream *s = sim_blas_stream(h, h->stream, call);
    Waited *waited = NULL;
    if (!s)
        return CUBLAS_STATUS_EXECUTION_FAILED;
    if (result && h->pointer_mode == CUBLAS_POINTER_MODE_HOST) {
        if (sim_device_of((uint64_t)(uintptr_t)result) >= 0) {
            sim_report(SIM_HOST_ACCESS,
                       "%s: the result is in device memory, but the pointer mode says host", call);
            return CUBLAS_STATUS_EXECUTION_FAILED;
        }
        if (!(waited = calloc(1, sizeof *waited)))
            return CUBLAS_STATUS_ALLOC_FAILED;
    }
    v->waited = waited;
    v->result = (uint64_t)(uintptr_t)result;
    snprintf(v->call, sizeof v->call, "%s", call);
    SimOp *op = sim_op_new(SIM_OP_RUN, sizeof *v, "%s %lld", call, (long long)v->n);
    *(VectorOp *)op->data = *v;
    op->run = vector_run;
    sim_enqueue(s, op);
    if (!waited)
        return CUBLAS_STATUS_SUCCESS;
    bool done = sim_wait(vector_done, waited, call);
    if (!done) /* the operation still knows where its result goes */
        return CUBLAS_STATUS_EXECUTION_FAILED;
    *result = waited->value;
    free(waited);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t steps_fit(int64_t step_x, int64_t step_y, const char *call)
{
    if (step_x >= 0 && step_y >= 0)
        return CUBLAS_STATUS_SUCCESS;
    sim_report(SIM_UNKNOWN, "%s: a negative increment is not simulated", call);
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

static cublasStatus_t vector(cublasHandle_t handle, VectorOp v, const float *alpha, float *result,
                             const char *call)
{
    cublasStatus_t status;
    const BlasHandle *h = sim_blas_handle(handle, call, &status);
    bool sums = v.kind == VECTOR_DOT || v.kind == VECTOR_NORM, on_device;
    if (!h)
        return status;
    if (sums ? !result : !alpha)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (v.n <= 0 && !sums)
        return CUBLAS_STATUS_SUCCESS;
    v.n = v.n < 0 ? 0 : v.n;
    if (v.n > 0 && (!v.x || ((v.kind == VECTOR_ADD || v.kind == VECTOR_DOT) && !v.y)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if ((status = steps_fit(v.step_x, v.step_y, call)) != CUBLAS_STATUS_SUCCESS)
        return status;
    on_device = h->pointer_mode == CUBLAS_POINTER_MODE_DEVICE;
    if (alpha && !sim_product_scalar(&v.alpha, alpha, on_device, false, call, "alpha"))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    return vector_enqueue(h, &v, result, call);
}

#define X .x = (uint64_t)(uintptr_t)x, .step_x = incx
#define Y .y = (uint64_t)(uintptr_t)y, .step_y = incy

cublasStatus_t cublasSscal_v2(cublasHandle_t handle, int n, const float *alpha, float *x, int incx)
{
    BLAS_CALL(SIM_CALL_WORK,
              vector(handle, (VectorOp){.kind = VECTOR_SCALE, .n = n, X}, alpha, NULL, __func__));
}

cublasStatus_t cublasSaxpy_v2(cublasHandle_t handle, int n, const float *alpha, const float *x,
                              int incx, float *y, int incy)
{
    BLAS_CALL(SIM_CALL_WORK,
              vector(handle, (VectorOp){.kind = VECTOR_ADD, .n = n, X, Y}, alpha, NULL, __func__));
}

cublasStatus_t cublasSdot_v2(cublasHandle_t handle, int n, const float *x, int incx, const float *y,
                             int incy, float *result)
{
    BLAS_CALL(SIM_CALL_WORK,
              vector(handle, (VectorOp){.kind = VECTOR_DOT, .n = n, X, Y}, NULL, result, __func__));
}

cublasStatus_t cublasSnrm2_v2(cublasHandle_t handle, int n, const float *x, int incx, float *result)
{
    BLAS_CALL(SIM_CALL_WORK,
              vector(handle, (VectorOp){.kind = VECTOR_NORM, .n = n, X}, NULL, result, __func__));
}

/* ------------------------------------------------------------- matrix times vector */

static bool is_operation(cublasOperation_t op)
{
    return op == CUBLAS_OP_N || op == CUBLAS_OP_T || op == CUBLAS_OP_C;
}

typedef struct {
    cublasOperation_t trans;
    int64_t m, n;
    const float *alpha, *a, *x, *beta;
    int64_t lda, incx, incy;
    float *y;
} GemvCall;

static ProductMatrix as_matrix(const float *data, int64_t n, int64_t step)
{
    return (ProductMatrix){.address = (uint64_t)(uintptr_t)data,
                           .type = CUDA_R_32F,
                           .rows = n,
                           .cols = 1,
                           .ld = step,
                           .row_major = true};
}

static cublasStatus_t gemv(cublasHandle_t handle, const GemvCall *g, const char *call)
{
    cublasStatus_t status;
    const BlasHandle *h = sim_blas_handle(handle, call, &status);
    bool t = g->trans != CUBLAS_OP_N;
    if (!h)
        return status;
    if (!is_operation(g->trans) || g->m < 0 || g->n < 0 || g->lda < (g->m > 1 ? g->m : 1) ||
        g->incx == 0 || g->incy == 0 || !g->alpha || !g->beta)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (g->m == 0 || g->n == 0)
        return CUBLAS_STATUS_SUCCESS;
    if ((status = steps_fit(g->incx, g->incy, call)) != CUBLAS_STATUS_SUCCESS)
        return status;
    if (!g->a || !g->x || !g->y)
        return CUBLAS_STATUS_INVALID_VALUE;
    Product p = {.m = t ? g->n : g->m,
                 .n = 1,
                 .k = t ? g->m : g->n,
                 .batch = 1,
                 .transpose_a = t,
                 .epilogue = CUBLASLT_EPILOGUE_DEFAULT,
                 .workspace = h->workspace,
                 .workspace_bytes = h->workspace_bytes};
    p.a = (ProductMatrix){.address = (uint64_t)(uintptr_t)g->a,
                          .type = CUDA_R_32F,
                          .rows = g->m,
                          .cols = g->n,
                          .ld = g->lda};
    p.b = as_matrix(g->x, p.k, g->incx);
    p.c = as_matrix(g->y, p.m, g->incy);
    p.d = p.c;
    snprintf(p.call, sizeof p.call, "%s", call);
    bool on_device = h->pointer_mode == CUBLAS_POINTER_MODE_DEVICE;
    if (!sim_product_scalar(&p.alpha, g->alpha, on_device, false, call, "alpha") ||
        !sim_product_scalar(&p.beta, g->beta, on_device, false, call, "beta"))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    return sim_product_enqueue(h, h->stream, &p);
}

cublasStatus_t cublasSgemv_v2(cublasHandle_t handle, cublasOperation_t trans, int m, int n,
                              const float *alpha, const float *A, int lda, const float *x, int incx,
                              const float *beta, float *y, int incy)
{
    GemvCall g = {trans, m, n, alpha, A, x, beta, lda, incx, incy, y};
    BLAS_CALL(SIM_CALL_WORK, gemv(handle, &g, __func__));
}

/* ---------------------------------------------------------------- sums of matrices */

typedef struct {
    char call[32];
    bool trans[2];
    int64_t m, n, ld[3];
    ProductScalar scale[2];
    uint64_t data[3]; /* A, B, C */
} SumOp;

static float *sum_at(SimOp *op, const SumOp *s, int which, SimAccess access)
{
    static const char *const names[] = {"A", "B", "the result"};
    bool t = which < 2 && s->trans[which];
    uint64_t wide = sizeof(float), rows = (uint64_t)(t ? s->n : s->m);
    if (s->data[which] % wide != 0) {
        sim_report(SIM_MISALIGNED, "%s: %s (0x%llx) is not a multiple of 4 bytes", s->call,
                   names[which], (unsigned long long)s->data[which]);
        return NULL;
    }
    return sim_range(op, s->data[which], rows * wide, (uint64_t)s->ld[which] * wide,
                     (uint64_t)(t ? s->m : s->n), access, false, names[which]);
}

static void sum_run(SimOp *op)
{
    const SumOp *s = op->data;
    float scale[2];
    const float *from[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++)
        if (!vector_alpha(op, &s->scale[i], &scale[i]) ||
            (scale[i] != 0 && !(from[i] = sum_at(op, s, i, SIM_READ))))
            return;
    float *to = sum_at(op, s, 2, SIM_WRITE);
    for (int64_t j = 0; to && j < s->n; j++)
        for (int64_t i = 0; i < s->m; i++) {
            float sum = 0;
            for (int q = 0; q < 2; q++)
                if (from[q])
                    sum += scale[q] * from[q][s->trans[q] ? j + i * s->ld[q] : i + j * s->ld[q]];
            to[i + j * s->ld[2]] = sum;
        }
}

/* In place is fine without transposition and with the same distance of columns. */
static bool sum_in_place_valid(const SumOp *s)
{
    for (int i = 0; i < 2; i++)
        if (s->data[i] == s->data[2] && (s->trans[i] || s->ld[i] != s->ld[2]))
            return false;
    return true;
}

static cublasStatus_t sum_enqueue(cublasHandle_t handle, SumOp *s, const float *alpha,
                                  const float *beta, const char *call)
{
    cublasStatus_t status;
    const BlasHandle *h = sim_blas_handle(handle, call, &status);
    if (!h)
        return status;
    for (int i = 0; i < 3; i++) {
        int64_t rows = i < 2 && s->trans[i] ? s->n : s->m;
        if (s->m < 0 || s->n < 0 || s->ld[i] < (rows > 1 ? rows : 1))
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (!alpha || !beta || !sum_in_place_valid(s))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (s->m == 0 || s->n == 0)
        return CUBLAS_STATUS_SUCCESS;
    bool on_device = h->pointer_mode == CUBLAS_POINTER_MODE_DEVICE;
    if (!sim_product_scalar(&s->scale[0], alpha, on_device, false, call, "alpha") ||
        !sim_product_scalar(&s->scale[1], beta, on_device, false, call, "beta"))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    SimStream *stream = sim_blas_stream(h, h->stream, call);
    if (!stream)
        return CUBLAS_STATUS_EXECUTION_FAILED;
    snprintf(s->call, sizeof s->call, "%s", call);
    SimOp *op =
        sim_op_new(SIM_OP_RUN, sizeof *s, "%s %lldx%lld", call, (long long)s->m, (long long)s->n);
    *(SumOp *)op->data = *s;
    op->run = sum_run;
    sim_enqueue(stream, op);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgeam(cublasHandle_t handle, cublasOperation_t transa,
                           cublasOperation_t transb, int m, int n, const float *alpha,
                           const float *A, int lda, const float *beta, const float *B, int ldb,
                           float *C, int ldc)
{
    SumOp s = {.trans = {transa != CUBLAS_OP_N, transb != CUBLAS_OP_N},
               .m = m,
               .n = n,
               .ld = {lda, ldb, ldc},
               .data = {(uint64_t)(uintptr_t)A, (uint64_t)(uintptr_t)B, (uint64_t)(uintptr_t)C}};
    BLAS_CALL(SIM_CALL_WORK, !is_operation(transa) || !is_operation(transb)
                                 ? CUBLAS_STATUS_INVALID_VALUE
                                 : sum_enqueue(handle, &s, alpha, beta, __func__));
}
