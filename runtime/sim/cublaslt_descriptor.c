/* cublaslt_descriptor.c - cuBLASLt: layouts of matrices, descriptions of products, and
 * preferences: making, setting and asking.
 *
 * In: attributes by number, with the size that the caller believes they have; a size that is
 * not the attribute's own is refused, as the real library does. Each kind has a table of its
 * attributes. What has ended is kept for a while, so that its use can be told.
 */
#include <stdlib.h>
#include <string.h>

#include "cublaslt_descriptor.h"

enum { KEPT = 1024 };

typedef struct {
    int attribute;
    size_t offset, size;
} Field;

static void *ended[KEPT]; /* the last descriptors that were destroyed */
static unsigned nended;
static long alive;

static const char *kind_name(DescriptorKind kind)
{
    return kind == DESCRIPTOR_LAYOUT   ? "cublasLtMatrixLayout_t"
           : kind == DESCRIPTOR_MATMUL ? "cublasLtMatmulDesc_t"
                                       : "cublasLtMatmulPreference_t";
}

static void report_leaks(void)
{
    if (alive > 0)
        sim_report(SIM_LEAK, "%ld descriptors of cuBLASLt were never destroyed", alive);
}

bool descriptor_is(const void *descriptor, DescriptorKind kind, const char *call)
{
    uint32_t found = 0;
    if (!descriptor)
        return false;
    memcpy(&found, descriptor, sizeof found);
    if (found == (uint32_t)kind)
        return true;
    sim_report(SIM_MISUSE, "%s: a %s %s", call, kind_name(kind),
               found == DESCRIPTOR_ENDED ? "was destroyed" : "was never initialised");
    return false;
}

static cublasStatus_t create(void **descriptor, size_t size)
{
    static bool registered;
    if (!descriptor)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!(*descriptor = calloc(1, size)))
        return CUBLAS_STATUS_ALLOC_FAILED;
    if (!registered)
        sim_at_exit(report_leaks);
    registered = true;
    alive++;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t destroy(void *descriptor, DescriptorKind kind, const char *call)
{
    uint32_t end = DESCRIPTOR_ENDED;
    if (!descriptor_is(descriptor, kind, call))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(descriptor, &end, sizeof end);
    free(ended[nended % KEPT]);
    ended[nended++ % KEPT] = descriptor;
    alive--;
    return CUBLAS_STATUS_SUCCESS;
}

/* The attribute's place, where `size` is right; NULL after *why is set. */
static void *field_of(void *descriptor, const Field *fields, int attribute, size_t size,
                      DescriptorKind kind, const char *call, cublasStatus_t *why)
{
    *why = CUBLAS_STATUS_INVALID_VALUE;
    for (const Field *f = fields; f->size; f++)
        if (f->attribute == attribute)
            return f->size == size ? (char *)descriptor + f->offset : NULL;
    sim_report(SIM_UNKNOWN, "%s: attribute %d of a %s is not simulated", call, attribute,
               kind_name(kind));
    *why = CUBLAS_STATUS_NOT_SUPPORTED;
    return NULL;
}

