/* catalogue.c - the numbers behind `devices gpu[8] = h100_80g;`.
 *
 * From the makers' public data sheets; the part each row is from is named beside it. compute
 * is without sparsity: TF32 tensor cores where the part has them, else plain f32. Links are
 * one way: NVLink where the part has it, else PCI Express x16. Latencies are typical of a
 * small message over that link. */
#include "catalogue.h"

#include <string.h>

#define GIB ((int64_t)1 << 30)

const DeviceType catalogue[] = {
    /* NVIDIA V100 data sheet, SXM2: 15.7 TFLOPS f32, 900 GB/s, NVLink 300 GB/s both ways */
    {"v100_16g", 16 * GIB, 15.7e12, 900e9, 150e9, 5e-6},
    {"v100_32g", 32 * GIB, 15.7e12, 900e9, 150e9, 5e-6},
    /* NVIDIA A100 data sheet, SXM: 156 TFLOPS TF32, NVLink 600 GB/s both ways */
    {"a100_40g", 40 * GIB, 156e12, 1555e9, 300e9, 4e-6},
    {"a100_80g", 80 * GIB, 156e12, 2039e9, 300e9, 4e-6},
    /* NVIDIA H100 data sheet, SXM: 989 TFLOPS TF32 with sparsity, NVLink 900 GB/s both ways */
    {"h100_80g", 80 * GIB, 494.5e12, 3.35e12, 450e9, 4e-6},
    /* NVIDIA H200 data sheet, SXM: as H100, with 141 GB at 4.8 TB/s */
    {"h200_141g", 141000000000, 494.5e12, 4.8e12, 450e9, 4e-6},
    /* NVIDIA HGX B200 data sheet, per GPU: 2.2 PFLOPS TF32 with sparsity, NVLink 1.8 TB/s
     * both ways */
    {"b200_180g", 180000000000, 1.1e15, 7.7e12, 900e9, 4e-6},
    /* NVIDIA L4 data sheet: 120 TFLOPS TF32 with sparsity, 300 GB/s, PCIe 4 */
    {"l4_24g", 24 * GIB, 60e12, 300e9, 32e9, 10e-6},
    /* NVIDIA L40S data sheet: 183 TFLOPS TF32, 864 GB/s, PCIe 4 */
    {"l40s_48g", 48 * GIB, 183e12, 864e9, 32e9, 10e-6},
    /* NVIDIA Ampere GA102 whitepaper, GeForce RTX 3090: 35.6 TFLOPS TF32, 936 GB/s, PCIe 4 */
    {"rtx3090_24g", 24 * GIB, 35.6e12, 936e9, 32e9, 10e-6},
    /* NVIDIA Ada whitepaper, GeForce RTX 4090: 82.6 TFLOPS TF32, 1008 GB/s, PCIe 4 */
    {"rtx4090_24g", 24 * GIB, 82.6e12, 1008e9, 32e9, 10e-6},
    /* NVIDIA RTX Blackwell whitepaper, GeForce RTX 5090: 104.8 TFLOPS TF32, 1792 GB/s, PCIe 5 */
    {"rtx5090_32g", 32 * GIB, 104.8e12, 1792e9, 64e9, 10e-6},
    /* a few cores of a server's processor; devices share its memory, so there is no limit */
    {"cpu", 0, 200e9, 20e9, 10e9, 1e-6},
};

const int catalogue_size = sizeof catalogue / sizeof *catalogue;

const DeviceType catalogue_core = {NULL, 0, 100e9, 20e9, 10e9, 2e-6};

const DeviceType *catalogue_find(const char *name)
{
    for (int i = 0; i < catalogue_size; i++)
        if (!strcmp(catalogue[i].name, name))
            return &catalogue[i];
    return NULL;
}
