/* cublaslt_matmul.c - cublasLtMatmul and the choice of its algorithm.
 *
 * In: descriptors and pointers. What does not fit together is refused with the status of the
 * real library; what that can do and this cannot is reported. Out: a Product in the stream.
 * There is one algorithm. It asks for a part of the workspace that the preference allows, so
 * that a call that brings less is found.
 */
#include <string.h>

#include "cublaslt_descriptor.h"

typedef struct {
    MatmulDescriptor desc;
    LayoutDescriptor a, b, c, d;
} Matmul;

static bool copy(void *to, const void *descriptor, DescriptorKind kind, size_t size,
                 const char *call)
{
    if (!descriptor_is(descriptor, kind, call))
        return false;
    memcpy(to, descriptor, size);
    return true;
}

static bool layout(LayoutDescriptor *to, cublasLtMatrixLayout_t from, const char *call)
{
    return copy(to, from, DESCRIPTOR_LAYOUT, sizeof *to, call);
}

static cublasStatus_t unknown(const char *call, const char *what, long long value)
{
    sim_report(SIM_UNKNOWN, "%s: %s %lld is not simulated", call, what, value);
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

static bool layout_valid(const LayoutDescriptor *l)
{
    uint64_t line = l->order == CUBLASLT_ORDER_ROW ? l->cols : l->rows;
    return l->rows > 0 && l->cols > 0 && l->rows <= INT32_MAX && l->cols <= INT32_MAX &&
           l->ld >= (int64_t)line && l->batch >= 1;
}

static cublasStatus_t layouts_simulated(const Matmul *m, const char *call)
{
    const LayoutDescriptor *all[] = {&m->a, &m->b, &m->c, &m->d};
    for (int i = 0; i < 4; i++) {
        if (all[i]->order != CUBLASLT_ORDER_COL && all[i]->order != CUBLASLT_ORDER_ROW)
            return unknown(call, "order", all[i]->order);
        if (all[i]->batch_mode != CUBLASLT_BATCH_MODE_STRIDED)
            return unknown(call, "batch mode", (long long)all[i]->batch_mode);
        if (!layout_valid(all[i]))
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    return CUBLAS_STATUS_SUCCESS;
}

static cudaDataType type_or(int32_t asked, uint32_t otherwise)
{
    return (cudaDataType)(asked < 0 ? otherwise : (uint32_t)asked);
}

static cublasStatus_t epilogue_fits(const Matmul *m, const Product *p, const char *call)
{
    uint32_t e = p->epilogue;
    if (!product_epilogue_is_known(e))
        return unknown(call, "epilogue", (long long)e);
    if (e == CUBLASLT_EPILOGUE_DEFAULT)
        return CUBLAS_STATUS_SUCCESS;
    if (p->in_double || m->d.order == CUBLASLT_ORDER_ROW)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    bool bias = product_epilogue_reads_bias(e) || product_epilogue_writes_bias(e);
    if (bias && p->bias_type != p->d.type)
        return sim_product_size_of(p->bias_type) ? CUBLAS_STATUS_NOT_SUPPORTED
                                                 : CUBLAS_STATUS_INVALID_VALUE;
    if (!product_epilogue_has_aux(e))
        return CUBLAS_STATUS_SUCCESS;
    bool bits = product_epilogue_aux_is_bits(e);
    int64_t unit = bits ? 128 : 8;
    if (p->aux_ld < p->m || p->aux_ld % unit || p->aux_stride % unit)
        return CUBLAS_STATUS_INVALID_VALUE;
    return !bits && p->aux_type != p->d.type ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

static ProductMatrix matrix(const LayoutDescriptor *l, const void *data)
{
    return (ProductMatrix){.address = (uint64_t)(uintptr_t)data,
                           .type = (cudaDataType)l->type,
                           .rows = (int64_t)l->rows,
                           .cols = (int64_t)l->cols,
                           .ld = l->ld,
                           .stride = l->stride,
                           .row_major = l->order == CUBLASLT_ORDER_ROW};
}

static cublasStatus_t types_fit(const Matmul *m, Product *p, const char *call)
{
    bool not_simulated;
    const MatmulDescriptor *d = &m->desc;
    cublasStatus_t status = sim_product_types(
        (cublasComputeType_t)d->compute_type, (cudaDataType)m->a.type, (cudaDataType)m->b.type,
        (cudaDataType)m->d.type, &p->in_double, &not_simulated);
    if (not_simulated) {
        sim_report(SIM_UNKNOWN,
                   "%s: compute type %d with data of types %u, %u, %u is not simulated", call,
                   d->compute_type, m->a.type, m->b.type, m->d.type);
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    bool scale = d->scale_type == (p->in_double ? CUDA_R_64F : CUDA_R_32F);
    return scale && m->c.type == m->d.type ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* Everything but pointers: what the heuristic, too, looks at. */
static cublasStatus_t matmul_fits(const Matmul *m, Product *p, const char *call)
{
    const MatmulDescriptor *d = &m->desc;
    bool ta = d->transa != CUBLAS_OP_N, tb = d->transb != CUBLAS_OP_N;
    cublasStatus_t status = layouts_simulated(m, call);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if ((unsigned)d->transa > CUBLAS_OP_C || (unsigned)d->transb > CUBLAS_OP_C ||
        d->transc != CUBLAS_OP_N || d->fill_mode != CUBLAS_FILL_MODE_FULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (d->pointer_mode != CUBLASLT_POINTER_MODE_HOST &&
        d->pointer_mode != CUBLASLT_POINTER_MODE_DEVICE)
        return unknown(call, "pointer mode", d->pointer_mode);
    p->m = (int64_t)(ta ? m->a.cols : m->a.rows);
    p->k = (int64_t)(ta ? m->a.rows : m->a.cols);
    p->n = (int64_t)(tb ? m->b.rows : m->b.cols);
    p->batch = m->d.batch;
    p->transpose_a = ta;
    p->transpose_b = tb;
    if (p->k != (int64_t)(tb ? m->b.cols : m->b.rows) || p->m != (int64_t)m->d.rows ||
        p->n != (int64_t)m->d.cols || m->c.rows != m->d.rows || m->c.cols != m->d.cols ||
        m->a.batch != p->batch || m->b.batch != p->batch || m->c.batch != p->batch ||
        m->c.order != m->d.order)
        return CUBLAS_STATUS_INVALID_VALUE;
    p->a = matrix(&m->a, NULL);
    p->b = matrix(&m->b, NULL);
    p->c = matrix(&m->c, NULL);
    p->d = matrix(&m->d, NULL);
    p->epilogue = d->epilogue;
    p->bias_type = type_or(d->bias_type, m->d.type);
    p->aux_type = type_or(d->aux_type, m->d.type);
    p->bias_stride = d->bias_stride;
    p->aux_ld = d->aux_ld;
    p->aux_stride = d->aux_stride;
    status = types_fit(m, p, call);
    return status != CUBLAS_STATUS_SUCCESS ? status : epilogue_fits(m, p, call);
}

static bool descriptors(Matmul *m, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                        cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                        cublasLtMatrixLayout_t d, const char *call)
{
    return copy(&m->desc, desc, DESCRIPTOR_MATMUL, sizeof m->desc, call) &&
           layout(&m->a, a, call) && layout(&m->b, b, call) && layout(&m->c, c, call) &&
           layout(&m->d, d, call);
}

/* ------------------------------------------------------------------- the product */

static bool results_apart(const Product *p)
{
    int64_t line = p->d.row_major ? p->n : p->m;
    int64_t apart = p->d.stride < 0 ? -p->d.stride : p->d.stride;
    if (p->batch < 2 || apart >= line)
        return true;
    sim_report(SIM_RACE, "%s: results of a batch overlap: they are %lld elements apart", p->call,
               (long long)p->d.stride);
    return false;
}

static cublasStatus_t pointers(const Matmul *m, Product *p, const void *alpha, const void *beta,
                               const void *a, const void *b, const void *c, const void *d)
{
    const MatmulDescriptor *desc = &m->desc;
    bool on_device = desc->pointer_mode == CUBLASLT_POINTER_MODE_DEVICE;
    bool bias =
        product_epilogue_reads_bias(p->epilogue) || product_epilogue_writes_bias(p->epilogue);
    if (!alpha || !beta || !a || !b || !d || (bias && !desc->bias) ||
        (product_epilogue_has_aux(p->epilogue) && !desc->aux))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!sim_product_scalar(&p->alpha, alpha, on_device, p->in_double, p->call, "alpha") ||
        !sim_product_scalar(&p->beta, beta, on_device, p->in_double, p->call, "beta"))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    if (!c && (on_device || p->beta.value != 0))
        return CUBLAS_STATUS_INVALID_VALUE;
    p->a.address = (uint64_t)(uintptr_t)a;
    p->b.address = (uint64_t)(uintptr_t)b;
    p->c.address = (uint64_t)(uintptr_t)c;
    p->d.address = (uint64_t)(uintptr_t)d;
    p->bias = (uint64_t)(uintptr_t)desc->bias;
    p->aux = (uint64_t)(uintptr_t)desc->aux;
    return results_apart(p) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

static cublasStatus_t workspace_fits(const BlasHandle *h, const cublasLtMatmulAlgo_t *algo,
                                     const void *workspace, size_t bytes, Product *p)
{
    AlgorithmDescriptor algorithm;
    char text[256];
    uint64_t address = (uint64_t)(uintptr_t)workspace;
    if (algo) {
        memcpy(&algorithm, algo, sizeof algorithm);
        if (algorithm.kind != DESCRIPTOR_ALGORITHM || bytes < algorithm.workspace_bytes)
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (bytes == 0)
        return CUBLAS_STATUS_SUCCESS;
    if (!workspace || address % 16 != 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (sim_device_of(address) == h->device && !sim_memory_inside(h->device, address, bytes)) {
        sim_report(SIM_OUT_OF_BOUNDS, "%s: a workspace of %zu bytes ends %s", p->call, bytes,
                   sim_memory_describe(address + bytes - 1, text, sizeof text));
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    p->workspace = address;
    p->workspace_bytes = bytes;
    return CUBLAS_STATUS_SUCCESS;
}

/* The arguments of cublasLtMatmul that are no descriptors. */
typedef struct {
    const void *alpha, *beta, *a, *b, *c;
    void *d;
    const cublasLtMatmulAlgo_t *algo;
    void *workspace;
    size_t workspace_bytes;
    cudaStream_t stream;
} MatmulArguments;

static cublasStatus_t matmul(cublasLtHandle_t handle, const Matmul *m, const MatmulArguments *args,
                             const char *call)
{
    Product p = {0};
    cublasStatus_t status;
    const BlasHandle *h = sim_blas_handle(handle, call, &status);
    if (!h)
        return status;
    snprintf(p.call, sizeof p.call, "%s", call);
    if ((status = matmul_fits(m, &p, call)) != CUBLAS_STATUS_SUCCESS ||
        (status = pointers(m, &p, args->alpha, args->beta, args->a, args->b, args->c, args->d)) !=
            CUBLAS_STATUS_SUCCESS ||
        (status = workspace_fits(h, args->algo, args->workspace, args->workspace_bytes, &p)) !=
            CUBLAS_STATUS_SUCCESS)
        return status;
    return sim_product_enqueue(h, args->stream, &p);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *A, cublasLtMatrixLayout_t Adesc, const void *B,
                              cublasLtMatrixLayout_t Bdesc, const void *beta, const void *C,
                              cublasLtMatrixLayout_t Cdesc, void *D, cublasLtMatrixLayout_t Ddesc,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t bytes,
                              cudaStream_t stream)
{
    Matmul m;
    MatmulArguments args = {alpha, beta, A, B, C, D, algo, workspace, bytes, stream};
    BLAS_CALL(SIM_CALL_WORK, descriptors(&m, desc, Adesc, Bdesc, Cdesc, Ddesc, __func__)
                                 ? matmul(handle, &m, &args, __func__)
                                 : CUBLAS_STATUS_INVALID_VALUE);
}

/* ------------------------------------------------------------------ the algorithm */

static cublasStatus_t choose(const Matmul *m, const void *preference, int asked,
                             cublasLtMatmulHeuristicResult_t *results, int *returned,
                             const char *call)
{
    Product p = {0};
    PreferenceDescriptor wish;
    if (asked <= 0 || !results || !returned ||
        !copy(&wish, preference, DESCRIPTOR_PREFERENCE, sizeof wish, call))
        return CUBLAS_STATUS_INVALID_VALUE;
    *returned = 0;
    cublasStatus_t status = matmul_fits(m, &p, call);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    uint64_t bytes = wish.workspace_bytes / BLAS_ALIGNMENT * BLAS_ALIGNMENT;
    if (bytes > BLAS_WORKSPACE_NOTED)
        bytes = BLAS_WORKSPACE_NOTED;
    AlgorithmDescriptor algorithm = {.kind = DESCRIPTOR_ALGORITHM, .workspace_bytes = bytes};
    memset(results, 0, sizeof *results);
    memcpy(&results->algo, &algorithm, sizeof algorithm);
    results->workspaceSize = bytes;
    results->state = CUBLAS_STATUS_SUCCESS;
    results->wavesCount = 1;
    *returned = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                               cublasLtMatrixLayout_t Adesc, cublasLtMatrixLayout_t Bdesc,
                               cublasLtMatrixLayout_t Cdesc, cublasLtMatrixLayout_t Ddesc,
                               cublasLtMatmulPreference_t preference, int asked,
                               cublasLtMatmulHeuristicResult_t results[], int *returned)
{
    Matmul m;
    cublasStatus_t why;
    BLAS_CALL(SIM_CALL_WORK, !sim_blas_handle_anywhere(handle, __func__, &why) ? why
                             : descriptors(&m, desc, Adesc, Bdesc, Cdesc, Ddesc, __func__)
                                 ? choose(&m, preference, asked, results, returned, __func__)
                                 : CUBLAS_STATUS_INVALID_VALUE);
}
