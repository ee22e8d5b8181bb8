/* cublaslt_elements.c - types of elements: sizes, conversions, and which may be combined. */
#include <string.h>

#include "cublaslt_product.h"
#include "half_numbers.h"

int sim_product_size_of(cudaDataType type)
{
    switch ((int)type) {
    case CUDA_R_32F:
        return 4;
    case CUDA_R_64F:
        return 8;
    case CUDA_R_16F:
    case CUDA_R_16BF:
        return 2;
    default:
        return 0;
    }
}

/* The real library's own kinds that are not simulated: integers, 8-bit floats, complex. */
static bool exists(cudaDataType type)
{
    return (int)type >= 0 && (int)type <= 33;
}

static cublasStatus_t types_of_float(cudaDataType a, cudaDataType b, cudaDataType c, bool fast,
                                     bool *unknown)
{
    if (sim_product_size_of(a) == 0 || sim_product_size_of(b) == 0 || sim_product_size_of(c) == 0) {
        *unknown = true;
        return CUBLAS_STATUS_SUCCESS;
    }
    bool half = a == CUDA_R_16F || a == CUDA_R_16BF;
    bool fits = a == b &&
                (half ? !fast && (c == a || c == CUDA_R_32F) : a == CUDA_R_32F && c == CUDA_R_32F);
    return fits ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t sim_product_types(cublasComputeType_t compute, cudaDataType a, cudaDataType b,
                                 cudaDataType c, bool *in_double, bool *unknown)
{
    *in_double = *unknown = false;
    if (!exists(a) || !exists(b) || !exists(c))
        return CUBLAS_STATUS_INVALID_VALUE;
    switch ((int)compute) {
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_PEDANTIC:
        return types_of_float(a, b, c, false, unknown);
    case CUBLAS_COMPUTE_32F_FAST_16F:
    case CUBLAS_COMPUTE_32F_FAST_16BF:
    case CUBLAS_COMPUTE_32F_FAST_TF32:
        return types_of_float(a, b, c, true, unknown);
    case CUBLAS_COMPUTE_64F:
    case CUBLAS_COMPUTE_64F_PEDANTIC:
        *in_double = true;
        if (a == CUDA_R_64F && b == CUDA_R_64F && c == CUDA_R_64F)
            return CUBLAS_STATUS_SUCCESS;
        *unknown = a == CUDA_C_64F;
        return *unknown ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
    case CUBLAS_COMPUTE_16F:
    case CUBLAS_COMPUTE_16F_PEDANTIC:
    case CUBLAS_COMPUTE_32F_EMULATED_16BFX9:
    case CUBLAS_COMPUTE_64F_EMULATED_FIXEDPOINT:
    case CUBLAS_COMPUTE_32I:
    case CUBLAS_COMPUTE_32I_PEDANTIC:
        *unknown = true;
        return CUBLAS_STATUS_SUCCESS;
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

void sim_product_load(const void *from, cudaDataType type, int64_t step, int64_t n, float *to)
{
    const uint16_t *narrow = from;
    const float *wide = from;
    const double *full = from;
    if (type == CUDA_R_16BF)
        for (int64_t i = 0; i < n; i++)
            to[i] = float_of_bfloat(narrow[i * step]);
    else if (type == CUDA_R_16F)
        for (int64_t i = 0; i < n; i++)
            to[i] = float_of_half(narrow[i * step]);
    else if (type == CUDA_R_64F)
        for (int64_t i = 0; i < n; i++)
            to[i] = (float)full[i * step];
    else if (step == 1)
        memcpy(to, wide, (size_t)n * sizeof *to);
    else
        for (int64_t i = 0; i < n; i++)
            to[i] = wide[i * step];
}

void sim_product_store(const float *from, int64_t n, void *to, cudaDataType type, int64_t step)
{
    uint16_t *narrow = to;
    float *wide = to;
    double *full = to;
    if (type == CUDA_R_16BF)
        for (int64_t i = 0; i < n; i++)
            narrow[i * step] = bfloat_of_float(from[i]);
    else if (type == CUDA_R_16F)
        for (int64_t i = 0; i < n; i++)
            narrow[i * step] = half_of_float(from[i]);
    else if (type == CUDA_R_64F)
        for (int64_t i = 0; i < n; i++)
            full[i * step] = from[i];
    else if (step == 1)
        memcpy(wide, from, (size_t)n * sizeof *from);
    else
        for (int64_t i = 0; i < n; i++)
            wide[i * step] = from[i];
}
