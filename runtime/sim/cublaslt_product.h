/* cublaslt_product.h - what libcublas and libcublasLt share: handles and matrix products.
 *
 * A call of either library is checked, made into a Product and put into a stream; the
 * operation checks its operands' memory when it runs, multiplies (cublaslt_tile.h), and
 * applies scalars and the epilogue:
 *
 *     D = epilogue(alpha * op(A) op(B) + beta * C)
 */
#ifndef MDL_SIM_PRODUCT_H
#define MDL_SIM_PRODUCT_H

#include <stdbool.h>
#include <stdint.h>

#include <cublasLt.h>

#include "sim.h"

enum {
    BLAS_ALIGNMENT = 256,         /* of a workspace */
    BLAS_WORKSPACE_NOTED = 65536, /* bytes of a workspace that a product is said to write */
};

/* ------------------------------------------------------------------- handles */

typedef struct BlasHandle {
    bool alive, light; /* light: of cuBLASLt */
    int device;        /* current when it was made */
    void *stream;      /* a cudaStream_t */
    int pointer_mode, math_mode, atomics_mode, sm_count;
    uint64_t workspace, workspace_bytes; /* 0: the library's own */
    struct BlasHandle *next;
} BlasHandle;

cublasStatus_t sim_blas_create(void **handle, bool light, const char *call);
cublasStatus_t sim_blas_destroy(void *handle, const char *call);
/* The handle, where it is alive and the calling thread is on its device; else NULL and why:
 * what is no handle is reported. Every cuBLAS handle serves cuBLASLt, too. */
BlasHandle *sim_blas_handle(void *handle, const char *call, cublasStatus_t *why);
/* The same on any device, for calls that only look at the handle or set something. */
BlasHandle *sim_blas_handle_anywhere(void *handle, const char *call, cublasStatus_t *why);
const char *sim_blas_status_name(cublasStatus_t status);
/* Ends a call that SIM_ENTER began; returns the status. */
cublasStatus_t sim_blas_leave(const char *call, cublasStatus_t status);
/* Whether the environment wants this call to fail; knows the names without _v2, too. */
bool sim_blas_fail_now(const char *call);
/* A function of the real library that is not simulated. */
int sim_blas_unknown(const char *call, void *caller);

/* The body of an exported function. */
#define BLAS_CALL(kind, ...)                                                                       \
    SIM_ENTER(__func__, kind);                                                                     \
    return sim_blas_leave(__func__, sim_blas_fail_now(__func__) ? CUBLAS_STATUS_EXECUTION_FAILED   \
                                                                : (__VA_ARGS__))

/* ------------------------------------------------------------------ products */

/* A matrix of device memory, column by column or row by row, `ld` elements apart. */
typedef struct {
    uint64_t address;
    cudaDataType type;
    int64_t rows, cols, ld;
    int64_t stride; /* elements from one matrix of a batch to the next */
    bool row_major;
    bool pointers; /* address is that of an array of device pointers, one for each matrix */
} ProductMatrix;

typedef struct {
    double value;     /* read at the call, or */
    uint64_t address; /* read when the product runs */
} ProductScalar;

typedef struct {
    char call[48];
    int64_t m, n, k;
    int batch;
    bool transpose_a, transpose_b;
    bool in_double;
    ProductMatrix a, b, c, d;
    ProductScalar alpha, beta;
    uint32_t epilogue; /* cublasLtEpilogue_t */
    uint64_t bias, aux;
    cudaDataType bias_type, aux_type;
    int64_t bias_stride, aux_ld, aux_stride;
    uint64_t workspace, workspace_bytes;
} Product;

int sim_product_size_of(cudaDataType type); /* bytes; 0: none that is simulated */
/* Whether D = op(A) op(B) can be asked for with these types: SUCCESS, INVALID_VALUE,
 * NOT_SUPPORTED, or SUCCESS with *unknown where only the real library can. */
cublasStatus_t sim_product_types(cublasComputeType_t compute, cudaDataType a, cudaDataType b,
                                 cudaDataType c, bool *in_double, bool *unknown);
/* Reads a scalar at the call, or notes its address. false: reported. */
bool sim_product_scalar(ProductScalar *scalar, const void *pointer, bool on_device, bool in_double,
                        const char *call, const char *what);
/* Puts the product into the stream of the handle's device. */
cublasStatus_t sim_product_enqueue(const BlasHandle *handle, void *stream, const Product *product);
/* The stream behind a handle, where it is the device's; NULL after a report. */
SimStream *sim_blas_stream(const BlasHandle *handle, void *stream, const char *call);

/* Lines of elements in float: `step` elements apart. */
void sim_product_load(const void *from, cudaDataType type, int64_t step, int64_t n, float *to);
void sim_product_store(const float *from, int64_t n, void *to, cudaDataType type, int64_t step);

/* Epilogues: cublaslt_epilogue.c. Where their memory lies, for one matrix of the batch. */
typedef struct {
    void *bias, *aux; /* NULL: none */
    float *sums;      /* of BGRAD: m of them */
} ProductExtras;
bool product_epilogue_reads_bias(uint32_t epilogue);
bool product_epilogue_writes_bias(uint32_t epilogue);
bool product_epilogue_has_aux(uint32_t epilogue);
bool product_epilogue_writes_aux(uint32_t epilogue);
bool product_epilogue_aux_is_bits(uint32_t epilogue); /* of ReLU; else numbers */
bool product_epilogue_is_known(uint32_t epilogue);
int64_t product_bias_length(const Product *p);
/* Applies what comes after alpha and beta to column j of D. */
void product_epilogue(const Product *p, const ProductExtras *extras, int64_t j, float *column);
/* BGRADA and BGRADB: sums along k of an operand, into the bias. */
void product_sum_operand(const Product *p, const void *a, const void *b, void *bias);

#endif
