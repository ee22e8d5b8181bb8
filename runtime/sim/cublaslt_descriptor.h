/* cublaslt_descriptor.h - what cuBLASLt's opaque descriptors hold. */
#ifndef MDL_SIM_DESCRIPTOR_H
#define MDL_SIM_DESCRIPTOR_H

#include "cublaslt_product.h"

typedef enum {
    DESCRIPTOR_LAYOUT = 0x6c61796f,
    DESCRIPTOR_MATMUL = 0x6d61746d,
    DESCRIPTOR_PREFERENCE = 0x70726566,
    DESCRIPTOR_ALGORITHM = 0x616c676f,
    DESCRIPTOR_ENDED = 0x64656164,
} DescriptorKind;

typedef struct {
    uint32_t kind; /* DescriptorKind */
    uint32_t type; /* cudaDataType */
    int32_t order, batch;
    uint64_t rows, cols;
    int64_t ld, stride;
    uint32_t batch_mode;
} LayoutDescriptor;

typedef struct {
    uint32_t kind;
    int32_t compute_type, scale_type, pointer_mode, transa, transb, transc, fill_mode;
    uint32_t epilogue;
    int32_t aux_type, bias_type, sm_count;
    int8_t fast_accumulation;
    const void *bias, *aux;
    int64_t bias_stride, aux_ld, aux_stride, alpha_stride;
} MatmulDescriptor;

typedef struct {
    uint32_t kind, search_mode;
    uint64_t workspace_bytes, implementations;
    uint32_t reductions, alignment[4];
    float waves;
} PreferenceDescriptor;

typedef struct {
    uint32_t kind;
    uint32_t tile, splits, stages;
    uint64_t workspace_bytes;
} AlgorithmDescriptor;

_Static_assert(sizeof(LayoutDescriptor) <= sizeof(cublasLtMatrixLayoutOpaque_t), "fits");
_Static_assert(sizeof(MatmulDescriptor) <= sizeof(cublasLtMatmulDescOpaque_t), "fits");
_Static_assert(sizeof(PreferenceDescriptor) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "fits");
_Static_assert(sizeof(AlgorithmDescriptor) <= sizeof(cublasLtMatmulAlgo_t), "fits");

/* Whether it is a live descriptor of the kind; else false, after a report where it is one
 * that has ended or was never made. NULL is false without a report. */
bool descriptor_is(const void *descriptor, DescriptorKind kind, const char *call);

#endif