static cublasStatus_t set(void *descriptor, DescriptorKind kind, const Field *fields, int attribute,
                          const void *value, size_t size, const char *call)
{
    cublasStatus_t why;
    if (!value || !descriptor_is(descriptor, kind, call))
        return CUBLAS_STATUS_INVALID_VALUE;
    void *place = field_of(descriptor, fields, attribute, size, kind, call, &why);
    if (!place)
        return why;
    memcpy(place, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t get(void *descriptor, DescriptorKind kind, const Field *fields, int attribute,
                          void *value, size_t size, size_t *written, const char *call)
{
    cublasStatus_t why;
    if (!descriptor_is(descriptor, kind, call) || (size == 0 && !written) || (size > 0 && !value))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (size == 0) {
        for (const Field *f = fields; f->size; f++)
            if (f->attribute == attribute)
                *written = f->size;
        return CUBLAS_STATUS_SUCCESS;
    }
    const void *place = field_of(descriptor, fields, attribute, size, kind, call, &why);
    if (!place)
        return why;
    memcpy(value, place, size);
    if (written)
        *written = size;
    return CUBLAS_STATUS_SUCCESS;
}

#define FIELD(descriptor, attribute, field)                                                        \
    {                                                                                              \
        attribute, offsetof(descriptor, field), sizeof((descriptor){0}.field)                      \
    }
#define LAYOUT(attribute, field) FIELD(LayoutDescriptor, CUBLASLT_MATRIX_LAYOUT_##attribute, field)
#define MATMUL(attribute, field) FIELD(MatmulDescriptor, CUBLASLT_MATMUL_DESC_##attribute, field)
#define PREFERENCE(attribute, field)                                                               \
    FIELD(PreferenceDescriptor, CUBLASLT_MATMUL_PREF_##attribute, field)

/* --------------------------------------------------------------------- layouts */

static const Field layout_fields[] = {LAYOUT(TYPE, type),
                                      LAYOUT(ORDER, order),
                                      LAYOUT(ROWS, rows),
                                      LAYOUT(COLS, cols),
                                      LAYOUT(LD, ld),
                                      LAYOUT(BATCH_COUNT, batch),
                                      LAYOUT(STRIDED_BATCH_OFFSET, stride),
                                      LAYOUT(BATCH_MODE, batch_mode),
                                      {0, 0, 0}};

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t size,
                                                 cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld)
{
    if (!layout)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (size < sizeof(LayoutDescriptor))
        return CUBLAS_STATUS_ALLOC_FAILED;
    LayoutDescriptor made = {.kind = DESCRIPTOR_LAYOUT,
                             .type = (uint32_t)type,
                             .order = CUBLASLT_ORDER_COL,
                             .batch = 1,
                             .rows = rows,
                             .cols = cols,
                             .ld = ld};
    memcpy(layout, &made, sizeof made);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t layout_create(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                    uint64_t rows, uint64_t cols, int64_t ld)
{
    cublasStatus_t status = create((void **)layout, sizeof **layout);
    return status != CUBLAS_STATUS_SUCCESS
               ? status
               : cublasLtMatrixLayoutInit_internal(*layout, sizeof **layout, type, rows, cols, ld);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    BLAS_CALL(SIM_CALL_WORK, layout_create(layout, type, rows, cols, ld));
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    BLAS_CALL(SIM_CALL_FREE, destroy(layout, DESCRIPTOR_LAYOUT, __func__));
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t size)
{
    BLAS_CALL(SIM_CALL_WORK,
              set(layout, DESCRIPTOR_LAYOUT, layout_fields, (int)attribute, value, size, __func__));
}

cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                void *value, size_t size, size_t *written)
{
    BLAS_CALL(SIM_CALL_QUERY, get(layout, DESCRIPTOR_LAYOUT, layout_fields, (int)attribute, value,
                                  size, written, __func__));
}

/* -------------------------------------------------------------------- products */

static const Field matmul_fields[] = {MATMUL(COMPUTE_TYPE, compute_type),
                                      MATMUL(SCALE_TYPE, scale_type),
                                      MATMUL(POINTER_MODE, pointer_mode),
                                      MATMUL(TRANSA, transa),
                                      MATMUL(TRANSB, transb),
                                      MATMUL(TRANSC, transc),
                                      MATMUL(FILL_MODE, fill_mode),
                                      MATMUL(EPILOGUE, epilogue),
                                      MATMUL(BIAS_POINTER, bias),
                                      MATMUL(BIAS_BATCH_STRIDE, bias_stride),
                                      MATMUL(EPILOGUE_AUX_POINTER, aux),
                                      MATMUL(EPILOGUE_AUX_LD, aux_ld),
                                      MATMUL(EPILOGUE_AUX_BATCH_STRIDE, aux_stride),
                                      MATMUL(ALPHA_VECTOR_BATCH_STRIDE, alpha_stride),
                                      MATMUL(SM_COUNT_TARGET, sm_count),
                                      MATMUL(EPILOGUE_AUX_DATA_TYPE, aux_type),
                                      MATMUL(FAST_ACCUM, fast_accumulation),
                                      MATMUL(BIAS_DATA_TYPE, bias_type),
                                      {0, 0, 0}};

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t desc, size_t size,
                                               cublasComputeType_t compute, cudaDataType_t scale)
{
    if (!desc)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (size < sizeof(MatmulDescriptor))
        return CUBLAS_STATUS_ALLOC_FAILED;
    MatmulDescriptor made = {.kind = DESCRIPTOR_MATMUL,
                             .compute_type = (int32_t)compute,
                             .scale_type = (int32_t)scale,
                             .fill_mode = CUBLAS_FILL_MODE_FULL,
                             .epilogue = CUBLASLT_EPILOGUE_DEFAULT,
                             .aux_type = -1,
                             .bias_type = -1};
    memcpy(desc, &made, sizeof made);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t matmul_create(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                    cudaDataType_t scale)
{
    cublasStatus_t status = create((void **)desc, sizeof **desc);
    return status != CUBLAS_STATUS_SUCCESS
               ? status
               : cublasLtMatmulDescInit_internal(*desc, sizeof **desc, compute, scale);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    BLAS_CALL(SIM_CALL_WORK, matmul_create(desc, compute, scale));
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    BLAS_CALL(SIM_CALL_FREE, destroy(desc, DESCRIPTOR_MATMUL, __func__));
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t size)
{
    BLAS_CALL(SIM_CALL_WORK,
              set(desc, DESCRIPTOR_MATMUL, matmul_fields, (int)attribute, value, size, __func__));
}

cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute, void *value,
                                              size_t size, size_t *written)
{
    BLAS_CALL(SIM_CALL_QUERY, get(desc, DESCRIPTOR_MATMUL, matmul_fields, (int)attribute, value,
                                  size, written, __func__));
}

/* ----------------------------------------------------------------- preferences */

static const Field preference_fields[] = {PREFERENCE(SEARCH_MODE, search_mode),
                                          PREFERENCE(MAX_WORKSPACE_BYTES, workspace_bytes),
                                          PREFERENCE(REDUCTION_SCHEME_MASK, reductions),
                                          PREFERENCE(MIN_ALIGNMENT_A_BYTES, alignment[0]),
                                          PREFERENCE(MIN_ALIGNMENT_B_BYTES, alignment[1]),
                                          PREFERENCE(MIN_ALIGNMENT_C_BYTES, alignment[2]),
                                          PREFERENCE(MIN_ALIGNMENT_D_BYTES, alignment[3]),
                                          PREFERENCE(MAX_WAVES_COUNT, waves),
                                          PREFERENCE(IMPL_MASK, implementations),
                                          {0, 0, 0}};

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference,
                                                     size_t size)
{
    if (!preference)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (size < sizeof(PreferenceDescriptor))
        return CUBLAS_STATUS_ALLOC_FAILED;
    PreferenceDescriptor made = {.kind = DESCRIPTOR_PREFERENCE,
                                 .implementations = UINT64_MAX,
                                 .reductions = CUBLASLT_REDUCTION_SCHEME_MASK,
                                 .alignment = {256, 256, 256, 256}};
    memcpy(preference, &made, sizeof made);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t preference_create(cublasLtMatmulPreference_t *preference)
{
    cublasStatus_t status = create((void **)preference, sizeof **preference);
    return status != CUBLAS_STATUS_SUCCESS
               ? status
               : cublasLtMatmulPreferenceInit_internal(*preference, sizeof **preference);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    BLAS_CALL(SIM_CALL_WORK, preference_create(preference));
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    BLAS_CALL(SIM_CALL_FREE, destroy(preference, DESCRIPTOR_PREFERENCE, __func__));
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t size)
{
    BLAS_CALL(SIM_CALL_WORK, set(preference, DESCRIPTOR_PREFERENCE, preference_fields,
                                 (int)attribute, value, size, __func__));
}

cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    void *value, size_t size, size_t *written)
{
    BLAS_CALL(SIM_CALL_QUERY, get(preference, DESCRIPTOR_PREFERENCE, preference_fields,
                                  (int)attribute, value, size, written, __func__));
}
