/* catalogue.c - the numbers behind `devices gpu[8] = h100_80g;`.
 *
 * From the makers' public data sheets; the part each row is from is named beside it. FLOP/s are
 * without sparsity: plain f32, and tensor cores for 16 bits. Links are one way: NVLink
 * where the part has it, else PCI Express x16. Latencies are typical of a small message over
 * that link. The link to the host is PCI Express x16 of the part's generation: 3, 4 or 5. */
#include "catalogue.h"

#include <string.h>

#define GIB ((int64_t)1 << 30)

/* Between kernels of one stream, as is commonly measured. */
#define GPU_CALL 2e-6

const DeviceType catalogue[] = {
    /* NVIDIA V100 data sheet, SXM2: 15.7 TFLOPS f32, 125 tensor, NVLink 300 GB/s both ways */
    {"v100_16g", 16 * GIB, 15.7e12, 125e12, 900e9, 150e9, 5e-6, GPU_CALL, 16e9},
    {"v100_32g", 32 * GIB, 15.7e12, 125e12, 900e9, 150e9, 5e-6, GPU_CALL, 16e9},
    /* NVIDIA A100 data sheet, SXM: 19.5 TFLOPS f32, 312 bf16, NVLink 600 GB/s both ways */
    {"a100_40g", 40 * GIB, 19.5e12, 312e12, 1555e9, 300e9, 4e-6, GPU_CALL, 32e9},
    {"a100_80g", 80 * GIB, 19.5e12, 312e12, 2039e9, 300e9, 4e-6, GPU_CALL, 32e9},
    /* NVIDIA H100 data sheet, SXM: 67 TFLOPS f32, 1,979 bf16 with sparsity, NVLink 900 GB/s
     * both ways */
    {"h100_80g", 80 * GIB, 67e12, 989.5e12, 3.35e12, 450e9, 4e-6, GPU_CALL, 64e9},
    /* NVIDIA H200 data sheet, SXM: as H100, with 141 GB at 4.8 TB/s */
    {"h200_141g", 141000000000, 67e12, 989.5e12, 4.8e12, 450e9, 4e-6, GPU_CALL, 64e9},
    /* NVIDIA HGX B200 data sheet, per GPU: 75 TFLOPS f32, 4.5 PFLOPS bf16 with sparsity,
     * NVLink 1.8 TB/s both ways */
    {"b200_180g", 180000000000, 75e12, 2.25e15, 7.7e12, 900e9, 4e-6, GPU_CALL, 64e9},
    /* NVIDIA L4 data sheet: 30.3 TFLOPS f32, 242 bf16 with sparsity, 300 GB/s, PCIe 4 */
    {"l4_24g", 24 * GIB, 30.3e12, 121e12, 300e9, 32e9, 10e-6, GPU_CALL, 32e9},
    /* NVIDIA L40S data sheet: 91.6 TFLOPS f32, 362 bf16, 864 GB/s, PCIe 4 */
    {"l40s_48g", 48 * GIB, 91.6e12, 362e12, 864e9, 32e9, 10e-6, GPU_CALL, 32e9},
    /* NVIDIA Ampere GA102 whitepaper, GeForce RTX 3090: 35.6 TFLOPS f32, 71 bf16, PCIe 4 */
    {"rtx3090_24g", 24 * GIB, 35.6e12, 71e12, 936e9, 32e9, 10e-6, GPU_CALL, 32e9},
    /* NVIDIA Ada whitepaper, GeForce RTX 4090: 82.6 TFLOPS f32, 165 bf16, PCIe 4 */
    {"rtx4090_24g", 24 * GIB, 82.6e12, 165.2e12, 1008e9, 32e9, 10e-6, GPU_CALL, 32e9},
    /* NVIDIA RTX Blackwell whitepaper, GeForce RTX 5090: 104.8 TFLOPS f32, 209.5 bf16, PCIe 5 */
    {"rtx5090_32g", 32 * GIB, 104.8e12, 209.5e12, 1792e9, 64e9, 10e-6, GPU_CALL, 64e9},
    /* a few cores of a server's processor, which has instructions for bf16; devices share its
     * memory, so there is no limit */
    {"cpu", 0, 200e9, 400e9, 20e9, 10e9, 1e-6, 0.5e-6, 0},
};

const int catalogue_size = sizeof catalogue / sizeof *catalogue;

const DeviceType catalogue_core = {NULL, 0, 100e9, 200e9, 20e9, 10e9, 2e-6, 0.5e-6, 16e9};

const DeviceType *catalogue_find(const char *name)
{
    for (int i = 0; i < catalogue_size; i++)
        if (!strcmp(catalogue[i].name, name))
            return &catalogue[i];
    return NULL;
}
